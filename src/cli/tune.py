"""`python tune.py`: turn out-of-fold predictions into a recipe, and say what it is worth."""

import shlex
import shutil
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tqdm import tqdm

from src import paths
from src.artifacts.atomic import file_lock
from src.artifacts.competition import FREE, CompetitionRules, read_rules
from src.artifacts.recipes import write_recipe
from src.cli import parsers
from src.cli.common import choose_scheme, choose_tunable, count_test_items, taken
from src.cli.tune_report import (
    print_breakdown,
    print_candidates,
    print_conditions,
    print_kinds,
    print_members,
    verdict,
    verdict_of_rules,
    verdict_under,
)
from src.ensemble.align import Aligned, align, finished_folds
from src.ensemble.crossfit import Parts
from src.ensemble.extra import CheckedExtra, check_extras, named_extras, write_extra
from src.ensemble.search import CALIBRATIONS, STRATEGIES, calibrate, ladder
from src.ensemble.shift.chosen import Shifted, choose, look
from src.ensemble.shift.conditions import ROBUSTNESS, AllConditions, read_conditions, scheme_named
from src.ensemble.shift.mixture import HALF
from src.ensemble.strategy import Search
from src.ensemble.tune import Tuned, n_trials, tune
from src.ensemble.under_rules import Ruled, under_rules
from src.errors import UserError, unknown_name
from src.inference.lineage import check_own, dataset_config
from src.machine import keep_freed_memory
from src.metrics import DEFAULT, Metric, tuned_metric
from src.strict_yaml import read_yaml

if TYPE_CHECKING:  # only strategies that search load it
    import optuna

NO_RULES = "none"
NO_FOLDS = """has no fold column: nothing shows that its predictions were made on these folds; \
if they were not, its scores are too good"""


@dataclass(frozen=True)
class Tuning:
    """What is tuned, and how."""

    models: Sequence[str] | None = None  # members; None takes all that have predictions
    metric: str | None = None  # what is maximised; None takes the data set's
    recipe: str = parsers.DEFAULT_RECIPE  # the name it is written under
    voting: str | None = None  # strategies of this rule alone
    strategies: Sequence[str] | None = None  # these alone
    calibrate: str | None = None  # members first, by this method
    extra: Sequence[str] = ()  # members from elsewhere: `NAME=OOF.csv,TEST.csv`, or a YAML
    trials: int | None = None  # of one search
    timeout: float | None = None  # seconds of one search
    study: str = ""  # URL that keeps the searches
    seed: int = 42
    by_domain: bool = False  # the winner may take a threshold per domain
    plots: bool = False  # Optuna's
    rules: str | None = None  # a YAML in place of dataset.yaml's; `none` for no rules
    # other conditions that the outcome is scored under, and that it is chosen on: `robustness`,
    # other schemes
    also: Sequence[str] = ()
    under: Sequence[str] = ()
    clean_share: float | None = None  # of the rows that are then tuned on; None takes a half
    levels: Sequence[str] | None = None  # of `robustness`; None takes all that the members have
    input_root: Path | None = None

    def __post_init__(self) -> None:
        if self.trials is not None and self.trials < 1:
            raise UserError(f"--trials {self.trials}: want 1 or more")
        if self.timeout is not None and not self.timeout > 0:
            raise UserError(f"--timeout {self.timeout}: want seconds, more than 0")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"--seed {self.seed}: want 0 to {2**32 - 1}")
        if self.clean_share is not None and not (self.under and 0 <= self.clean_share < 1):
            what = "want 0 or more, and less than 1" if self.under else "it goes with --under"
            raise UserError(f"--clean-share {self.clean_share}: {what}")
        if self.levels is not None and ROBUSTNESS not in (*self.under, *self.also):
            raise UserError(f"--levels goes with --under {ROBUSTNESS} or --also {ROBUSTNESS}")
        name = self.recipe
        if not paths.is_plain(name) or name.startswith(".") or "\\" in name:
            raise UserError(
                f"--recipe {name!r}: want a plain name, such as {parsers.DEFAULT_RECIPE}"
            )


def run_tune(arguments: Namespace) -> None:
    """Do what the flags ask for."""
    if arguments.list:
        _list_strategies()
        return
    wanted = taken(Tuning, arguments)
    dataset = choose_tunable(arguments.data, arguments.input_root)
    make_recipe(dataset, choose_scheme(dataset, arguments.scheme), wanted)


