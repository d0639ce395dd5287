"""What all commands share: how they end, what they work on, and streams that can be written to."""

import io
import logging
import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO, TypeVar

from src import paths
from src.compute import ranks
from src.compute.clock import Clock, TimeUpError
from src.errors import (
    UNSEEN,
    UserError,
    disk_trouble,
    memory_trouble,
    message_of,
    unknown_name,
)
from src.machine import collect_less

Request = TypeVar("Request")
DONE, USER_MISTAKE, INTERRUPTED = 0, 2, 130
GOES_ON = "interrupted; the same command goes on from here"


def run_command(
    main: Callable[[Sequence[str] | None], None],
    argv: Sequence[str] | None,
    on_signal: str = GOES_ON,
) -> int:
    """Run a command and turn its end into an exit code.

    0 done, 2 user's mistake, a disk that is full or forbidden, or memory that ran out (one message,
    no traceback), 130 interrupted by Ctrl-C or SIGTERM. A limit of time (`--max-hours`) that ends
    a training is 0: what was asked for was done. `on_signal` is what is said of an interruption.
    """
    _survive()
    collect_less()
    Clock.raised = False
    try:
        paths.check_root()
        with Clock().running():  # SIGTERM ends as Ctrl-C does
            main(argv)
        sys.stdout.flush()
    except (KeyboardInterrupt, Exception) as error:
        code, words = _end_of(error, on_signal)
        code, instead = ranks.told(code, error)  # of several ranks one says why they end
        if instead is not None:
            words = instead
        if words is None:
            raise
        if words:
            print(words, file=sys.stderr)
        return code
    return DONE


def _end_of(error: BaseException, on_signal: str) -> tuple[int, str | None]:
    """Return the exit code of a command that an error ended, and what is said; None: a defect."""
    if isinstance(error, TimeUpError):
        return DONE, f"{error}; the same command goes on from here"
    # Libraries make other errors of what the signal raised in them: NumPy's and torch's C code says
    # ValueError, a class statement RuntimeError.
    if Clock.raised or isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, on_signal
    if isinstance(error, UserError):
        return USER_MISTAKE, f"error: {message_of(error)}"
    trouble = disk_trouble(error) or memory_trouble(error)
    if trouble is None:
        return 1, None
    named = getattr(error, "filename", None)
    return USER_MISTAKE, f"error: {f'{named}: ' if named else ''}{trouble}"


def taken(kind: type[Request], flags: Namespace, **more: Any) -> Request:  # noqa: ANN401
    """Return a request (a dataclass) made of the flags of its fields' names, and of `more`."""
    known = {one.name for one in fields(kind)}  # type: ignore[arg-type]
    return kind(**{key: value for key, value in vars(flags).items() if key in known} | more)


def choose_dataset(wanted: str | None, input_root: Path | None = None) -> str:
    """Return the data set to work on: the one that `--data` named, or the only one there is."""
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


def datasets_with_oof() -> list[str]:
    """Return the data sets that have out-of-fold predictions."""
    home = paths.oof_home()
    return sorted(p.name for p in home.iterdir() if p.is_dir()) if home.is_dir() else []


def choose_tunable(wanted: str | None, input_root: Path | None) -> str:
    """Return the data set to tune on: as other commands do, or the one that has predictions.

    Tuning reads no images, so a machine without `input/` can tune.
    """
    names = datasets_with_oof()
    if wanted in names:
        return str(wanted)
    try:
        return choose_dataset(wanted, input_root)
    except UserError:
        if wanted is None and len(names) == 1:
            return names[0]
        raise


def named_scheme(dataset: str, scheme: str) -> str:
    """Return the flag that names a scheme in a command to type; "" where there is no other."""
    from src.artifacts.folds import scheme_names  # pandas, which no parser waits for

    return f" --scheme {scheme}" if len(scheme_names(dataset)) > 1 else ""


