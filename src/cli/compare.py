"""`python -m src compare`: train the rows of a comparison, score them in-domain and out of it."""

import math
import traceback
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from src import paths
from src.artifacts.files import write_csv
from src.artifacts.folds import existing_scheme, fold_numbers, read_folds
from src.cli import parsers
from src.cli.common import choose_dataset, print_table, show_log, taken
from src.cli.evaluate import predict_other
from src.cli.folds import folds_of
from src.cli.merge import Merging, merge_folds
from src.cli.train import train
from src.compute.clock import Clock
from src.config import config_file
from src.data.folds.schemes import held_out_domains, is_lodo
from src.data.layouts.load import load_dataset
from src.errors import UserError, disk_trouble, message_of
from src.inference.cross_dataset import check_parts, labelled_items, leave_out_seen, trained_ids
from src.inference.lineage import check_own
from src.metrics import metric_named
from src.reporting.card_table import cell
from src.reporting.comparison import (
    Result,
    comparison_table,
    cost_lines,
    plot_comparison,
    training_of,
)
from src.reporting.comparison_file import Comparison, Row, in_order, read_comparison
from src.reporting.evaluated import (
    check_folds,
    honest_rows,
    how_decided,
    levels_of,
    own_rows,
    subject_of_model,
)
from src.reporting.paired import differences, disagreement, same_items, sentence
from src.reporting.scenarios import (
    LEGEND,
    held_against,
    plot_scenarios,
    scenario_tables,
    scenarios_of,
)
from src.reporting.scorecard import score_rows
from src.soups.plan import read_plan
from src.training.job import Options, check_fold
from src.training.setup import check_names

SHOWN = ("macro_f1", "auc", "ap", "eer", "hter")
ONE_CLASS = ("accuracy",)  # what is left to say of a data set of one class


@dataclass(frozen=True)
class Conditions:
    """On what the rows of a comparison are trained and scored, and by what computation."""

    dataset: str  # trained on
    scheme: str
    folds: list[int]
    others: list[str]  # data sets that are scored on as well
    against: str  # the row that others are held against
    options: Options  # its weights are started from where a row names none
    max_hours: float | None
    input_root: Path | None


def print_comparison(results: Sequence[Result], under: Conditions) -> None:
    """Print what every row cost and scored, and what the scores stand on."""
    print()
    print_table(cost_lines(results))
    print("seconds: of the epochs, or of the merge; features computed once are not among them.")
    scored = [result for result in results if result.cards]
    if not scored:
        return
    _print_basis(scored, under)
    base = next((result for result in scored if result.row == under.against), scored[0])
    for level in ("item", "group"):
        sets = [data for data in base.cards if base.card(data, level) is not None]
        if sets:
            _print_level(scored, under, sets, level)
            _print_apart(scored, base, sets, level)
            _print_scenarios(scored, base, level)
    notes = {f"{result.row}: {note}" for result in scored for note in result.notes}
    if base.scenarios:
        print(f"\n{LEGEND}")
    notes |= {
        f"{data}, {card.level} level: {note}"
        for result in scored
        for data, cards in result.cards.items()
        for card in cards
        for note in card.notes
    }
    for note in sorted(notes):
        print(note)


def _print_basis(scored: Sequence[Result], under: Conditions) -> None:
    numbers = " ".join(map(str, under.folds))
    word = "folds" if len(under.folds) > 1 else "fold"
    print(
        f"\nin-domain: out-of-fold predictions of {under.dataset}/{under.scheme}, {word} {numbers}"
        + ("; each fold is a domain that was not trained on" if is_lodo(under.scheme) else "")
    )
    if under.others:
        print(
            f"out-of-domain: labelled items of {', '.join(under.others)} that were not seen in "
            "training (its test items where their labels are here, else its train items; the "
            f"lines above say how many), by the mean logit of the same {len(under.folds)} "
            "checkpoint(s)\n"
            f"thresholds: carried over from {under.dataset}; hter: at the EER cut of in-domain "
            "predictions. Intervals: 95 %, by group, by the luck of the rows alone."
        )
    for threshold in dict.fromkeys(result.threshold for result in scored):
        rows = [result.row for result in scored if result.threshold == threshold]
        who = "all rows" if len(rows) == len(scored) else ", ".join(rows)
        print(f"threshold of {who}: {threshold}")


