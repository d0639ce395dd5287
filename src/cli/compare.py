"""`python -m src compare`: train the rows of a comparison, score them in-domain and out of it.

What `python -m src compare` prints: cost, then a table a metric and level.
"""

import json
import math
import traceback
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from src import paths
from src.cli.common import (
    INTERRUPTED,
    Parser,
    add_compute_arguments,
    add_data_arguments,
    add_time_argument,
    choose_dataset,
    run_command,
    show_log,
)
from src.cli.printing.evaluate import cell
from src.cli.printing.tune import print_table
from src.errors import UserError, disk_trouble, message_of

if TYPE_CHECKING:
    from src.reporting.comparison import Comparison, Result, Row

DESCRIPTION = """Train many ways in one go, and hold them against each other.

  python -m src compare configs/comparisons/transfer.yaml --data A --out-of-domain B C
  python -m src compare transfer               by name; what is finished is not trained again

Every row of the file is trained as a variant of its own, scored out-of-fold on A (in-domain) and
by the same checkpoints and thresholds on B and C (out-of-domain). Writes a table and a plot to
reports/<data set>/<scheme>/comparisons/. docs/comparisons.md says what a file holds."""


if TYPE_CHECKING:
    from src.reporting.comparison import Result

SHOWN = ("macro_f1", "auc", "eer", "hter")
ONE_CLASS = ("accuracy",)  # what is left to say of a data set of one class


def print_comparison(results: "Sequence[Result]", place: "Place") -> None:
    """Print what every row cost and scored, and what the scores stand on."""
    print()
    _print_costs(results)
    scored = [result for result in results if result.cards]
    if not scored:
        return
    _print_basis(scored, place)
    first = scored[0]
    for level in ("item", "group"):
        sets = [data for data in first.cards if first.card(data, level) is not None]
        if sets:
            _print_level(scored, place, sets, level)
    notes = {f"{result.row}: {note}" for result in scored for note in result.notes}
    notes |= {
        f"{data}, {card.level} level: {note}"
        for result in scored
        for data, cards in result.cards.items()
        for card in cards
        for note in card.notes
    }
    for note in sorted(notes):
        print(note)


def _print_costs(results: "Sequence[Result]") -> None:
    lines = [["row", "model", "trained", "of parameters", "epochs", "seconds", "device"]]
    for result in results:
        cost = result.training
        if cost is None:
            lines.append([result.row, result.model, "failed", *[""] * 4])
            continue
        share = "merged" if cost.share is None else f"{cost.share:.2%}"
        lines.append(
            [result.row, result.model, share, f"{cost.parameters:,}", f"{cost.epochs:g}",
             f"{cost.seconds:.1f}", cost.device]
        )  # fmt: skip
    print_table(lines)
    print("seconds: of the epochs, or of the merge; features computed once are not among them.")


def _print_basis(scored: "Sequence[Result]", place: "Place") -> None:
    numbers = " ".join(map(str, place.folds))
    word = "folds" if len(place.folds) > 1 else "fold"
    print(
        f"\nin-domain: out-of-fold predictions of {place.dataset}/{place.scheme}, {word} {numbers}"
    )
    if place.others:
        print(
            f"out-of-domain: labelled items of {', '.join(place.others)} that were not seen in "
            "training (its test items where their labels are here, else its train items; the "
            f"lines above say how many), by the mean logit of the same {len(place.folds)} "
            "checkpoint(s)\n"
            f"thresholds: carried over from {place.dataset}; hter: at the EER cut of in-domain "
            "predictions. Intervals: 95 %, by group."
        )
    for threshold in dict.fromkeys(result.threshold for result in scored):
        rows = [result.row for result in scored if result.threshold == threshold]
        who = "all rows" if len(rows) == len(scored) else ", ".join(rows)
        print(f"threshold of {who}: {threshold}")


def _print_level(
    scored: "Sequence[Result]", place: "Place", sets: Sequence[str], level: str
) -> None:
    first = scored[0]
    others = [data for data in sets if data in place.others]
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


@dataclass(frozen=True)
class Place:
    """On what the rows of a comparison are trained and scored.

    Attributes:
        dataset, scheme: trained on.
        folds: of these.
        others: scored on as well.
        weights: to start from, where a row names none.
    """

    dataset: str
    scheme: str
    folds: list[int]
    others: list[str]
    weights: Path | None


