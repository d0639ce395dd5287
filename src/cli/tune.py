"""`python tune.py`: turn out-of-fold predictions into a recipe, and say what it is worth."""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from src import paths
from src.cli.common import (
    Parser,
    add_data_arguments,
    choose_dataset,
    existing_scheme,
    run_command,
)
from src.cli.tune_report import print_aligned, print_candidates, verdict
from src.errors import UserError, unknown_name

if TYPE_CHECKING:
    import optuna

    from src.ensemble.strategy import Search

DEFAULT_RECIPE = "tuned"
NO_FOLDS = """has no fold column: nothing shows that its predictions were made on these folds; \
if they were not, its scores are too good"""
DESCRIPTION = """\
Find the weights and the threshold of an ensemble on out-of-fold predictions.

needs:   oof/<data>/<scheme>/<model>/fold_<k>.csv, written by train_folds.py
writes:  recipes/<data>/<recipe>.json, read by predict_ensemble.py

Every candidate, from the plain mean at 0.5 upwards, is scored on items it was not tuned on; one
replaces the simpler one only if it gains more than one standard error there.
"""


def make_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(DESCRIPTION, prog="tune.py")
    add_data_arguments(parser)
    parser.add_argument(
        "--models", nargs="+", metavar="NAME", help="members (default: all that have predictions)"
    )
    parser.add_argument(
        "--voting", metavar="NAME", help="soft, hard, rank, logit or stack (default: what wins)"
    )
    parser.add_argument(
        "--strategies", nargs="+", metavar="NAME", help="try only these (default: see --list)"
    )
    parser.add_argument("--list", action="store_true", help="list the strategies and stop")
    parser.add_argument(
        "--extra",
        action="append",
        default=[],
        metavar="NAME=OOF.csv,TEST.csv",
        help="predictions from elsewhere as a member, joined by id; may be repeated",
    )
    parser.add_argument(
        "--trials", type=int, metavar="N", help="trials of one search (default: the strategy's)"
    )
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="of one search")
    parser.add_argument(
        "--study",
        default="",
        metavar="URL",
        help="keep the searches there: sqlite:///x.db, postgresql://..., or a journal file; the "
        "same command goes on, several at once share the trials",
    )
    parser.add_argument(
        "--by-domain", action="store_true",
        help="let the winner try a threshold per domain: only where the test items carry theirs",
    )  # fmt: skip
    parser.add_argument("--plots", action="store_true", help="Optuna's plots, into reports/")
    parser.add_argument("--seed", type=int, default=42, metavar="N", help="default: 42")
    parser.add_argument(
        "--recipe", default=DEFAULT_RECIPE, metavar="NAME", help="name to write it under: tuned"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command(_main, argv)


def _main(argv: Sequence[str] | None) -> None:
    args = make_parser().parse_args(argv)
    if args.list:
        _list_strategies()
        return
    _check_arguments(args)
    dataset = choose_tunable(args.data, args.input_root)
    scheme = _scheme(dataset, args.scheme)

    from src.artifacts.recipes import write_recipe
    from src.ensemble.align import align
    from src.ensemble.search import ladder
    from src.ensemble.tune import n_trials, tune

    _import_extras(args, dataset, scheme)
    aligned = align(dataset, scheme, args.models)
    names = ladder(len(aligned.models), args.voting, args.strategies)
    print_aligned(aligned)
    search, plots = _search(args, dataset)
    with _progress(n_trials(aligned, names, search)) as on_trial:
        search = replace(search, on_trial=on_trial)
        split_by = ("kind", "domain") if args.by_domain else ("kind",)
        tuned = tune(aligned, voting=args.voting, names=names, search=search, split_by=split_by)
    path = paths.recipe_json(dataset, args.recipe)
    replaced = path.exists()
    write_recipe(path, tuned.recipe)
    print_candidates(tuned)
    print(f"\n{verdict(tuned)}")
    for plot in plots:
        print(f"plot: {plot}")
    print(f"{'replaced' if replaced else 'wrote'} {path}")
    print(f"next: {_next_command(args, dataset)}")


def _list_strategies() -> None:
    from src.ensemble.search import STRATEGIES, ladder

    default = ladder(1000)
    for name in [*default, *sorted(set(STRATEGIES) - set(default))]:
        found = STRATEGIES.get(name)
        trials = f" {found.trials} trials." if found.sampler else ""
        mark = "" if found.default else " Only when named."
        print(f"{name:<18} {found.voting:<6} {found.about}{trials}{mark}")


def _import_extras(args: argparse.Namespace, dataset: str, scheme: str) -> None:
    """Check every `--extra`, and the names beside them, before the first one is written."""
    if not args.extra:
        return
    from src.ensemble.align import finished_folds
    from src.ensemble.extra import check_extras, write_extra
    from src.ensemble.search import STRATEGIES

    checked = check_extras(args.extra, dataset, scheme)
    known = {*finished_folds(dataset, scheme), *(extra.name for extra in checked)}
    for model in sorted({*(args.models or [])} - known):
        raise unknown_name("model with out-of-fold predictions", model, sorted(known))
    for strategy in args.strategies or []:
        STRATEGIES.get(strategy)
    for extra in checked:
        write_extra(extra, dataset, scheme)
        print(f"{extra.name}: imported, folds {' '.join(map(str, extra.folds))}")
        if not extra.has_folds:
            print(f"WARNING {extra.name} {NO_FOLDS}")


def _search(args: argparse.Namespace, dataset: str) -> "tuple[Search, list[Path]]":
    """Return how to search, and a list that fills with plots."""
    from src.ensemble.strategy import Search

    plots: list[Path] = []

    def plot(study: "optuna.Study", name: str) -> None:
        if args.plots and name.endswith("/all"):
            from src.reporting.studies import plot_study

            plots.extend(plot_study(study, paths.study_plots_dir(dataset, args.recipe), name))

    search = Search(
        args.trials,
        args.seed,
        study=args.study,
        study_name=f"{dataset}/{args.recipe}",
        timeout=args.timeout,
        on_study=plot,
    )
    return search, plots


def _check_arguments(args: argparse.Namespace) -> None:
    if args.trials is not None and args.trials < 1:
        raise UserError(f"--trials {args.trials}: want 1 or more")
    if args.timeout is not None and not args.timeout > 0:
        raise UserError(f"--timeout {args.timeout}: want seconds, more than 0")
    if not 0 <= args.seed < 2**32:
        raise UserError(f"--seed {args.seed}: want 0 to {2**32 - 1}")
    name = args.recipe
    if not name or name.startswith(".") or Path(name).name != name or "\\" in name:
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


def _scheme(dataset: str, wanted: str | None) -> str:
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
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Yield a callback for one trial; a bar where somebody watches, else one plain line."""
    if not total:
        yield lambda: None
        return
    if not sys.stderr.isatty():
        print(f"searching: {total} trials in all", file=sys.stderr)
        yield lambda: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc="searching", unit="trial", leave=False) as bar:

        def on_trial() -> None:
            bar.update()

        yield on_trial


def _next_command(args: argparse.Namespace, dataset: str) -> str:
    words = ["python", "predict_ensemble.py", "--data", dataset]
    if args.input_root is not None:
        words += ["--input-root", str(args.input_root)]
    if args.recipe != DEFAULT_RECIPE:
        words += ["--recipe", args.recipe]
    return shlex.join(words)
