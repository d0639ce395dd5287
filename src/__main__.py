"""`python -m src <verb>`: everything beyond the three commands."""

import sys
from collections.abc import Sequence

from src.cli import parsers
from src.cli.common import run_command
from src.errors import unknown_name

VERBS = {
    "plan": "what to train in the minutes there are: this data, this machine, the commands to type",
    "demo": "the whole job on an embedded data set: folds, two models, tuning, submission",
    "data": "what was understood of a data set: counts, sizes, duplicates, unreadable files",
    "shards": "pack a data set into tar shards with an index, read in place from anywhere",
    "folds": "make the fold file and say what a naive split would have leaked",
    "faces": "find the faces in images and clips, for the models that crop them",
    "models": "the models that --model takes",
    "card": "what models cost beside each other: weights, GMACs, speed, latency, file, memory",
    "merge": "average the weights of models (soups, TIES, ...), and see whether it helped",
    "variants": "train N variants of a model, the ingredients of a soup",
    "look": "single files: verdict, maps, people, seconds, provenance; terminal, JSON, a page",
    "serve": "a page to drop files on, with the evidence of each; a JSON API",
    "watch": "a camera, a stream or a film: a rolling verdict of each person who is followed",
    "report": "learning curves, confusion, reliability, the most wrong items: a page a model",
    "attention": "where a transformer looks, layer by layer, beside its teacher",
    "evaluate": "the metrics of the field, with intervals; on another data set too (--from)",
    "robustness": "how scores hold when pictures come as JPEG, blurred, smaller, noisy, retouched",
    "score": "CSVs of scores from anywhere: every metric, and which of two is better",
    "compare": "many ways to train, in one go: in-domain against out-of-domain scores",
    "launch": "many jobs at once: folds, seeds, tuning; on this machine, SLURM or Ray",
    "export": "checkpoints as files for ONNX Runtime or OpenVINO, checked against torch",
    "bundle": "one archive that predicts with a recipe, without internet (Kaggle)",
    "submit-log": "the book of submissions: cross-fitted against public scores",
}


def main() -> int:
    """Run the verb that was typed; returns the exit code."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] not in VERBS:
        return run_command(_help, arguments)
    return parsers.main(arguments[0].replace("-", "_"), arguments[1:])


def _help(arguments: Sequence[str] | None) -> None:
    if arguments and arguments[0] not in ("-h", "--help"):
        raise unknown_name("verb", arguments[0], VERBS, "what each does: python -m src --help")
    lines = [f"  {verb:<11} {text}" for verb, text in VERBS.items()]
    sys.stdout.write("\n".join(["usage: python -m src <verb> ...", "", *lines, ""]))


if __name__ == "__main__":
    sys.exit(main())
