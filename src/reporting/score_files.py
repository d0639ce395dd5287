"""Truth and scores as bare CSVs, of any tool: which column is what, and what it holds."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from src import metrics
from src.data.items.dataset_yaml import DatasetConfig
from src.data.items.listing import Entry
from src.data.items.tables import is_empty, read_table
from src.data.items.words import (
    LabelMap,
    make_label_map,
    means_real,
    normalise,
    read_column,
)
from src.data.layouts.table_columns import (
    KNOWN,
    NUMBERS,
    ORIGINAL_COLUMNS,
    Table,
    join_originals,
)
from src.ensemble.predictions import FloatArray, IntArray
from src.errors import UserError, unknown_name
from src.metrics import log_odds, sigmoid

DEFAULT = 0.5  # threshold on P(fake)
WHAT = (
    "id",
    "label",
    "group",
    "domain",
    "prob",
    "logit",
    "score",
)  # that a column may be said to be
# What a column of scores is called, alone or beside a word for a class (`p_fake`, `real_score`);
# logits come first, for probs round to 0 and 1.
_SCORES = {
    "logit": ("logit", "logits"),
    "prob": ("prob", "probs", "proba", "probability", "p"),
    "score": ("score", "scores", "confidence", "output", "y_score"),
}
_LABELS = (*KNOWN["label"], "truth", "ground_truth", "gt", "y_true", "pred", "prediction",
           "predicted", "y_pred", "decision", "verdict", "answer")  # fmt: skip
# What may stand beside a class in a column's name and says nothing: `prob_of_real`, `is_live`.
_FILLERS = frozenset(("of", "is", "the", "class", "pred", "predicted"))
_NUMBERED = re.compile(r"(.*?)_?([0-9]*)", re.DOTALL)  # `prob_1`, `p1`
_ROUNDED = 0.01  # how far a written softmax may be from a sum of 1
_SHOWN = 4  # words that a message lists


@dataclass(frozen=True)
class HowRead:
    """How the files are to be read, where their headers leave it open."""

    columns: Mapping[str, str] = field(default_factory=dict)  # one of `WHAT` -> name of the column
    fake: str | None = None  # the word (or number) of fakes among the labels
    higher: str = "fake"  # the class whose scores are higher, where a column does not say
    threshold: float | None = None  # on P(fake), or on scores that are none; None takes `DEFAULT`


@dataclass(frozen=True)
class Truth:
    """Labelled items."""

    path: Path
    columns: list[str]  # of the file
    rows: pd.DataFrame  # `item_id, label, group, domain, kind`, see `columns_of`; ids once each
    words: LabelMap  # what labels mean, here and in the files
    group_column: str | None  # None where each item stands alone
    by_number: bool = True  # the labels are written 0 and 1, so 1 is a class of score files too


@dataclass(frozen=True)
class ScoreFile:
    """What a file says of the items that it names."""

    path: Path
    columns: list[str]  # of the file
    ids: list[str]  # (n,) as written, once each
    score: FloatArray  # (n,) what orders the items, fakes high; decisions where it has no more
    logit: FloatArray  # (n,) of P(fake), where that is known
    prob: FloatArray  # (n,) P(fake), where it is known
    threshold: float  # that parts the items
    pred: IntArray  # (n,) 0/1; of no account where `lacks` says so
    lacks: dict[str, str]  # what metrics may want (`DECISIONS` ..) and the file has not -> why
    how: str  # what was understood, in words


def read_truth(path: Path, how_read: HowRead) -> Truth:
    """Read the CSV of labels: an id and a label, perhaps a group and a domain.

    Raises:
        UserError: no such file or columns, several that may be meant, an id twice, a label that is
            not understood; asks which word is fake.
    """
    table = _read(path)
    label = _column(table, "label", [str(c) for c in table.rows if _is_label(str(c))], how_read)
    if label is None:
        raise _no_column(table, "label", _LABELS)
    ids = _ids(table, how_read, taken=label)
    words = _words(table, label, how_read.fake)
    taken = {label, ids.name}
    group, domain = (
        _column(table, what, [c for c in table.candidates(what) if c not in taken], how_read)
        for what in ("group", "domain")
    )
    groups, domains = (
        [
            "" if column is None or is_empty(value) else value
            for value in table.rows[column or label]
        ]
        for column in (group, domain)
    )
    if group is not None and normalise(group) in ORIGINAL_COLUMNS:
        groups = join_originals(ids.tolist(), groups)
    rows = pd.DataFrame({"item_id": ids.tolist(), "label": _labels(table, label, words),
                         "group": groups, "domain": domains, "kind": "image"})  # fmt: skip
    by_number = NUMBERS.issuperset(table.rows[label])
    return Truth(path, list(map(str, table.rows)), rows, words, group, by_number)


def read_scores(path: Path, truth: Truth, how_read: HowRead) -> ScoreFile:
    """Read a CSV of an id and a prob, a logit, another score or a label, in any order.

    A column of labels beside scores is taken for decisions where a threshold on the scores gives
    just these; else it is left aside, for it may be the truth.

    Raises:
        UserError: no such file or columns, several that may be meant, an id twice, a value that is
            no finite number or, in a column called a probability, not from 0 to 1.
    """
    table, words = _read(path), truth.words
    found = _score_column(table, how_read) or _fake_of_pair(table, truth)
    taken = None if found is None else found[0]
    ids = _ids(table, how_read, taken=taken)
    left = [str(c) for c in table.rows if c not in (ids.name, taken)]
    labels = _column(table, "label", [c for c in left if _is_label(c)], how_read)
    if found is None and labels is None and len(left) == 1:
        labels = left[0]  # by its values
    if found is None and labels is None:
        raise _no_column(table, "score", [*_SCORES["prob"], *_SCORES["logit"], *_SCORES["score"]])
    if found is None:
        said_real = means_real(str(labels))
        if all(words.get(value) is not None for value in table.rows[labels]):
            if said_real and not words.given and NUMBERS & set(table.rows[labels]):
                raise UserError(
                    f"{path}: does 1 in column {labels!r} mean real? Labels of files mean what "
                    "those of the truth do (--fake says which is fake); turn one of them round"
                )
            return _of_labels(path, table, ids, words, str(labels))
        found = str(labels), "score", how_read.higher == "fake" and not said_real
        labels = None
    scores = _of_scores(path, table, ids, found, how_read)
    if labels is None or how_read.threshold is not None:
        return scores
    return _with_decisions(scores, table, str(labels), words)


def _read(path: Path) -> Table:
    if not path.is_file():
        raise UserError(f"{path}: no such file (looked from {Path.cwd()})")
    entry = Entry(path.name, path.name, bytes=0, stamp=0)
    rows = read_table(path.parent, entry)
    if rows.empty:
        raise UserError(f"{path}: it has a header and no rows")
    return Table(str(path), rows, DatasetConfig())


def _column(table: Table, what: str, candidates: Sequence[str], how_read: HowRead) -> str | None:
    """Return the column that `--columns` names and the table has, or the only candidate."""
    given = how_read.columns.get(what)
    if given in table.rows.columns:
        return given
    if len(candidates) > 1:
        raise UserError(
            f"{table.where}: columns {' and '.join(map(repr, candidates))} could both be the "
            f"{what}; say which: --columns {what}={candidates[0]}"
        )
    return candidates[0] if candidates else None


def _is_label(column: str) -> bool:
    named = read_column(column)
    known = normalise(column) in (*KNOWN["group"], *KNOWN["domain"])
    is_class = named.label == 0 and not known and {*named.rest} <= {*_LABELS, *_FILLERS}
    return normalise(column) in _LABELS or is_class


def _no_column(table: Table, what: str, known: Sequence[str]) -> UserError:
    return UserError(
        f"{table.where}: no {what} column in the header {list(table.rows.columns)} (known: "
        f"{', '.join(known)}); say which: --columns {what}=NAME"
    )


def _ids(table: Table, how_read: HowRead, taken: str | None) -> pd.Series:
    """Return the column of ids: the first of a known name whose values are all different."""
    given = how_read.columns.get("id")
    known = [given] if given in table.rows.columns else table.candidates("id")
    known = [column for column in known if column != taken]
    if not known:
        raise _no_column(table, "id", KNOWN["id"])
    column = next((c for c in known if table.rows[c].is_unique), known[0])
    table.check_ids(str(column))
    return table.rows[column]


def _words(table: Table, column: str, fake: str | None) -> LabelMap:
    """Return what the labels mean; `fake` is the word that the user says is fake."""
    values = list(dict.fromkeys(table.rows[column]))
    common = make_label_map(None)
    if fake is None:
        unclear = [value for value in values if common.get(value) is None]
        ways = " or ".join(f"--fake {value}" for value in values[:2])
        if means_real(column) and NUMBERS & set(values):
            raise UserError(
                f"{table.where}: does 1 in column {column!r} mean real? Say which is fake: {ways}"
            )
        if unclear and len(values) == 2:
            row = int((table.rows[column] == unclear[0]).to_numpy().argmax())
            raise UserError(
                f"{table.at(row)}: {column} is {unclear[0]!r}; which word is fake? {ways}"
            )
        return common
    if fake not in values:
        raise unknown_name(f"value (--fake) of column {column} in {table.where}:", fake, values)
    if len(values) > 2:
        shown = ", ".join(map(repr, values[:_SHOWN])) + " ..." * (len(values) > _SHOWN)
        raise UserError(f"{table.where}: --fake wants two labels, {column} has {shown}")
    given = make_label_map({value: int(value == fake) for value in values})
    return LabelMap(common.words | given.words, given=True)


def _labels(table: Table, column: str, words: LabelMap) -> IntArray:
    parsed = table.rows[column].map(words.get)
    if parsed.isna().any():
        row = int(parsed.isna().to_numpy().argmax())
        raise UserError(
            f"{table.at(row)}: {column} is {table.rows[column].iloc[row]!r}, want {words.wanted()}"
        )
    return parsed.to_numpy(np.int64)


def _score_column(table: Table, how_read: HowRead) -> tuple[str, str, bool] | None:
    """Return the column of scores, what it holds (a key of `_SCORES`) and if fakes are high."""
    upward = how_read.higher == "fake"
    for what in _SCORES:
        if how_read.columns.get(what) in table.rows.columns:
            column = how_read.columns[what]
            said = _meaning(column)
            return column, what, upward if said is None or said[1] is None else said[1]
    meant = {str(column): _meaning(str(column)) for column in table.rows}
    for what in _SCORES:
        found = {c: said[1] for c, said in meant.items() if said is not None and said[0] == what}
        # P(real) beside P(fake) says the same once more.
        named = [c for c, fake in found.items() if fake is not False] or list(found)
        column = _column(table, what, named, how_read)
        if column is not None:
            return column, what, upward if found[column] is None else bool(found[column])
    return None


def _fake_of_pair(table: Table, truth: Truth) -> tuple[str, str, bool] | None:
    """Return P(fake) of a softmax written as NAME_0 and NAME_1, as `_score_column` does.

    Raises:
        UserError: the truth does not say which number is fake, there are more classes than two, or
            the two do not sum to 1.
    """
    by_stem: dict[str, dict[str, str]] = {}
    for column in map(str, table.rows):
        stem, number = _NUMBERED.fullmatch(normalise(column)).groups()  # type: ignore[union-attr]
        if number and _meaning(stem):
            by_stem.setdefault(stem, {})[number] = column
    pairs = [found for found in by_stem.values() if {"0", "1"} <= set(found)]
    if not pairs:
        return None
    found = pairs[0]
    names = " and ".join(map(repr, found.values()))
    ways = " or ".join(f"--columns score={found[number]}" for number in "10")
    if len(pairs) > 1 or len(found) > 2 or not truth.by_number:
        raise UserError(
            f"{table.where}: which of the columns {names} holds the score of fakes? Say which: "
            f"{ways}"
        )
    total = _numbers(table, found["0"]) + _numbers(table, found["1"])
    if not np.allclose(total, 1, atol=_ROUNDED):
        row = int(np.abs(total - 1).argmax())
        raise UserError(
            f"{table.at(row)}: {names} sum to {total[row]:g}, so they are no probabilities of two "
            f"classes; say which column orders the items, fakes high: {ways}"
        )
    fake = next(number for number in found if truth.words.get(number) == 1)
    return found[fake], "prob", True


def _meaning(column: str) -> tuple[str, bool | None] | None:
    """Return what a column's name says: a key of `_SCORES`, and whether of fakes or reals."""
    named = read_column(column)
    words = [word for word in named.rest if named.label is None or word not in _FILLERS]
    what = next((key for key, names in _SCORES.items() if "_".join(words) in names), None)
    if what is None:
        return None
    return what, None if named.label is None else named.label == 1


