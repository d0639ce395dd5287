"""What all commands share: exit codes, choice of data set and scheme, no abbreviated flags.

Which recipe a command works with.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from src import paths
from src.cli.streams import survive
from src.compute.clock import Clock, TimeUpError
from src.errors import UserError, disk_trouble, memory_trouble, message_of, unknown_name

DONE, USER_MISTAKE, INTERRUPTED = 0, 2, 130
MOST_DIGITS = 18
MOST_WORKERS = 512


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, that offers the nearest flag for a mistyped one."""

    def __init__(self, description: str, prog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def parse_args(  # type: ignore[override]
        self, args: Iterable[str] | None = None, namespace: None = None
    ) -> argparse.Namespace:
        """Parse; an unknown flag is a user's mistake that lists what exists."""
        words = sys.argv[1:] if args is None else list(args)
        flags = [flag for action in self._actions for flag in action.option_strings]
        for word in words:  # before argparse, which would first miss what was mistyped
            if word == "--":
                break
            name = word.split("=")[0]
            if name.startswith("--") and " " not in name and name not in flags:
                raise unknown_name("argument", name, flags)
        known, rest = self.parse_known_args(words, namespace)
        if rest:
            raise unknown_name("argument", rest[0].split("=")[0], flags)
        return known

    def error(self, message: str) -> NoReturn:
        """Turn argparse's own complaints into the same kind of error."""
        raise UserError(f"{message}\n{self.format_usage().rstrip()}")


def run_command(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None) -> int:
    """Run a command and turn its end into an exit code.

    Returns:
        0 done, 2 user's mistake, a disk that is full or forbidden, or memory that ran out (one
        message, no traceback), 130 interrupted by Ctrl-C or SIGTERM. A limit of time
        (`--max-hours`) that ends a training is 0: what was asked for was done.
    """
    survive()
    Clock.raised = False
    try:
        paths.check_root()
        with Clock().running():  # SIGTERM ends as Ctrl-C does
            main(argv)
        sys.stdout.flush()
    except TimeUpError as end:
        print(f"{end}; the same command goes on from here", file=sys.stderr)
    except (KeyboardInterrupt, Exception) as error:
        # Libraries make other errors of what the signal raised in them: NumPy's and torch's C
        # code says ValueError, a class statement RuntimeError.
        if Clock.raised or isinstance(error, KeyboardInterrupt):
            print("interrupted; the same command goes on from here", file=sys.stderr)
            return INTERRUPTED
        if isinstance(error, UserError):
            print(f"error: {message_of(error)}", file=sys.stderr)
            return USER_MISTAKE
        trouble = disk_trouble(error) or memory_trouble(error)
        if trouble is None:
            raise
        named = getattr(error, "filename", None)
        print(f"error: {f'{named}: ' if named else ''}{trouble}", file=sys.stderr)
        return USER_MISTAKE
    return DONE


def add_data_arguments(parser: argparse.ArgumentParser, *, scheme: bool = True) -> None:
    """Add `--data`, `--input-root` and `--scheme`."""
    parser.add_argument("--data", metavar="NAME", help="data set, a folder of input/ (or: demo)")
    parser.add_argument(
        "--input-root", type=Path, metavar="DIR", help="folder of data sets, instead of input/"
    )
    if scheme:
        parser.add_argument(
            "--scheme", metavar="NAME", help="fold scheme, such as sgkf5_s42 (5 folds, seed 42)"
        )


def choose_dataset(wanted: str | None, input_root: Path | None = None) -> str:
    """Return the data set to work on.

    Args:
        wanted: what `--data` said, if anything.
        input_root: what `--input-root` said.

    Raises:
        UserError: unknown name, or no name while there is not exactly one data set.
    """
    home = paths.input_dir(input_root)
    found = [p for p in home.iterdir() if p.is_dir()] if home.is_dir() else []
    names = sorted(p.name for p in found if not p.name.startswith("."))
    if paths.DEMO in names:
        raise UserError(f"{home / paths.DEMO}: demo is the embedded data set; rename that folder")
    if wanted == paths.DEMO:
        return wanted
    if wanted is not None:
        if wanted not in names:
            raise unknown_name("data set", wanted, [*names, paths.DEMO], f"looked in {home}")
        return wanted
    if len(names) == 1:
        return names[0]
    if not names:
        raise UserError(
            f"{home} holds no data set: put a competition's files into a folder there, "
            "or try the embedded one with --data demo"
        )
    raise UserError(f"{home} holds {len(names)} data sets, say which: --data {{{','.join(names)}}}")


def existing_scheme(dataset: str, wanted: str | None) -> str | None:
    """Return the scheme to use among the fold files that exist; None if there is none yet.

    Raises:
        UserError: several exist and none was named.
    """
    from src.artifacts.folds import existing_scheme as find  # pandas is slow to import

    return find(dataset, wanted)


class _ToStdout(logging.Handler):
    """Writes to what is standard output now, which may be another file than at the start."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), flush=True)


def show_log() -> None:
    """Let the library's log lines through to standard output, as plain text."""
    logger = logging.getLogger("rvf")
    if not logger.handlers:
        handler = _ToStdout()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def count_argument(text: str) -> int:
    """Read a whole number from 0 on."""
    if not text.isdecimal() or len(text) > MOST_DIGITS:
        raise argparse.ArgumentTypeError(f"want a whole number from 0 on, found {text[:40]!r}")
    return int(text)


def workers_argument(text: str) -> int:
    """Read a number of processes that a machine can start."""
    if count_argument(text) > MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"want at most {MOST_WORKERS} processes, found {text}")
    return int(text)


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = float("nan")
    if not 0 < hours < float("inf"):
        raise argparse.ArgumentTypeError(f"want hours, such as 8.5, found {text[:40]!r}")
    return hours