def _print_level(
    scored: Sequence[Result], under: Conditions, sets: Sequence[str], level: str
) -> None:
    first = scored[0]
    others = [data for data in sets if data in under.others]
    heads, counts = [], []
    for data in sets:
        card = first.card(data, level)
        assert card is not None  # `sets` are those that have one
        heads.append(f"{'out-of' if data in others else 'in'}-domain ({data})")
        counts.append(f"{card.items} ({card.reals} real, {card.fakes} fake)")
    one_class = any(not s.reals or not s.fakes for d in sets if (s := first.card(d, level)))
    several = len(others) > 1
    for metric in [*SHOWN, *(ONE_CLASS * one_class)]:
        lines = [[metric, *heads, *["mean out-of-domain"] * several]]
        lines.append([f"{level} level", *counts, *[""] * several])
        for result in scored:
            found = [result.score(data, level, metric) for data in sets]
            cells = ["" if score is None else cell(score) for score in found]
            mean = result.mean(others, level, metric)
            cells += ["-" if math.isnan(mean) else f"{mean:.4f}"] * several
            lines.append([result.row, *cells])
        print()
        print_table(lines)


def _print_apart(scored: Sequence[Result], base: Result, sets: Sequence[str], level: str) -> None:
    """Say of every row and data set which is better, it or the base, where both are told."""
    print()
    for data in sets:
        first = base.card(data, level)
        for result in scored:
            card = result.card(data, level)
            if result is base or first is None or card is None or not same_items(first, card):
                continue
            found = {one.metric: one for one in differences(first, card)}
            for metric in ("macro_f1", "auc"):
                if not math.isnan(found[metric].value):
                    text = sentence(base.row, result.row, found[metric], metric_named(metric))
                    share = f"; {disagreement(first, card):.1%} of verdicts differ"
                    print(f"{data}: {text}{share if metric == 'macro_f1' else ''}")


def _print_scenarios(scored: Sequence[Result], base: Result, level: str) -> None:
    """Print a table a metric of the scenarios, and which mean is better, a row's or the base's."""
    named = {result.row: result.scenarios for result in scored}
    for lines in scenario_tables(named, level):
        print()
        print_table(lines)
    print()
    for text in held_against(named, base.row, level):
        print(text)


def run_compare(arguments: Namespace) -> None:
    """Do what the flags ask for."""
    comparison = read_comparison(config_file("comparisons", arguments.comparison))
    show_log()
    under = _choose_conditions(comparison, arguments)
    _check_rows(comparison, under)
    results: dict[str, Result] = {}
    csv = paths.comparison_csv(under.dataset, under.scheme, comparison.name)
    for row in in_order(comparison.rows, comparison.path):
        print(f"\nrow {row.name}: {row.model}")
        results[row.name] = _result(row, under)
        done = [results[one.name] for one in comparison.rows if one.name in results]
        write_csv(csv, comparison_table(done, under.dataset))
    rows = [results[row.name] for row in comparison.rows]
    print_comparison(rows, under)
    print(f"\ntable: {csv}")
    if under.others:
        png = paths.comparison_png(under.dataset, under.scheme, comparison.name)
        drawn = plot_comparison(rows, under.dataset, under.others, png)
        print(f"plot: {drawn or 'none, for no row has both scores'}")
    named = {row.row: row.scenarios for row in rows if row.scenarios}
    if named:
        png = paths.comparison_png(under.dataset, under.scheme, f"{comparison.name}_scenarios")
        last = next(iter(named.values()))[0].cards[-1].level  # of clips, where frames pool
        title = f"{comparison.name} on {under.dataset}/{under.scheme}, {last} level"
        print(f"plot of scenarios: {plot_scenarios(named, last, title, png)}")
    _raise_failures(rows)


def _raise_failures(rows: Sequence[Result]) -> None:
    failed = [row for row in rows if row.failure]
    if failed:
        lines = [f"  {row.row}: {row.failure}" for row in failed]
        head = f"{len(failed)} of {len(rows)} rows failed; the same command tries them again"
        raise UserError("\n".join([head, *lines]))


def _choose_conditions(comparison: Comparison, arguments: Namespace) -> Conditions:
    name = choose_dataset(arguments.data or comparison.given.data, arguments.input_root)
    others = list(dict.fromkeys(arguments.out_of_domain or comparison.given.out_of_domain or ()))
    weights = arguments.weights or comparison.given.weights
    scheme = arguments.scheme or comparison.given.scheme
    for file in (weights, *(row.weights for row in comparison.rows)):
        if file is not None and not file.is_file():
            raise UserError(f"{file}: no such weights file (looked from {Path.cwd()})")
    for other in others:
        _check_other(other, name, scheme, arguments.input_root)
    dataset = load_dataset(name, arguments.input_root)
    options = taken(Options, arguments, weights=weights)
    scheme, folds, _ = folds_of(dataset, scheme, options)
    wanted = sorted(set(arguments.folds or comparison.given.folds or fold_numbers(folds)))
    for fold in wanted:
        check_fold(folds, fold)
    return Conditions(
        name, scheme, wanted, others, comparison.given.against or comparison.rows[0].name, options,
        arguments.max_hours, arguments.input_root,
    )  # fmt: skip