def make_parser() -> Parser:
    """Return the parser of the verb."""
    parser = Parser(DESCRIPTION, prog="python -m src compare")
    parser.add_argument("comparison", metavar="FILE", help="a .yaml file, or its name")
    parser.add_argument(
        "--folds", type=int, nargs="+", metavar="K", help="in place of the file's `folds`"
    )
    parser.add_argument(
        "--out-of-domain", nargs="+", metavar="NAME", help="in place of the file's `out_of_domain`"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="in place of the file's `weights`"
    )
    add_data_arguments(parser)
    add_compute_arguments(parser)
    add_time_argument(parser, "stop before this is over; the same command goes on from there")
    return parser


def _run(argv: Sequence[str] | None) -> None:
    arguments = make_parser().parse_args(argv)
    from src.config import config_file
    from src.reporting.comparison import read_comparison

    comparison = read_comparison(config_file("comparisons", arguments.comparison))
    show_log()
    place = _choose_place(comparison, arguments)
    _check_rows(comparison, place)
    from src.artifacts.files import write_csv
    from src.reporting.comparison import comparison_table, plot_comparison

    results: dict[str, Result] = {}
    csv = paths.comparison_csv(place.dataset, place.scheme, comparison.name)
    # Merges last: they are made of what the other rows train.
    for row in sorted(comparison.rows, key=lambda row: row.merge is not None):
        print(f"\nrow {row.name}: {row.model}")
        results[row.name] = _result(row, place, arguments)
        done = [results[one.name] for one in comparison.rows if one.name in results]
        write_csv(csv, comparison_table(done, place.dataset))
    rows = [results[row.name] for row in comparison.rows]
    print_comparison(rows, place)
    print(f"\ntable: {csv}")
    if place.others:
        png = paths.comparison_png(place.dataset, place.scheme, comparison.name)
        drawn = plot_comparison(rows, place.dataset, place.others, png)
        print(f"plot: {drawn or 'none, for no row has both scores'}")
    _raise_failures(rows)


def _raise_failures(rows: "Sequence[Result]") -> None:
    failed = [row for row in rows if row.failure]
    if failed:
        lines = [f"  {row.row}: {row.failure}" for row in failed]
        head = f"{len(failed)} of {len(rows)} rows failed; the same command tries them again"
        raise UserError("\n".join([head, *lines]))


def _choose_place(comparison: "Comparison", arguments: Namespace) -> Place:
    from src.artifacts.atomic import file_lock
    from src.artifacts.folds import fold_numbers
    from src.cli.folds import print_report
    from src.data.folds.make import ensure_folds
    from src.data.layouts.load import load_dataset
    from src.training.job import check_fold

    name = choose_dataset(arguments.data or comparison.given.data, arguments.input_root)
    others = list(dict.fromkeys(arguments.out_of_domain or comparison.given.out_of_domain or ()))
    weights = arguments.weights or comparison.given.weights
    for file in (weights, *(row.weights for row in comparison.rows)):
        if file is not None and not file.is_file():
            raise UserError(f"{file}: no such weights file (looked from {Path.cwd()})")
    for other in others:
        _check_other(other, name, arguments.scheme or comparison.given.scheme, arguments)
    dataset = load_dataset(name, arguments.input_root)
    with file_lock(paths.folds_lock(name), "the folds", wait=True):
        scheme, folds, report = ensure_folds(dataset, arguments.scheme or comparison.given.scheme)
    if report is not None:
        print_report(report)
    wanted = sorted(set(arguments.folds or comparison.given.folds or fold_numbers(folds)))
    for fold in wanted:
        check_fold(folds, fold)
    return Place(name, scheme, wanted, others, weights)