def choose_scheme(dataset: str, wanted: str | None) -> str:
    """Return the fold scheme to tune on; raises UserError where none, or several, fit."""
    # pandas, which no parser waits for
    from src.artifacts.folds import existing_scheme, scheme_names

    scheme = existing_scheme(dataset, wanted)
    if scheme is not None:
        return scheme
    home = paths.folds_dir(dataset)
    train = f"python train_folds.py --data {shlex.quote(dataset)} --model effnet_b0 --fold 0"
    if wanted is None:
        raise UserError(
            f"{home} holds no fold file and nothing is trained on it yet; run {train} first"
        )
    names = scheme_names(dataset)
    raise unknown_name("fold scheme", wanted, names, f"looked in {home}; {train} makes one")


def recipe_names(dataset: str) -> list[str]:
    """Return the recipes of a data set, those that a bundle brought included."""
    return sorted({p.stem for home in paths.recipe_dirs(dataset) for p in home.glob("*.json")})


def choose_recipe(dataset: str, wanted: str | None) -> str:
    """Return the recipe to work with: the one named, `tuned`, or the only one."""
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


def recipe_to_look(flags: Namespace) -> tuple[str, str]:
    """Return data set and name of the recipe that files are looked at by.

    A bundle has recipes and no data: where no data set is named, the only one with a recipe is.
    """
    dataset = flags.data
    if dataset is None:
        homes = [home for home in paths.recipe_homes() if home.is_dir()]
        known = {place.name for home in homes for place in home.iterdir() if place.is_dir()}
        known = {name for name in known if recipe_names(name)}
        dataset = known.pop() if len(known) == 1 else None
    if dataset is None or not recipe_names(dataset):
        dataset = choose_tunable(dataset, flags.input_root)
    return dataset, choose_recipe(dataset, flags.recipe)


def recipe_path(dataset: str, recipe: str) -> Path:
    """Return the file of a recipe, where it is or in a bundle."""
    return paths.readable(paths.recipe_json(dataset, recipe))


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


def listed(names: Sequence[str], most: int = 10) -> str:
    """Return names as text, with dots for those beyond the first."""
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "")


def print_first(lines: Sequence[str], rest: str = "", most: int = 10, indent: str = "  ") -> None:
    """Print the first lines and how many more there are; `rest` says of what."""
    for line in lines[:most]:
        print(f"{indent}{line}")
    if len(lines) > most:
        print(f"  ... and {len(lines) - most} more{rest}")


def print_not_whole(partial: Mapping[str, str], faceless: Sequence[str]) -> None:
    """Print items that were read in part or under another kind's name, and those without a face."""
    if partial:
        shown = "; ".join(f"{item}: {why}" for item, why in list(partial.items())[:10])
        more = " ..." if len(partial) > 10 else ""
        print(f"{len(partial)} not read as a whole: {shown}{more}")
    if faceless:
        print(f"{len(faceless)} show no face, so the whole picture was judged: {listed(faceless)}")


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells in aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())


class Surviving:
    """A stream whose reader may go away: the work goes on, and what it says goes nowhere.

    Without it `tune.py | head -1` would end in the middle of what it was asked for.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text, control characters as escapes; returns its length, also if nobody reads."""
        try:
            self._stream.write(text.translate(UNSEEN))
        except BrokenPipeError:
            self._give_up()
        return len(text)

    def flush(self) -> None:
        """Flush what is buffered."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._give_up()

    def _give_up(self) -> None:
        # What is still buffered is written to the null device by the next flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def _survive() -> None:
    """Make both standard streams ones that a command can always write to.

    A stream that was closed (`>&-`) is None in Python, and its number is free: the next file that
    is opened would take it, and whatever a library prints would be written into that file. A name
    that a terminal cannot show is printed as an escape.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            _occupy(number)
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - kept open
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            setattr(sys, name, Surviving(stream))


def _occupy(number: int) -> None:
    """Let the null device stand at a descriptor that nothing holds."""
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        if null != number:
            os.dup2(null, number)
            os.close(null)


def count_test_items(dataset: str, input_root: Path | None) -> int | None:
    """Return how many test items there are, None where none are here, or of the demo."""
    if dataset == paths.DEMO:
        return None  # it is made where it is missing, with OpenCV
    from src.data.layouts.load import load_dataset  # lists every file of the data set

    try:
        return len(load_dataset(dataset, input_root).test) or None
    except UserError:
        return None
