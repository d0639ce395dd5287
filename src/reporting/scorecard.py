"""The full metric table of predicted items: values, intervals by group, what is undefined and why.

`hter` stands at cuts from development rows, `hter_test_eer` at the EER cut of the scored rows
themselves, as many papers report it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src import metrics
from src.bootstrap import MIN_GROUPS, interval, resamples
from src.ensemble.predictions import Decided, FloatArray, IntArray
from src.metrics import DEVELOPMENT, FAKE, LOSSES, METRICS, Metric
from src.reporting.evaluated import NO_NAME, Rows, parts

MOST_REPLICATES, FEWEST_REPLICATES = 1000, 200
_ROWS_DRAWN = 100_000_000  # of all replicates together, about: 10 seconds
NOTHING: Mapping[str, str] = MappingProxyType({})


class Score(NamedTuple):
    """A value, its 95 % interval, and why there is none (or what limits it)."""

    value: float
    low: float
    high: float
    why: str = ""


@dataclass(frozen=True)
class Card:
    """The metrics of some rows."""

    level: str  # `item` or `group`
    by: str  # what the rows were parted by, "" for all of them
    value: str  # of that
    items: int
    reals: int
    fakes: int
    groups: int
    scores: dict[str, Score]  # in the order of `METRICS`, then `apcer[kind]` of several kinds
    notes: list[str]  # what the rows are, and why there is no interval
    rows: Decided  # that were scored
    # metric -> (b,) its values on resampled groups, the same draws of any predictions of the same
    # items; none where there is no interval
    draws: dict[str, FloatArray] = field(default_factory=dict)


class Scorer:
    """Computes metrics of some rows, for any number of copies of each.

    Those are all of `METRICS` and those `also` named, but for what wants something that the rows
    lack.
    """

    def __init__(
        self, rows: Decided, lacks: Mapping[str, str] = NOTHING, also: Sequence[Metric] = ()
    ) -> None:
        self.known = {one.name: one for one in (*METRICS.in_order(), *also)}
        self.metrics = [one for one in self.known.values() if one.wants not in lacks]
        self.rows, self.fake = rows, rows.label == 1
        self.ranking = metrics.rank(rows.label, rows.ranked)
        self.losses = {
            one.name: one.compute(self.fake, rows.logit)
            for one in self.metrics
            if one.wants == LOSSES
        }
        names, code = np.unique(rows.domain[self.fake].astype(str), return_inverse=True)
        self.attacks, self.attack = [str(name) or NO_NAME for name in names], code
        self.ones = np.ones(len(rows), dtype=np.int64)
        self.own = rows.ranked >= metrics.eer_cut(metrics.roc_of(self.ranking))

    def __call__(self, weight: IntArray | None = None) -> dict[str, float]:
        """Return metric -> value; NaN where it is undefined. `weight`: (n,) copies, None: one."""
        weight = self.ones if weight is None else weight
        said, dev = self.rows.pred == 1, self.rows.dev
        missed = metrics.attack_errors(
            self.attack, ~said[self.fake], weight[self.fake], len(self.attacks)
        )
        worst = float(np.nanmax(missed)) if np.isfinite(missed).any() else np.nan
        c = self._counts(said, weight)
        given: dict[str, tuple[Any, ...]] = {
            metrics.DECISIONS: (c,),
            metrics.OWN_CUT: (self._counts(self.own, weight),),
            metrics.ATTACKS: (c, worst),
            metrics.RANKS: (metrics.roc_of(self.ranking, weight),),
            metrics.PROBS: (self.fake, self.rows.prob, weight),
        }
        if dev is not None:
            given[DEVELOPMENT] = (self._counts(dev == 1, weight),)
        found = {one.name: self._value(one, given, weight) for one in self.metrics}
        if len(self.attacks) > 1 and "apcer" in found:
            found |= {f"apcer[{n}]": float(v) for n, v in zip(self.attacks, missed, strict=True)}
        return found

    def _counts(self, said: NDArray[np.bool_], weight: IntArray) -> metrics.Counts:
        return metrics.weighted_counts(self.fake, said, weight)

    def _value(self, one: Metric, given: dict[str, tuple[Any, ...]], weight: IntArray) -> float:
        if one.wants == LOSSES:
            return float(np.average(self.losses[one.name], weights=weight))
        return float(one.compute(*given[one.wants])) if one.wants in given else np.nan


def score_rows(
    rows: Decided,
    level: str = "item",
    by: str = "",
    value: str = "",
    note: str = "",
    *,
    seed: int = 0,
    lacks: Mapping[str, str] = NOTHING,
    also: Sequence[Metric] = (),
) -> Card:
    """Return every metric of n >= 1 rows, with its 95 % interval by group.

    An interval is the percentile one of a bootstrap of whole groups (`bootstrap.resamples`). The
    thresholds stay as they are, `hter_test_eer`'s too.

    Args:
        rows: of a level, parted by something of that value.
        level, by, value: see `Card`.
        note: what the rows are.
        seed: of the draws.
        lacks: what metrics may want (`DECISIONS` ..) and the rows have not -> why.
        also: metrics beside those of `METRICS`.
    """
    n, fakes = len(rows), int(rows.label.sum())
    scorer = Scorer(rows, lacks, also)
    values = dict.fromkeys(scorer.known, np.nan) | scorer()
    notes = [note] if note else []
    draws: dict[str, FloatArray] = {}
    if rows.n_groups < MIN_GROUPS:
        notes.append(f"no interval: {rows.n_groups} groups are fewer than {MIN_GROUPS}")
    else:
        draws = _draw(scorer, rows, seed)
    found = {}
    for key, score in values.items():
        # Of a kind of attack only fakes tell.
        one = scorer.known.get(key) or Metric(key, metrics.ATTACKS, max, FAKE)
        why = one.undefined(n - fakes, fakes) or lacks.get(one.wants, "")
        if not why and one.wants == DEVELOPMENT and rows.dev is None:
            why = "no development rows: no other fold is finished"
        if why:
            found[key] = Score(np.nan, np.nan, np.nan, why)
            continue
        drawn = draws.get(key, np.empty(0))
        drawn = drawn[np.isfinite(drawn)]
        low, high = interval(drawn) if drawn.size else (np.nan, np.nan)
        found[key] = Score(score, low, high, one.limited(n - fakes, fakes))
    counted = (n, n - fakes, fakes, rows.n_groups)
    return Card(level, by, value, *counted, found, notes, rows, draws)


def score_all(
    decided: dict[Rows, dict[str, Decided]],
    by: str | None,
    only: Sequence[str] | None,
    metric: Metric,
) -> dict[Rows, list[Card]]:
    """Return rows -> cards: of each level the whole, then its parts.

    In-sample decisions beside cross-fitted ones are scored as a whole alone.
    """
    found: dict[Rows, list[Card]] = {}
    for place, (name, levels) in enumerate(decided.items()):
        found[name] = []
        for level, rows in levels.items():
            found[name].append(score_rows(rows, level, also=(metric,)))
            if not by or (place and name.how):
                continue
            for value, mask, note in parts(rows, by):
                if not only or value in only:
                    found[name].append(score_rows(rows.take(mask), level, by, value, note))
    return found


def _draw(scorer: Scorer, rows: Decided, seed: int) -> dict[str, FloatArray]:
    count = min(MOST_REPLICATES, max(FEWEST_REPLICATES, _ROWS_DRAWN // len(rows)))
    drawn = [scorer(w) for w in resamples(rows.label, rows.group, seed=seed, replicates=count)]
    return {key: np.array([one[key] for one in drawn]) for key in drawn[0]}