def add_time_argument(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--max-hours`, counted from the start of the process."""
    parser.add_argument("--max-hours", type=_hours, metavar="H", help=what)


def add_device_arguments(parser: argparse.ArgumentParser, *also: str) -> None:
    """Add `--device`, `--precision` (those of torch, and `also`) and `--workers`."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    precisions = ["auto", "fp32", "bf16", "fp16", *also]
    parser.add_argument("--precision", default="auto", choices=precisions)
    parser.add_argument(
        "--workers", type=workers_argument, metavar="N", help="loader processes; default: auto"
    )


def add_compute_arguments(parser: argparse.ArgumentParser, *also: str) -> None:
    """Add `--device`, `--precision`, `--workers`, `--auto-batch` and `--compile`.

    Args:
        parser: to add to.
        also: precisions beside those of torch.
    """
    add_device_arguments(parser, *also)
    parser.add_argument(
        "--auto-batch", action="store_true", help="compute as much at once as fits into the GPU"
    )
    parser.add_argument(
        "--compile", action="store_true", help="through torch.compile; minutes to begin with"
    )


def recipe_names(dataset: str) -> list[str]:
    """Return the recipes of a data set, those that a bundle brought included."""
    return sorted({p.stem for home in paths.recipe_dirs(dataset) for p in home.glob("*.json")})


def choose_recipe(dataset: str, wanted: str | None) -> str:
    """Return the recipe to work with: the one named, `tuned`, or the only one.

    Raises:
        UserError: there is none, no such one, or several without `tuned`.
    """
    names = recipe_names(dataset)
    if not names:
        raise UserError(f"{dataset} has no recipe yet: python tune.py makes one")
    if wanted is not None and wanted not in names:
        raise unknown_name("recipe", wanted, names)
    if wanted is not None or len(names) == 1:
        return wanted or names[0]
    if "tuned" in names:
        return "tuned"
    raise UserError(
        f"{dataset} has {len(names)} recipes, say which: --recipe {{{','.join(names)}}}"
    )


def recipe_path(dataset: str, recipe: str) -> Path:
    """Return the file of a recipe, where it is or in a bundle."""
    return paths.readable(paths.recipe_json(dataset, recipe))
