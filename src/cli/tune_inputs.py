"""What `tune.py` works on: the data set, the scheme, members from elsewhere; flags that fit."""

import argparse
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from src import paths
from src.cli.common import choose_dataset, existing_scheme
from src.errors import UserError, unknown_name

if TYPE_CHECKING:
    from src.ensemble.extra import CheckedExtra

DEFAULT_RECIPE = "tuned"
NO_FOLDS = """has no fold column: nothing shows that its predictions were made on these folds; \
if they were not, its scores are too good"""


def check_arguments(args: argparse.Namespace) -> None:
    """Raise a UserError for a number or a name that cannot be."""
    if args.trials is not None and args.trials < 1:
        raise UserError(f"--trials {args.trials}: want 1 or more")
    if args.timeout is not None and not args.timeout > 0:
        raise UserError(f"--timeout {args.timeout}: want seconds, more than 0")
    if not 0 <= args.seed < 2**32:
        raise UserError(f"--seed {args.seed}: want 0 to {2**32 - 1}")
    name = args.recipe
    if not paths.is_plain(name) or name.startswith(".") or "\\" in name:
        raise UserError(f"--recipe {name!r}: want a plain name, such as {DEFAULT_RECIPE}")


def choose_tunable(wanted: str | None, input_root: Path | None) -> str:
    """Return the data set to tune on: as other commands do, or the one that has predictions.

    Tuning reads no images, so a machine without `input/` can tune.
    """
    home = paths.oof_home()
    names = sorted(p.name for p in home.iterdir() if p.is_dir()) if home.is_dir() else []
    if wanted in names:
        return str(wanted)
    try:
        return choose_dataset(wanted, input_root)
    except UserError:
        if wanted is None and len(names) == 1:
            return names[0]
        raise


def choose_scheme(dataset: str, wanted: str | None) -> str:
    """Return the fold scheme to tune on; raises UserError where none, or several, fit."""
    scheme = existing_scheme(dataset, wanted)
    if scheme is not None:
        return scheme
    home = paths.folds_dir(dataset)
    train = f"python train_folds.py --data {shlex.quote(dataset)} --model effnet_b0 --fold 0"
    if wanted is None:
        raise UserError(
            f"{home} holds no fold file and nothing is trained on it yet; run {train} first"
        )
    names = [p.stem for p in home.glob("*.csv") if not p.name.endswith(".excluded.csv")]
    raise unknown_name("fold scheme", wanted, names, f"looked in {home}; {train} makes one")


@contextmanager
def imported_extras(args: argparse.Namespace, dataset: str, scheme: str) -> Iterator[None]:
    """Import every `--extra`; where the body ends with an error, new ones go again.

    Their names are locked until the body ends: of two commands that bring one name, neither tunes
    on the other's predictions, nor takes them back.
    """
    if not args.extra:
        yield
        return
    from src.artifacts.atomic import file_lock
    from src.ensemble.extra import named_extras

    with ExitStack() as locks:
        for name in sorted({extra.name for extra in named_extras(args.extra)}):
            what = f"{dataset}/{scheme}/{name} (--extra)"
            locks.enter_context(file_lock(paths.extra_lock(dataset, scheme, name), what))
        with _imported(args, dataset, scheme):
            yield


@contextmanager
def _imported(args: argparse.Namespace, dataset: str, scheme: str) -> Iterator[None]:
    extras = _checked_extras(args, dataset, scheme)
    new = [e for e in extras if not paths.oof_dir(dataset, scheme, e.name).exists()]
    _write_extras(extras, dataset, scheme)
    try:
        yield
    except BaseException:
        for extra in new:
            shutil.rmtree(paths.oof_dir(dataset, scheme, extra.name), ignore_errors=True)
        if new:
            print(f"taken back: {' '.join(extra.name for extra in new)}", file=sys.stderr)
        raise


def _checked_extras(args: argparse.Namespace, dataset: str, scheme: str) -> "list[CheckedExtra]":
    """Check every `--extra`, and the names beside them, before the first one is written."""
    from src.ensemble.align import finished_folds
    from src.ensemble.extra import check_extras
    from src.ensemble.search import STRATEGIES

    checked = check_extras(args.extra, dataset, scheme)
    known = {*finished_folds(dataset, scheme), *(extra.name for extra in checked)}
    for model in sorted({*(args.models or [])} - known):
        raise unknown_name("model with out-of-fold predictions", model, sorted(known))
    for strategy in args.strategies or []:
        STRATEGIES.get(strategy)
    return checked


def _write_extras(extras: "Sequence[CheckedExtra]", dataset: str, scheme: str) -> None:
    from src.ensemble.extra import write_extra

    for extra in extras:
        write_extra(extra, dataset, scheme)
        print(f"{extra.name}: imported, folds {' '.join(map(str, extra.folds))}")
        if not extra.has_folds:
            print(f"WARNING {extra.name} {NO_FOLDS}")


def next_command(args: argparse.Namespace, dataset: str) -> str:
    """Return the command that predicts by the recipe."""
    words = ["python", "predict_ensemble.py", "--data", dataset]
    if args.input_root is not None:
        words += ["--input-root", str(args.input_root)]
    if args.recipe != DEFAULT_RECIPE:
        words += ["--recipe", args.recipe]
    return shlex.join(words)
