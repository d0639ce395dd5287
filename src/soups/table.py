"""Ingredients, merges and the ensemble of the ingredients, scored on rows that none was chosen on.

The held-out rows are parted by group in two halves. What was chosen on one half is scored on the
other: thresholds always, and which merge it is where something was chosen. Torch is not needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.ensemble.predictions import (
    FloatArray,
    IntArray,
    Predictions,
    columns_of,
    fit_threshold,
)
from src.ensemble.rule import vote
from src.errors import UserError
from src.metrics import auc, macro_f1
from src.stratify import stratified_group_folds

ENSEMBLE = "ensemble of probs"
EPOCH = "epoch chosen here"


class TooFewGroupsError(UserError):
    """Held-out rows cannot be parted in two halves of both classes."""


@dataclass(frozen=True)
class Contender:
    """A line of the table."""

    name: str  # of the model
    kind: str  # `ingredient`, `merge` or `ensemble`
    logit: FloatArray  # (n,) of the held-out rows, by what would be used
    by_half: FloatArray  # (2, n) by what was chosen on either half; twice `logit` where nothing was
    forwards: int  # of a net that an item costs
    chosen: bool = False  # whether held-out rows chose which merge it is
    # (m,) logits of rows of another data set; None where there is none
    elsewhere: FloatArray | None = None
    flattered: bool = False  # whether they chose an epoch, of it or of an ingredient
    unscored: str = ""  # why no score on them counts; empty where one does

    def in_words(self, *, lodo: bool = False) -> str:
        """Return the kind, with what held-out rows had a say in; `lodo`: they are a domain."""
        words = [self.kind]
        if self.chosen:
            words += ["chosen", "saw half of the domain"] if lodo else ["chosen"]
        return ", ".join([*words, EPOCH] if self.flattered else words)


@dataclass(frozen=True)
class Scores:
    """What a contender is worth."""

    macro_f1: float  # every half at the threshold, and by the merge, that the other half chose
    at_half: float  # macro-F1 at 0.5, by the same merges
    auc: float  # mean of the two halves'
    rows: int  # scored


@dataclass(frozen=True)
class Held(Predictions):
    """The held-out rows of some folds, sorted by fold and id; without logits."""

    half: IntArray  # (n,) 0 or 1, parted within each fold

    @property
    def folds(self) -> list[int]:
        """Return the folds."""
        return list(dict.fromkeys(self.fold.tolist()))


def halves_of(label: IntArray, item_id: NDArray[Any], group: NDArray[Any]) -> IntArray:
    """Part held-out rows by group (or item, where it has none) in two; the half of each, 0 or 1.

    Raises `TooFewGroupsError` where a half would lack a class.
    """
    names = np.where(group == "", item_id, group).astype(str)
    half = stratified_group_folds(label, np.unique(names, return_inverse=True)[1], 2, seed=0)
    if any(len(np.unique(label[half == k])) < 2 for k in (0, 1)):
        raise TooFewGroupsError("the held-out rows have too few groups for two halves")
    return half


def held_rows(table: pd.DataFrame, folds: Sequence[int]) -> Held:
    """Return the held-out rows of some folds of a fold file, each fold in halves (`halves_of`)."""
    parts, halves = [], []
    for fold in folds:
        part = table[table["fold"] == fold].sort_values("item_id", kind="stable")
        label = part["label"].to_numpy(np.int64)
        try:
            halves.append(halves_of(label, part["item_id"].to_numpy(), part["group"].to_numpy()))
        except TooFewGroupsError:
            message = f"fold {fold} has too few groups for two halves"
            raise TooFewGroupsError(message) from None
        parts.append(part)
    columns = columns_of(pd.concat(parts))
    return Held(**columns, logit=np.empty((len(columns["label"]), 0)), half=np.concatenate(halves))


def scores_of(held: Held, one: Contender) -> Scores:
    """Score a contender: each half by what the other one chose; NaN where no score counts."""
    if one.unscored:
        return Scores(np.nan, np.nan, np.nan, len(held.label))
    pred, plain, areas = np.zeros(len(held.label), int), np.zeros(len(held.label), int), []
    for half in (0, 1):
        here, other = held.half == half, held.half != half
        logit = one.by_half[1 - half]
        rule, _ = fit_threshold(held.label[other], logit[other])
        pred[here] = vote(rule, logit[here, None]).pred
        plain[here] = logit[here] >= 0
        areas.append(auc(held.label[here], logit[here]))
    return Scores(
        macro_f1(held.label, pred), macro_f1(held.label, plain), float(np.mean(areas)), len(pred)
    )


def scores_elsewhere(held: Held, one: Contender, label: IntArray) -> tuple[float, float]:
    """Return macro-F1, at the threshold that is best on the held-out rows, and AUC elsewhere."""
    if one.elsewhere is None:
        raise ValueError(f"{one.name} has no logits elsewhere")
    rule, _ = fit_threshold(held.label, one.logit)
    return macro_f1(label, vote(rule, one.elsewhere[:, None]).pred), auc(label, one.elsewhere)


def by_domain(
    held: Held, contenders: Sequence[Contender], *, lodo: bool = False
) -> tuple[str, str, dict[str, tuple]]:
    """Return AUC in the largest domain against the mean AUC in the others, by contender.

    Returned are names of the two axes, and points of all contenders with a score; no points where
    fewer than two domains hold both classes. `lodo`: a domain was left out of what is scored on it.
    """
    names, counts = np.unique(held.domain, return_counts=True)
    both = [
        name for name in names[np.argsort(-counts, kind="stable")]
        if name and len(np.unique(held.label[held.domain == name])) == 2
    ]  # fmt: skip
    if len(both) < 2:
        return "", "", {}
    points: dict[str, tuple] = {}
    for one in contenders:
        if one.unscored:
            continue
        logit = np.where(held.half == 0, one.by_half[1], one.by_half[0])
        areas = [auc(held.label[held.domain == n], logit[held.domain == n]) for n in both]
        points[point_name(one)] = (one.kind, areas[0], float(np.mean(areas[1:])))
    others, left_out = ", ".join(both[1:]), " (left out)" if lodo else ""
    each = " (each left out)" if lodo and len(both) > 2 else left_out
    return f"AUC, {both[0]}{left_out}", f"mean AUC, {others}{each}", points


def point_name(one: Contender) -> str:
    """Return what a contender is called in a plot."""
    return f"{one.name}, flattered" if one.flattered else one.name


def as_table(
    held: Held,
    contenders: Sequence[Contender],
    labels: Mapping[str, IntArray],
    *,
    lodo: bool = False,
) -> pd.DataFrame:
    """Return the table that is printed and written: a row a contender, the best macro-F1 first.

    Scores are NaN where none counts; those rows come last. `labels`: of another data set by its
    name, none or one; `lodo`: the folds are domains.
    """
    rows = []
    for one in contenders:
        found = scores_of(held, one)
        row = {
            "model": one.name, "kind": one.in_words(lodo=lodo),
            "macro_f1": found.macro_f1, "macro_f1_at_0.5": found.at_half, "auc": found.auc,
            "rows": found.rows, "forwards": one.forwards,
        }  # fmt: skip
        for name, label in labels.items():
            row[f"macro_f1 {name}"], row[f"auc {name}"] = scores_elsewhere(held, one, label)
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.sort_values("macro_f1", ascending=False, kind="stable", ignore_index=True)