def make_recipe(dataset: str, scheme: str, wanted: Tuning) -> None:
    """Tune on a data set's out-of-fold predictions, write the recipe and say what it is worth."""
    if wanted.calibrate:
        CALIBRATIONS.get(wanted.calibrate)  # before an extra member is written
    keep_freed_memory()
    metric = _metric(wanted, dataset)
    with _imported_extras(wanted, dataset, scheme):
        tuned, ruled, chosen, plots = _tune(wanted, dataset, scheme, metric)
    print_candidates(tuned)
    said = verdict(tuned)
    if ruled is not None:
        print_kinds(ruled)
        tuned, said = ruled.tuned(), verdict_of_rules(ruled)
    if chosen is not None:
        print_conditions(chosen)
        tuned, said = chosen.tuned, verdict_under(chosen) or said
    path = paths.recipe_json(dataset, wanted.recipe)
    replaced = path.exists()
    write_recipe(path, tuned.recipe)
    print_breakdown(tuned)
    print(f"\n{said}")
    for plot in plots:
        print(f"plot: {plot}")
    print(f"{'replaced' if replaced else 'wrote'} {path}")
    words = ["python", "predict_ensemble.py", "--data", dataset]
    if wanted.input_root is not None:
        words += ["--input-root", str(wanted.input_root)]
    if wanted.recipe != parsers.DEFAULT_RECIPE:
        words += ["--recipe", wanted.recipe]
    print(f"next: {shlex.join(words)}")


def _metric(wanted: Tuning, dataset: str) -> Metric:
    """Return the metric that was asked for, else the one that the data set names."""
    config = dataset_config(dataset, wanted.input_root)
    metric = tuned_metric(wanted.metric or config.metric or DEFAULT)
    if wanted.metric and config.metric and metric.name != config.metric:
        print(f"WARNING --metric {metric.name}: dataset.yaml says {config.metric}")
    return metric


def _rules(wanted: Tuning, dataset: str) -> CompetitionRules:
    """Return the rules of the competition: those of `--rules`, else of dataset.yaml."""
    if wanted.rules is None:
        return dataset_config(dataset, wanted.input_root).rules
    if wanted.rules == NO_RULES:
        return FREE
    return read_rules(read_yaml(Path(wanted.rules), as_text=True) or {}, wanted.rules)


class Outcome(NamedTuple):
    """What came of tuning."""

    tuned: Tuned  # on the rows as they are, without rules
    ruled: Ruled | None  # under the competition's rules, where there are some
    chosen: Shifted | None  # under other conditions, where some were named
    plots: list[Path]


def _conditions(wanted: Tuning, aligned: Aligned, rules: CompetitionRules) -> AllConditions | None:
    """Read the conditions that `--also` and `--under` name; None where they name none."""
    words = [*wanted.under, *wanted.also]
    if not words:
        return None
    if rules != FREE:
        raise UserError(
            f"--under and --also do not go with the competition's rules ({rules}): what these let "
            "predict is chosen and scored on the rows as they are; --rules none leaves them out"
        )
    found = read_conditions(aligned, words, wanted.levels, seed=wanted.seed)
    for scheme, (rows, _) in found.schemes.items():
        check_own(aligned.dataset, scheme, rows.models, rows.folds, wanted.input_root)
    return found


def _tune(wanted: Tuning, dataset: str, scheme: str, metric: Metric) -> Outcome:
    """Align the members and climb the ladder, under rules and other conditions too."""
    rules = _rules(wanted, dataset)
    aligned = align(dataset, scheme, wanted.models)
    check_own(dataset, scheme, aligned.models, aligned.folds, wanted.input_root)
    conditions = _conditions(wanted, aligned, rules)
    names = ladder(len(aligned.models), wanted.voting, wanted.strategies, metric)
    if wanted.calibrate:
        plain, names = names, calibrate(names, wanted.calibrate, len(aligned.models), metric)
        same = [name for name in plain if name in names]
        if len(same) == len(names):
            raise UserError(
                f"--calibrate {wanted.calibrate} changes none of {', '.join(same)}: leave it out, "
                "or name strategies in which the scale of a prediction counts"
            )
        if same:
            print(f"--calibrate {wanted.calibrate} leaves as they are: {' '.join(same)}")
    print_members(aligned, metric)
    search, plots = _search(wanted, dataset)
    search = replace(search, metric=metric)
    rounds = 2 if wanted.under else 1
    with _progress(rounds * n_trials(aligned, names, search)) as on_trial:
        search = replace(search, on_trial=on_trial)
        split_by = ("kind", "domain") if wanted.by_domain else ("kind",)

        def climb(members: Aligned, parts: Parts | None = None, own: Search | None = None) -> Tuned:
            """Tune some members, or as they look at one view, as all of them were tuned."""
            n = len(members.models)
            fit = [name for name in names if not STRATEGIES.get(name).wants_more(n, metric)]
            part = own or (search if members is aligned else replace(search, study=""))
            # Rows of a mixture (which come with parts) are of several conditions, perhaps of other
            # nets, so that no curve of a fold's net fits them.
            return tune(
                members, voting=wanted.voting, names=fit, search=part, split_by=split_by,
                by_fold=parts is None, parts=parts,
            )  # fmt: skip

        tuned, ruled, chosen = climb(aligned), None, None
        if rules != FREE:
            items = count_test_items(dataset, wanted.input_root)
            ruled = under_rules(aligned, tuned, rules, climb, search, items=items)
        if conditions is not None and wanted.under:
            names_of = [w if w == ROBUSTNESS else scheme_named(aligned, w) for w in wanted.under]
            share = HALF if wanted.clean_share is None else wanted.clean_share
            under = list(dict.fromkeys(names_of))
            chosen = choose(conditions, under, share, tuned, climb, search)
        elif conditions is not None:
            chosen = look(conditions, tuned, search)
    return Outcome(tuned, ruled, chosen, plots)


