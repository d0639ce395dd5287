"""`python -m src <verb>`: everything beyond the three commands."""

import importlib
import sys

from src.cli.common import USER_MISTAKE

VERBS = {
    "demo": "the whole job on an embedded data set: folds, two models, tuning, submission",
    "data": "what was understood of a data set: counts, sizes, duplicates, unreadable files",
    "folds": "make the fold file and say what a naive split would have leaked",
    "models": "the models that --model takes",
}


def main() -> int:
    """Dispatch to `src.cli.<verb>`; returns the exit code."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        for _verb, _text in VERBS.items():
            pass
        return 0
    if arguments[0] not in VERBS:
        return USER_MISTAKE
    return importlib.import_module(f"src.cli.{arguments[0]}").main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
