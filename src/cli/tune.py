"""`python tune.py`: turn out-of-fold predictions into a recipe, and say what it is worth."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from src import paths
from src.cli.common import Parser, add_data_arguments, run_command
from src.cli.printing.tune import print_aligned, print_breakdown, print_candidates, verdict
from src.cli.tune_inputs import (
    DEFAULT_RECIPE,
    check_arguments,
    choose_scheme,
    choose_tunable,
    imported_extras,
    next_command,
)
from src.errors import UserError

if TYPE_CHECKING:
    import optuna

    from src.ensemble.strategy import Search
    from src.ensemble.tune import Tuned

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
    parser.add_argument(
        "--calibrate", metavar="NAME",
        help="platt, temperature or isotonic: calibrate every member first, in place of every "
        "strategy in which their scale counts",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list the strategies and stop")
    parser.add_argument(
        "--extra",
        action="append",
        default=[],
        metavar="NAME=OOF.csv,TEST.csv",
        help="predictions from elsewhere as a member, joined by id; or a YAML that lists several: "
        "NAME: {oof: OOF.csv, test: TEST.csv}; may be repeated",
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
    check_arguments(args)
    dataset = choose_tunable(args.data, args.input_root)
    scheme = choose_scheme(dataset, args.scheme)

    from src.artifacts.recipes import write_recipe
    from src.ensemble.search import CALIBRATIONS

    if args.calibrate:
        CALIBRATIONS.get(args.calibrate)  # before an extra member is written
    with imported_extras(args, dataset, scheme):
        tuned, plots = _tune(args, dataset, scheme)
    path = paths.recipe_json(dataset, args.recipe)
    replaced = path.exists()
    write_recipe(path, tuned.recipe)
    print_candidates(tuned)
    print_breakdown(tuned)
    print(f"\n{verdict(tuned)}")
    for plot in plots:
        print(f"plot: {plot}")
    print(f"{'replaced' if replaced else 'wrote'} {path}")
    print(f"next: {next_command(args, dataset)}")


def _tune(args: argparse.Namespace, dataset: str, scheme: str) -> "tuple[Tuned, list[Path]]":
    """Align the members, climb the ladder; returns what came of it and its plots."""
    from src.ensemble.align import align
    from src.ensemble.search import calibrate, ladder
    from src.ensemble.tune import n_trials, tune
    from src.inference.lineage import check_own

    aligned = align(dataset, scheme, args.models)
    check_own(dataset, scheme, aligned.models, aligned.folds, args.input_root)
    names = ladder(len(aligned.models), args.voting, args.strategies)
    if args.calibrate:
        plain, names = names, calibrate(names, args.calibrate, len(aligned.models))
        same = [name for name in plain if name in names]
        if len(same) == len(names):
            raise UserError(
                f"--calibrate {args.calibrate} changes none of {', '.join(same)}: leave it out, or "
                "name strategies in which the scale of a prediction counts"
            )
        if same:
            print(f"--calibrate {args.calibrate} leaves as they are: {' '.join(same)}")
    print_aligned(aligned)
    search, plots = _search(args, dataset)
    with _progress(n_trials(aligned, names, search)) as on_trial:
        search = replace(search, on_trial=on_trial)
        split_by = ("kind", "domain") if args.by_domain else ("kind",)
        tuned = tune(aligned, voting=args.voting, names=names, search=search, split_by=split_by)
    return tuned, plots


def _list_strategies() -> None:
    from src.ensemble.search import CALIBRATIONS, STRATEGIES, ladder

    for name in ladder(1000):
        found = STRATEGIES.get(name)
        trials = f" {found.trials} trials." if found.sampler else ""
        print(f"{name:<18} {found.voting:<6} {found.about}{trials}")
    print("\nonly when named, or by --calibrate:")
    for method in CALIBRATIONS:
        ready = [name for name in STRATEGIES if name.startswith(f"{method}-")]
        print("  " + " ".join(name for name in ready if not STRATEGIES.get(name).default))


def _search(args: argparse.Namespace, dataset: str) -> "tuple[Search, list[Path]]":
    """Return how to search, and a list that fills with plots."""
    from src.ensemble.strategy import Search

    plots: list[Path] = []

    def plot(study: "optuna.Study", name: str) -> None:
        if args.plots and name.endswith("/all"):
            from src.reporting.charts import plot_study

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