def _check_other(other: str, name: str, scheme: str | None, root: Path | None) -> None:
    """Raise where a data set cannot be scored on; say where it can be in part only."""
    if choose_dataset(other, root) == name:
        raise UserError(f"out_of_domain: {other} is the data set that is trained on")
    dataset = load_dataset(other, root)
    check_parts(name, dataset, root)
    try:
        table = labelled_items(dataset).table
    except UserError as error:
        raise UserError(f"out_of_domain: {other} has no labels to score on: {error}") from None
    scheme = scheme or existing_scheme(name, None)
    ids = trained_ids(name, scheme)
    labels = leave_out_seen(name, ids, dataset, table, root, scheme)["label"]
    if labels.nunique() == 1:
        word = "fakes" if labels.iloc[0] else "reals"
        print(f"WARNING {other} holds {word} alone: macro-F1, AUC and EER say nothing of it, "
              "accuracy and recall are scored")  # fmt: skip


def _check_rows(comparison: Comparison, under: Conditions) -> None:
    """Raise for what no row would survive, before the first one is trained."""
    for row in comparison.rows:
        if row.merge is not None:
            continue
        where, config = f"{comparison.path}: row {row.name}", row.config()
        try:
            check_names(config)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        if config.backbone.pretrained != "file" or _weights_of(row, under):
            continue
        names = (under.dataset, under.scheme, row.model)
        if not all(paths.run_record(*names, fold).is_file() for fold in under.folds):
            raise UserError(
                f"{where}: {row.parent} starts from a weights file of {config.backbone.name}: "
                "--weights FILE, or `weights: FILE` in the comparison (docs/models.md says which)"
            )


def _result(row: Row, under: Conditions) -> Result:
    """Train and score a row; a failure is part of the result, and the next row has its turn."""
    try:
        for fold in under.folds:
            _make(row, fold, under)
        return _score(row, under)
    except UserError as error:
        print(f"row {row.name} failed: {message_of(error)}")
        return Result(row.name, row.model, failure=message_of(error))
    except Exception as error:
        if disk_trouble(error) is not None:
            raise  # the next row would meet it too
        traceback.print_exc()
        return Result(row.name, row.model, failure=f"{type(error).__name__}: {error}")


def _make(row: Row, fold: int, under: Conditions) -> None:
    options, root = under.options, under.input_root
    weights = _weights_of(row, under)
    if row.merge is not None:
        plan = read_plan(config_file("merges", str(row.merge)))
        plain = Options(
            options.device, options.precision, options.workers, weights=weights, report=False
        )
        merging = Merging(fold, input_root=root)
        merge_folds([plan], under.dataset, under.scheme, merging, plain)
        return
    train(
        row.parent,
        under.dataset,
        replace(options, weights=weights, clock=Clock(under.max_hours)),
        changes=dict(row.changes),
        new_name=row.model if row.changes else None,
        scheme=under.scheme,
        fold=fold,
        input_root=root,
    )


def _weights_of(row: Row, under: Conditions) -> Path | None:
    """Return the file that a row starts from: its own, else the comparison's.

    A row that starts at random (`backbone.pretrained: none`) takes the comparison's not.
    """
    random = row.merge is None and row.config().backbone.pretrained == "none"
    return row.weights or (None if random else under.options.weights)


def _score(row: Row, under: Conditions) -> Result:
    subject = subject_of_model(under.dataset, under.scheme, row.model)
    folds = check_folds(subject, under.folds)
    check_own(under.dataset, under.scheme, [row.model], folds, under.input_root)
    own = levels_of(honest_rows(subject), folds=folds)
    decided = {under.dataset: own}
    for other in under.others:
        rows, _ = predict_other(subject, folds, other, under.options, under.input_root)
        decided[other] = levels_of(rows, development=own_rows(subject, folds))
    cards = {
        data: [score_rows(rows, level) for level, rows in levels.items()]
        for data, levels in decided.items()
    }
    cost = training_of(under.dataset, under.scheme, row.model, folds)
    how = how_decided(subject)
    threshold = f"{subject.threshold}; in-domain decisions are {how}" if how else subject.threshold
    scenarios = scenarios_of(own, _domains(under, folds)) if is_lodo(under.scheme) else ()
    return Result(row.name, row.model, cost, threshold, subject.notes, cards, scenarios=scenarios)


def _domains(under: Conditions, folds: Sequence[int]) -> dict[int, str]:
    """Return the domain that each fold holds out."""
    names = held_out_domains(read_folds(paths.folds_csv(under.dataset, under.scheme)))
    return {fold: names[fold] for fold in folds}


main = partial(parsers.main, "compare")