def _of_labels(path: Path, table: Table, ids: pd.Series, words: LabelMap, column: str) -> ScoreFile:
    pred = _labels(table, column, words)
    why = f"{path.name} holds labels alone"
    wants = (metrics.RANKS, metrics.OWN_CUT, metrics.LOSSES, metrics.PROBS, metrics.DEVELOPMENT)
    prob = pred.astype(np.float64)
    how = f"labels of column {column}: metrics of decisions alone"
    return ScoreFile(
        path, list(map(str, table.rows)), ids.tolist(), prob, log_odds(prob), prob, DEFAULT, pred,
        dict.fromkeys(wants, why), how,
    )  # fmt: skip


def _of_scores(
    path: Path, table: Table, ids: pd.Series, found: tuple[str, str, bool], how_read: HowRead
) -> ScoreFile:
    column, what, upward = found
    score = _numbers(table, column)
    outside = (score < 0) | (score > 1)
    if what == "prob" and outside.any():
        row = int(outside.argmax())
        raise UserError(
            f"{table.at(row)}: {column} is {table.rows[column].iloc[row]!r}, want a probability "
            f"from 0 to 1; logits or other scores: --columns logit={column} (or score={column})"
        )
    lacks = {metrics.DEVELOPMENT: "no development rows: these alone are scored"}
    how = {"logit": "logits", "prob": "P(fake)", "score": "scores"}[what] + f" of column {column}"
    how += "" if upward else ", turned round: higher for reals"
    if what == "score" and outside.any():
        score = score if upward else -score
        logit = prob = score
        why = "the scores are no probabilities"
        lacks |= dict.fromkeys((metrics.LOSSES, metrics.PROBS), why)
        how += ", which are not all from 0 to 1, so no probabilities: metrics of order"
        if how_read.threshold is None:
            why += ", and no --threshold parts them"
            lacks |= dict.fromkeys((metrics.DECISIONS, metrics.ATTACKS), why)
    elif what == "logit":
        score = logit = score if upward else -score
        prob = sigmoid(logit)
    else:
        how += " taken for P(fake)" if what == "score" else ""
        score = prob = score if upward else 1 - score
        logit = log_odds(prob)
    threshold = DEFAULT if how_read.threshold is None else how_read.threshold
    if not (metrics.PROBS in lacks or 0 <= threshold <= 1):
        raise UserError(f"--threshold {threshold:g}: {path} holds P(fake), want one from 0 to 1")
    if metrics.DECISIONS not in lacks:
        how += f", fake from {threshold:g} on"
    pred = (prob >= threshold).astype(np.int64)
    known = (path, list(map(str, table.rows)), ids.tolist())
    return ScoreFile(*known, score, logit, prob, threshold, pred, lacks, how)


def _numbers(table: Table, column: str) -> FloatArray:
    values = table.rows[column]
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64)
    bad = ~np.isfinite(numbers)
    if bad.any():
        row = int(bad.argmax())
        raise UserError(f"{table.at(row)}: {column} is {values.iloc[row]!r}, want a finite number")
    return values.map(float).to_numpy(np.float64)  # exact, which pandas' parser is not


def _with_decisions(scores: ScoreFile, table: Table, column: str, words: LabelMap) -> ScoreFile:
    """Take a column of labels for the decisions, if they are a cut of the scores."""
    values = table.rows[column].map(words.get)
    pred = values.fillna(-1).to_numpy(np.int64)
    fakes, reals = scores.score[pred == 1], scores.score[pred == 0]
    if (pred < 0).any() or (fakes.size and reals.size and fakes.min() <= reals.max()):
        how = f"{scores.how}; column {column} is no cut of them, so not its decisions: left aside"
        return replace(scores, how=how)
    lacks = {k: v for k, v in scores.lacks.items() if k not in (metrics.DECISIONS, metrics.ATTACKS)}
    how = f"{scores.how.partition(', fake from')[0]}, decisions of column {column}"
    return replace(scores, pred=pred, lacks=lacks, how=how)