def _list_strategies() -> None:
    for name in ladder(1000):
        found = STRATEGIES.get(name)
        trials = f" {found.trials} trials." if found.sampler else ""
        print(f"{name:<18} {found.voting:<6} {found.about}{trials}")
    print("\nonly when named, or by --calibrate:")
    for method in CALIBRATIONS:
        ready = [name for name in STRATEGIES if name.startswith(f"{method}-")]
        print("  " + " ".join(name for name in ready if not STRATEGIES.get(name).default))


def _search(wanted: Tuning, dataset: str) -> tuple[Search, list[Path]]:
    """Return how to search, and a list that fills with plots."""
    plots: list[Path] = []

    def plot(study: "optuna.Study", name: str) -> None:
        if wanted.plots and name.endswith("/all"):
            from src.reporting.charts import plot_study  # matplotlib, which nothing else here wants

            plots.extend(plot_study(study, paths.study_plots_dir(dataset, wanted.recipe), name))

    name = f"{dataset}/{wanted.recipe}"
    search = Search(
        wanted.trials, wanted.seed, study=wanted.study, study_name=name, timeout=wanted.timeout,
        on_study=plot,
    )  # fmt: skip
    return search, plots


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Yield a callback for one trial; a bar where somebody watches, else one plain line."""
    watched = bool(total) and sys.stderr.isatty()
    if total and not watched:
        print(f"searching: {total} trials in all", file=sys.stderr)
    with tqdm(total=total, desc="searching", unit="trial", leave=False, disable=not watched) as bar:

        def on_trial() -> None:
            bar.update()

        yield on_trial


@contextmanager
def _imported_extras(wanted: Tuning, dataset: str, scheme: str) -> Iterator[None]:
    """Import every `--extra`; where the body ends with an error, new ones go again.

    Their names are locked until the body ends: of two commands that bring one name, neither tunes
    on the other's predictions, nor takes them back.
    """
    with ExitStack() as locks:
        for name in sorted({extra.name for extra in named_extras(wanted.extra)}):
            what = f"{dataset}/{scheme}/{name} (--extra)"
            locks.enter_context(file_lock(paths.extra_lock(dataset, scheme, name), what))
        extras = _checked_extras(wanted, dataset, scheme) if wanted.extra else []
        new = [e for e in extras if not paths.oof_dir(dataset, scheme, e.name).exists()]
        for extra in extras:
            write_extra(extra, dataset, scheme)
            print(f"{extra.name}: imported, folds {' '.join(map(str, extra.folds))}")
            if not extra.has_folds:
                print(f"WARNING {extra.name} {NO_FOLDS}")
        try:
            yield
        except BaseException:
            for extra in new:
                shutil.rmtree(paths.oof_dir(dataset, scheme, extra.name), ignore_errors=True)
            if new:
                print(f"taken back: {' '.join(extra.name for extra in new)}", file=sys.stderr)
            raise


def _checked_extras(wanted: Tuning, dataset: str, scheme: str) -> list[CheckedExtra]:
    """Check every `--extra`, and the names beside them, before the first one is written."""
    checked = check_extras(wanted.extra, dataset, scheme)
    known = {*finished_folds(dataset, scheme), *(extra.name for extra in checked)}
    for model in sorted({*(wanted.models or [])} - known):
        raise unknown_name("model with out-of-fold predictions", model, sorted(known))
    for strategy in wanted.strategies or []:
        STRATEGIES.get(strategy)
    return checked


main = partial(parsers.main, "tune")
