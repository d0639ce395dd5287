"""Flags: the parser, what several commands take, and how their values are read."""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

from src import paths
from src.errors import UserError, unknown_name
from src.training.trackers import DEFAULT, TRACKERS

AddFlags = Callable[["Parser"], None]
COMMANDS: dict[str, tuple[str, AddFlags]] = {}  # the head of --help, what adds the other flags
MOST_DIGITS = 18
MOST_WORKERS = 512  # processes that a machine can start


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


def command(about: str) -> Callable[[AddFlags], AddFlags]:
    """Enter a command under the name of the function that adds its flags."""

    def enter(add_flags: AddFlags) -> AddFlags:
        COMMANDS[add_flags.__name__.lstrip("_")] = (about, add_flags)
        return add_flags

    return enter


def _read_workers(text: str) -> int:
    if not text.isdecimal() or len(text) > MOST_DIGITS:
        raise argparse.ArgumentTypeError(f"want a whole number from 0 on, found {text[:40]!r}")
    if int(text) > MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"want at most {MOST_WORKERS} processes, found {text}")
    return int(text)


def read_ranks(text: str) -> int:
    """Return how many ranks a flag asks for."""
    if not text.isdecimal() or not 0 < int(text[:MOST_DIGITS]) <= MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"want a number of cards from 1 on, found {text[:40]!r}")
    return int(text)


def _read_hours(text: str) -> float:
    return _read_time(text, "hours, such as 8.5")


def _read_minutes(text: str) -> float:
    return _read_time(text, "minutes, such as 20")


def _read_time(text: str, wanted: str) -> float:
    try:
        time = float(text)
    except ValueError:
        time = float("nan")
    if not 0 < time < float("inf"):
        raise argparse.ArgumentTypeError(f"want {wanted}, found {text[:40]!r}")
    return time


def _read_fold(text: str) -> paths.FoldName:
    if text != paths.ALL and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"want a fold number, or {paths.ALL}, found {text!r}")
    return text if text == paths.ALL else int(text)


def add_data(parser: Parser, *, scheme: bool = True) -> None:
    """Add `--data`, `--input-root` and `--scheme`."""
    add = parser.add_argument
    add("--data", metavar="NAME", help="data set, a folder of input/ (or: demo)")
    add("--input-root", type=Path, metavar="DIR", help="folder of data sets, instead of input/")
    if scheme:
        text = "fold scheme, such as sgkf5_s42 (5 folds, seed 42)"
        add("--scheme", metavar="NAME", help=text)


def add_start(parser: Parser, text: str) -> None:
    """Add `--weights` and `--no-pretrained`."""
    add = parser.add_argument
    add("--weights", type=Path, metavar="FILE", help=f"weights {text}")
    add("--no-pretrained", action="store_true", help="random weights")


def add_fold(parser: Parser, text: str) -> None:
    """Add `--fold`: a number, or `all`."""
    parser.add_argument("--fold", type=_read_fold, metavar="K", help=text)


def add_cache(parser: Parser, text: str) -> None:
    """Add `--cache`."""
    ways = ["auto", "disk", "ram", "none"]
    parser.add_argument("--cache", default="auto", choices=ways, help=text)


def add_hours(parser: Parser, text: str) -> None:
    """Add `--max-hours`, counted from the start of the process."""
    parser.add_argument("--max-hours", type=_read_hours, metavar="H", help=text)


def add_minutes(parser: Parser, text: str, *, required: bool = False) -> None:
    """Add `--minutes`, counted from the start of the process."""
    add = parser.add_argument
    add("--minutes", type=_read_minutes, metavar="M", required=required, help=text)


def add_device(parser: Parser, *also: str) -> None:
    """Add `--device`, `--precision` (those of torch, and `also`) and `--workers`."""
    add = parser.add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16", *also])
    add("--workers", type=_read_workers, metavar="N", help="loader processes; default: auto")


def add_compute(parser: Parser, *also: str) -> None:
    """Add what `add_device` does, `--auto-batch` and `--compile`."""
    add_device(parser, *also)
    add, yes = parser.add_argument, "store_true"
    add("--auto-batch", action=yes, help="compute as much at once as fits into the GPU")
    add("--compile", action=yes, help="through torch.compile; minutes to begin with")


def add_training(parser: Parser) -> None:
    """Add what says on which data, how fast and from which weights a model is trained."""
    add = parser.add_argument
    add_data(parser)
    add_compute(parser)
    add_hours(parser, "stop before this is over; the same command goes on from there")
    add_minutes(parser, "fit the training of all folds asked for into this time, and finish it")
    text = "where decoded pixels are kept; default: on disk if there is room, else in memory"
    add_cache(parser, text)
    text = f"where each epoch's scores go too: {', '.join(TRACKERS)} (default: {DEFAULT})"
    add("--track", default=DEFAULT, metavar="NAME", help=text)
    text = "no picture and summary of each fold that has ended"
    add("--no-report", action="store_false", dest="report", help=text)
    add("--overwrite", action="store_true", help="start finished folds again")
    add_start(parser, "to start from")
    text = "change the config (optim.lr=1e-4); only with --as"
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes", help=text)
    add("--as", metavar="NEW_NAME", dest="new_name", help="name of the variant")