def _check_other(other: str, name: str, scheme: str | None, arguments: Namespace) -> None:
    """Raise where a data set cannot be scored on; say where it can be in part only."""
    from src.artifacts.folds import existing_scheme
    from src.data.layouts.load import load_dataset
    from src.inference.cross_dataset import (
        check_parts,
        labelled_items,
        leave_out_seen,
        trained_ids,
    )

    if choose_dataset(other, arguments.input_root) == name:
        raise UserError(f"out_of_domain: {other} is the data set that is trained on")
    dataset = load_dataset(other, arguments.input_root)
    check_parts(name, dataset, arguments.input_root)
    try:
        table = labelled_items(dataset).table
    except UserError as error:
        raise UserError(f"out_of_domain: {other} has no labels to score on: {error}") from None
    scheme = scheme or existing_scheme(name, None)
    ids = trained_ids(name, scheme)
    labels = leave_out_seen(name, ids, dataset, table, arguments.input_root, scheme)["label"]
    if labels.nunique() == 1:
        word = "fakes" if labels.iloc[0] else "reals"
        print(f"WARNING {other} holds {word} alone: macro-F1, AUC and EER say nothing of it, "
              "accuracy and recall are scored")  # fmt: skip


def _check_rows(comparison: "Comparison", place: Place) -> None:
    """Raise for what no row would survive, before the first one is trained."""
    from src.training.setup import check_names

    for row in comparison.rows:
        if row.merge is not None:
            continue
        where, config = f"{comparison.path}: row {row.name}", row.config()
        try:
            check_names(config)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        if config.backbone.pretrained != "file" or row.weights or place.weights:
            continue
        names = (place.dataset, place.scheme, row.model)
        if not all(paths.run_record(*names, fold).is_file() for fold in place.folds):
            raise UserError(
                f"{where}: {row.parent} starts from a weights file of {config.backbone.name}: "
                "--weights FILE, or `weights: FILE` in the comparison (docs/models.md says which)"
            )


def _result(row: "Row", place: Place, arguments: Namespace) -> "Result":
    """Train and score a row; a failure is part of the result, and the next row has its turn."""
    from src.reporting.comparison import Result

    try:
        for fold in place.folds:
            _make(row, fold, place, arguments)
        return _score(row, place, arguments)
    except UserError as error:
        print(f"row {row.name} failed: {message_of(error)}")
        return Result(row.name, row.model, failure=message_of(error))
    except Exception as error:
        if disk_trouble(error) is not None:
            raise  # the next row would meet it too
        traceback.print_exc()
        return Result(row.name, row.model, failure=f"{type(error).__name__}: {error}")


def _make(row: "Row", fold: int, place: Place, arguments: Namespace) -> None:
    words = ["--data", place.dataset, "--scheme", place.scheme, "--fold", str(fold)]
    words += ["--device", arguments.device, "--precision", arguments.precision]
    weights = row.weights or place.weights
    for flag, value in (
        ("--input-root", arguments.input_root),
        ("--workers", arguments.workers),
        ("--weights", weights),
    ):
        words += [] if value is None else [flag, str(value)]
    if row.merge is not None:
        _merge([str(row.merge), *words])
        return
    from src.cli import train

    if arguments.max_hours is not None:
        words += ["--max-hours", str(arguments.max_hours)]
    words += ["--auto-batch"] * arguments.auto_batch + ["--compile"] * arguments.compile
    for key, value in row.changes.items():
        words += ["--set", f"{key}={json.dumps(value)}"]
    words += ["--as", row.model] if row.changes else []
    train.run(["--model", row.parent, *words])


def _merge(words: list[str]) -> None:
    """Call `python -m src merge`."""
    from src.cli import merge

    code = merge.main(words)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        raise UserError("the merge failed; its message stands above")


def _score(row: "Row", place: Place, arguments: Namespace) -> "Result":
    from src.cli.evaluate import predict_other
    from src.inference.lineage import check_own
    from src.reporting.comparison import Result, training_of
    from src.reporting.evaluated import check_folds, levels_of, own_rows, subject_of_model
    from src.reporting.scorecard import score_rows

    subject = subject_of_model(place.dataset, place.scheme, row.model)
    folds = check_folds(subject, place.folds)
    check_own(place.dataset, place.scheme, [row.model], folds, arguments.input_root)
    decided = {place.dataset: levels_of(own_rows(subject), folds=folds)}
    for other in place.others:
        rows, _ = predict_other(arguments, subject, folds, other)
        decided[other] = levels_of(rows, development=own_rows(subject, folds))
    cards = {
        data: [score_rows(rows, level) for level, rows in levels.items()]
        for data, levels in decided.items()
    }
    cost = training_of(place.dataset, place.scheme, row.model, folds)
    return Result(row.name, row.model, cost, subject.threshold, subject.notes, cards)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m src compare`; returns the exit code."""
    return run_command(_run, argv)
