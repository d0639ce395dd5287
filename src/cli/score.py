"""`python -m src score`: bare CSVs of any tool against the truth, and against each other."""

import math
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src.artifacts.files import write_csv
from src.artifacts.outputs import check_output
from src.cli import parsers
from src.cli.common import print_table
from src.cli.evaluate import print_tables
from src.errors import UserError, unknown_name
from src.machine import keep_freed_memory
from src.metrics import DECISIONS, DEFAULT, REAL, Metric, metric_named
from src.reporting.card_table import cell, records
from src.reporting.paired import Difference, differences, disagreement, sentence
from src.reporting.score_files import WHAT, HowRead, ScoreFile, Truth, read_scores, read_truth
from src.reporting.score_join import join
from src.reporting.scorecard import Card, Score, score_rows

NAMES = ("real", "fake")
HEAD = "file"  # first column of the table that is written
LEGEND = """fake = positive. auc, ap, eer, tpr@fpr and tnr@fnr look at the order of scores alone.
eer: where the ROC curve, straight between its points, crosses FNR = FPR; hter_test_eer: at the cut
of these rows nearest to that, which flatters. apcer: of the worst domain of fakes.
Intervals: 95 %, {by}, thresholds held fixed."""


def run_score(arguments: Namespace) -> None:
    """Do what the flags ask for."""
    keep_freed_memory()
    how_read = HowRead(
        _columns(arguments.columns), arguments.fake, arguments.higher, arguments.threshold
    )
    paths: list[Path] = arguments.files
    for place, path in enumerate(paths):
        if path in paths[:place]:
            raise UserError(f"{path} is named twice")
    if arguments.threshold is not None and not math.isfinite(arguments.threshold):
        raise UserError(f"--threshold {arguments.threshold}: want a finite number")
    asked = None if arguments.metric is None else metric_named(arguments.metric)
    if arguments.output is not None:
        check_output(arguments.output, ".csv", _is_ours)
    truth = read_truth(arguments.truth, how_read)
    files = [read_scores(path, truth, how_read) for path in paths]
    _check_columns(how_read, truth, files)
    rows, left_out = join(truth, files, common=arguments.common)
    _print_read(truth, files, left_out, len(rows[0]))
    label = rows[0].label
    if asked is not None:
        _check_metric(asked, int((label == 0).sum()), int(label.sum()), files)
    also = () if asked is None else (asked,)
    cards = [
        score_rows(one, lacks=file.lacks, also=also) for one, file in zip(rows, files, strict=True)
    ]
    names = _short(paths)
    print_tables(list(zip(names, cards, strict=True)), NAMES)
    found = [differences(cards[0], card) for card in cards[1:]]
    for name, card in zip(names, cards, strict=True):
        if card.scores["auc"].high < 0.5:
            print(f"{name}: auc is below 0.5; are its scores higher for reals? --higher real")
    if found:
        _print_differences(names, found)
        _print_sentences(names, files, cards, found, asked)
    column = truth.group_column
    by = "by item (the truth has no groups)" if column is None else f"by group (column {column})"
    print("\n" + LEGEND.format(by=by))
    if arguments.output is not None:
        write_csv(arguments.output, _table(paths, files, cards, found))
        print(f"\ntable: {arguments.output}")


