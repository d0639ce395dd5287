"""Two predictions of the same items held against each other, metric by metric."""

import math
from typing import NamedTuple

import numpy as np

from src.bootstrap import MIN_GROUPS, interval
from src.delong import delong
from src.metrics import NAN, FloatArray, Metric
from src.reporting.scorecard import Card

DELONG, BOOTSTRAP = "DeLong", "bootstrap"
LEVEL = 0.05  # below which a p-value tells two apart


class Difference(NamedTuple):
    """A metric of one minus that of another, of the same items."""

    metric: str
    value: float  # NaN where either is undefined
    low: float  # of the 95 % interval
    high: float
    p: float  # two-sided: that a difference this large comes of equal ones
    how: str  # `DELONG` or `BOOTSTRAP`, with `by group` where groups hold several items
    why: str = ""  # why there is no interval and no p


def differences(one: Card, other: Card) -> list[Difference]:
    """Return by how much one card exceeds the other, of every metric that both have.

    AUC by DeLong's test, by group; the rest by the paired bootstrap of whole groups: both cards'
    draws are of the same groups. Its p is twice the smaller share of draws at or beyond 0, each
    counted with the sample itself (Davison & Hinkley, Bootstrap Methods, 1997, eq. 4.11), so that
    ties count on both sides and none is 0.

    Raises:
        ValueError: cards of other items.
    """
    if not same_items(one, other):
        raise ValueError(f"{one.items} and {other.items} rows are not the same items")
    return [_difference(one, other, name) for name in one.scores if name in other.scores]


def same_items(one: Card, other: Card) -> bool:
    """Tell whether two cards are of the same items, in the same order."""
    return np.array_equal(one.rows.item_id, other.rows.item_id)


def _difference(one: Card, other: Card, name: str) -> Difference:
    how = (DELONG if name == "auc" else BOOTSTRAP) + " by group" * (one.groups < one.items)
    scores = one.scores[name], other.scores[name]
    value = scores[0].value - scores[1].value
    undefined = next((score.why for score in scores if math.isnan(score.value)), "")
    if math.isnan(value) or one.groups < MIN_GROUPS:
        few = f"{one.groups} groups are fewer than {MIN_GROUPS}"
        return Difference(name, value, NAN, NAN, NAN, how, undefined or few)
    if name == "auc":
        rows = one.rows
        found = delong(rows.label, rows.ranked, other.rows.ranked, rows.group)
        return Difference(name, value, found.low, found.high, found.p, how, found.why)
    return of_draws(name, value, one.draws[name] - other.draws[name], how)


def of_draws(metric: str, value: float, drawn: FloatArray, how: str) -> Difference:
    """Return a difference with what (b,) paired draws of it say; see `differences`."""
    drawn = drawn[np.isfinite(drawn)]
    if not drawn.size:
        return Difference(metric, value, NAN, NAN, NAN, how, "no draw has both classes")
    if not drawn.any() and not value:
        return Difference(metric, value, NAN, NAN, NAN, how, "both are equal in every draw")
    tail = min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0))
    p = min(1.0, 2 * (1 + tail) / (1 + drawn.size))
    return Difference(metric, value, *interval(drawn), p, how)


def disagreement(one: Card, other: Card) -> float:
    """Return the share of items whose decisions differ."""
    return float(np.mean(one.rows.pred != other.rows.pred))


def sentence(one: str, other: str, found: Difference, metric: Metric) -> str:
    """Say in plain words which of two is better by a metric, and how sure that is."""
    name = found.metric
    if math.isnan(found.value):
        return f"{one} and {other}: {name} says nothing here ({found.why})"
    if found.why:
        side = "above" if found.value > 0 else "below"
        equal = f"{one} and {other} have the same {name}"
        if found.value:
            equal = f"{name} of {one} is {_amount(found.value)} {side} that of {other}"
        return f"{equal}; that cannot be tested ({found.why})"
    first, second = (one, other) if found.value * metric.sign > 0 else (other, one)
    low, high = found.low, found.high
    low, high = (low, high) if found.value > 0 else (-high, -low)
    amount = f"{_amount(found.value)} [{low:.4f}, {high:.4f}] {name}"
    sure = f"p = {found.p:.2g}" if found.p >= 1e-4 else "p < 0.0001"
    if low > 0 and found.p < LEVEL:
        return f"{first} is better than {second} by {amount} ({found.how}, {sure})"
    apart = f"{one} and {other} cannot be told apart"
    return f"{apart}: {first} is ahead by {amount} ({found.how}, {sure})"


def _amount(value: float) -> str:
    return f"{abs(value):.4f}"