def _columns(pairs: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        what, equals, name = pair.partition("=")
        if not equals or not name:
            raise UserError(f"--columns {pair}: want KEY=NAME, such as id=image or score=p1")
        if what not in WHAT:
            raise unknown_name("key of --columns", what, WHAT)
        found[what] = name
    return found


def _check_columns(how_read: HowRead, truth: Truth, files: Sequence[ScoreFile]) -> None:
    """Raise where a column that was named stands in no file."""
    known = dict.fromkeys([*truth.columns, *(name for file in files for name in file.columns)])
    for what, name in how_read.columns.items():
        if name not in known:
            raise unknown_name(f"column (--columns {what}=)", name, known)


def _is_ours(path: Path) -> bool:
    with path.open(encoding="utf-8") as file:
        return file.readline().startswith(f"{HEAD},level,")


def _short(paths: Sequence[Path]) -> list[str]:
    """Return the files' names without a suffix; whole paths where two are called alike."""
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


def _print_read(truth: Truth, files: Sequence[ScoreFile], left_out: list[str], n: int) -> None:
    fakes = int(truth.rows["label"].sum())
    groups = ""
    if truth.group_column is not None:
        count = truth.rows["group"].nunique()
        groups = f", {count} groups by column {truth.group_column}"
    print(f"{truth.path}: {len(truth.rows)} items ({len(truth.rows) - fakes} real, {fakes} fake)"
          f"{groups}")  # fmt: skip
    for file in files:
        print(f"{file.path}: {len(file.ids)} rows, {file.how}")
    if left_out:
        print(f"WARNING --common: {n} of {len(truth.rows)} items are scored, those in all files; "
              "a score of other rows is another score")  # fmt: skip
        for text in left_out:
            print(f"  {text}")


def _check_metric(metric: Metric, reals: int, fakes: int, files: Sequence[ScoreFile]) -> None:
    """Raise where the metric that was asked for cannot be had of these files."""
    for file in files:
        why = metric.undefined(reals, fakes) or file.lacks.get(metric.wants, "")
        if why:
            raise UserError(f"--metric {metric.name} says nothing of {file.path}: {why}")
    if metric.limited(reals, fakes) and metric.allows is not None:
        kind, share = metric.allows
        n = reals if kind == REAL else fakes
        finest = math.ceil(10_000 / n) / 100
        raise UserError(
            f"--metric {metric.name} wants {math.ceil(1 / share):,} {kind}s or more, there are "
            f"{n}: among so few the limit allows no error at all; the finest is {finest:g}%"
        )


def _print_differences(names: Sequence[str], found: Sequence[list[Difference]]) -> None:
    by_name = [{one.metric: one for one in some} for some in found]
    heads = [f"{names[0]} - {name}" for name in names[1:]]
    lines = [["", *(text for head in heads for text in (head, "p"))]]
    for key in dict.fromkeys(key for some in by_name for key in some):
        shown = [some.get(key) for some in by_name]
        if any(one is not None and not math.isnan(one.value) for one in shown):
            lines.append([key, *(text for one in shown for text in _cells(one))])
    print()
    print_table(lines)
    untested = [one for some in found for one in some if one.why and not math.isnan(one.value)]
    for text in dict.fromkeys(f"{one.metric}: not tested ({one.why})" for one in untested):
        print(f"  {text}")


def _print_sentences(
    names: Sequence[str],
    files: Sequence[ScoreFile],
    cards: Sequence[Card],
    found: Sequence[list[Difference]],
    asked: Metric | None,
) -> None:
    """Say which of the first file and each other is better, by the metric asked for and by AUC."""
    print()
    for name, some, card, file in zip(names[1:], found, cards[1:], files[1:], strict=True):
        by_name = {one.metric: one for one in some}
        decided = DECISIONS not in {**files[0].lacks, **file.lacks}
        metric = asked or metric_named(DEFAULT if decided else "auc")
        share = f"; {disagreement(cards[0], card):.1%} of verdicts differ" if decided else ""
        print(sentence(names[0], name, by_name[metric.name], metric) + share)
        if metric.name != "auc" and not math.isnan(by_name["auc"].value):
            print(sentence(names[0], name, by_name["auc"], metric_named("auc")))
    if len(found) > 1:
        print(f"{len(found)} comparisons with {names[0]}; no p is corrected for their number")


def _cells(one: Difference | None) -> tuple[str, str]:
    if one is None:
        return "", ""
    text = cell(Score(one.value, one.low, one.high))
    text = text if one.value < 0 or math.isnan(one.value) else f"+{text}"
    return text, "" if math.isnan(one.p) else f"{one.p:.3g}"


def _table(
    paths: Sequence[Path],
    files: Sequence[ScoreFile],
    cards: Sequence[Card],
    found: Sequence[list[Difference]],
) -> pd.DataFrame:
    """Return a line a file and score, with the first file's score minus it."""
    lines: list[dict[str, Any]] = []
    held = [{}, *({one.metric: one for one in some} for some in found)]
    for path, file, card, some in zip(paths, files, cards, held, strict=True):
        threshold = file.threshold if DECISIONS not in file.lacks else np.nan
        for record in records(card):
            one = some.get(record["metric"])
            against = ("first_minus_this", "difference_low", "difference_high", "p", "test")
            values = [np.nan] * 4 + [""] if one is None else [*one[1:5], one.how]
            head = {HEAD: str(path)} | {k: v for k, v in record.items() if k not in ("by", "value")}
            lines.append(head | {"threshold": threshold} | dict(zip(against, values, strict=True)))
    return pd.DataFrame(lines)


main = partial(parsers.main, "score")
