"""The full metric table of predicted items: values, intervals by group, what is undefined and why.

Positive is the fake. `hter` stands at cuts from development rows, `hter_test_eer` at the EER cut of
the scored rows themselves, as many papers report it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src import metrics, scores
from src.ensemble.bootstrap import MIN_GROUPS, interval, resamples
from src.ensemble.predictions import Decided
from src.reporting.evaluated import NO_NAME

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BOTH, REAL, FAKE, ANY = "both", "real", "fake", "any"
METRICS = {  # and which classes it needs
    "macro_f1": BOTH, "f1_real": REAL, "f1_fake": FAKE,
    "precision_real": REAL, "precision_fake": FAKE, "recall_real": REAL, "recall_fake": FAKE,
    "accuracy": ANY, "balanced_accuracy": BOTH,
    "auc": BOTH, "ap": BOTH, "eer": BOTH, "hter": BOTH, "hter_test_eer": BOTH,
    "apcer": FAKE, "bpcer": REAL, "acer": BOTH,
    "tpr@fpr=1%": BOTH, "tpr@fpr=0.1%": BOTH, "tnr@fnr=1%": BOTH,
    "log_loss": ANY, "ece": ANY,
}  # fmt: skip
MOST_REPLICATES, FEWEST_REPLICATES = 1000, 200
_ROWS_DRAWN = 100_000_000  # of all replicates together, about: 10 seconds


class Score(NamedTuple):
    """A value, its 95 % interval, and why there is none (or what limits it)."""

    value: float
    low: float
    high: float
    why: str = ""


@dataclass(frozen=True)
class Card:
    """The metrics of some rows.

    Attributes:
        level: `item` or `group`.
        by: what the rows were parted by, "" for all of them.
        value: of that.
        items, reals, fakes, groups: how many.
        scores: metric -> score, in the order of `METRICS`, then `apcer[kind]` of several kinds.
        notes: what the rows are, and why there is no interval.
    """

    level: str
    by: str
    value: str
    items: int
    reals: int
    fakes: int
    groups: int
    scores: dict[str, Score]
    notes: list[str]


class Scorer:
    """Computes every metric of some rows, for any number of copies of each."""

    def __init__(self, rows: Decided) -> None:
        self.rows, self.fake = rows, rows.label == 1
        self.said = rows.pred == 1
        self.ranking = scores.rank(rows.label, rows.logit)
        self.loss = np.logaddexp(0.0, np.where(self.fake, -rows.logit, rows.logit))
        names, code = np.unique(rows.domain[self.fake].astype(str), return_inverse=True)
        self.attacks, self.attack = [str(name) or NO_NAME for name in names], code
        self.ones = np.ones(len(rows), dtype=np.int64)
        self.own = rows.logit >= scores.eer_cut(scores.roc_of(self.ranking))

    def __call__(self, weight: IntArray | None = None) -> dict[str, float]:
        """Return metric -> value; NaN where it is undefined. `weight`: (n,) copies, None: one."""
        weight = self.ones if weight is None else weight
        curve = scores.roc_of(self.ranking, weight)
        found = self._at_thresholds(weight)
        found |= {
            "auc": scores.area(curve),
            "ap": scores.average_precision(curve),
            "eer": scores.eer(curve),
            "tpr@fpr=1%": scores.tpr_at_fpr(curve, 0.01),
            "tpr@fpr=0.1%": scores.tpr_at_fpr(curve, 0.001),
            "tnr@fnr=1%": scores.tpr_at_fpr(scores.swapped(curve), 0.01),
            "log_loss": float(np.average(self.loss, weights=weight)),
            "ece": scores.calibration_error(self.fake, self.rows.prob, weight),
        }
        return found

    def _at_thresholds(self, weight: IntArray) -> dict[str, float]:
        c = scores.weighted_counts(self.fake, self.said, weight)
        other = metrics.Counts(tn=c.tp, fp=c.fn, fn=c.fp, tp=c.tn)
        missed = scores.attack_errors(
            self.attack, ~self.said[self.fake], weight[self.fake], len(self.attacks)
        )
        apcer = float(np.nanmax(missed)) if np.isfinite(missed).any() else np.nan
        dev = self.rows.dev
        found = {
            "macro_f1": metrics.macro_f1_of_counts(c),
            "f1_real": metrics.f1_real(c),
            "f1_fake": metrics.f1_fake(c),
            "precision_real": metrics.precision(other),
            "precision_fake": metrics.precision(c),
            "recall_real": metrics.recall(other),
            "recall_fake": metrics.recall(c),
            "accuracy": metrics.accuracy(c),
            "balanced_accuracy": scores.balanced_accuracy(c),
            "hter": np.nan if dev is None else self._hter(dev == 1, weight),
            "hter_test_eer": self._hter(self.own, weight),
            "apcer": apcer,
            "bpcer": scores.fpr(c),
            "acer": scores.acer(apcer, scores.fpr(c)),
        }
        if len(self.attacks) > 1:
            found |= {f"apcer[{n}]": v for n, v in zip(self.attacks, missed, strict=True)}
        return {name: float(value) for name, value in found.items()}

    def _hter(self, said: NDArray[np.bool_], weight: IntArray) -> float:
        return scores.hter(scores.weighted_counts(self.fake, said, weight))


def score_rows(
    rows: Decided,
    level: str = "item",
    by: str = "",
    value: str = "",
    note: str = "",
    *,
    seed: int = 0,
) -> Card:
    """Return every metric of some rows, with its 95 % interval by group.

    An interval is the percentile one of a bootstrap of whole groups (`bootstrap.resamples`). The
    thresholds stay as they are, `hter_test_eer`'s too.

    Args:
        rows: n >= 1 of them.
        level: what a row is.
        by: what they were parted by.
        value: of that.
        note: what they are.
        seed: of the draws.
    """
    n, fakes = len(rows), int(rows.label.sum())
    n_groups = len(np.unique(rows.group))
    scorer = Scorer(rows)
    values = scorer()
    notes = [note] if note else []
    draws: dict[str, FloatArray] = {}
    if n_groups < MIN_GROUPS:
        notes.append(f"no interval: {n_groups} groups are fewer than {MIN_GROUPS}")
    else:
        draws = _draw(scorer, rows, seed)
    order = [*METRICS, *(key for key in values if key not in METRICS)]
    found = {}
    for key in order:
        why = undefined(key, n, fakes, has_dev=rows.dev is not None)
        if why:
            found[key] = Score(np.nan, np.nan, np.nan, why)
            continue
        drawn = draws.get(key, np.empty(0))
        drawn = drawn[np.isfinite(drawn)]
        low, high = interval(drawn) if drawn.size else (np.nan, np.nan)
        found[key] = Score(values[key], low, high, limited(key, n - fakes, fakes))
    return Card(level, by, value, n, n - fakes, fakes, n_groups, found, notes)


def _draw(scorer: Scorer, rows: Decided, seed: int) -> dict[str, FloatArray]:
    count = min(MOST_REPLICATES, max(FEWEST_REPLICATES, _ROWS_DRAWN // len(rows)))
    drawn = [scorer(w) for w in resamples(rows.label, rows.group, seed=seed, replicates=count)]
    return {key: np.array([one[key] for one in drawn]) for key in drawn[0]}


def undefined(metric: str, n: int, fakes: int, *, has_dev: bool) -> str:
    """Say why a metric says nothing of n rows with so many fakes; "" where it does."""
    if n < 2:
        return "one item only"
    needs = METRICS.get(metric, FAKE)
    if needs in (BOTH, REAL) and fakes == n:
        return "only fakes"
    if needs in (BOTH, FAKE) and not fakes:
        return "only reals"
    if metric == "hter" and not has_dev:
        return "no development rows: no other fold is finished"
    return ""


def limited(metric: str, reals: int, fakes: int) -> str:
    """Say where a class is too small for a rate's limit to allow a single error."""
    for key, limit, n, name in (
        ("tpr@fpr=1%", 0.01, reals, "reals"),
        ("tpr@fpr=0.1%", 0.001, reals, "reals"),
        ("tnr@fnr=1%", 0.01, fakes, "fakes"),
    ):
        if metric == key and n * limit < 1:
            return f"{n} {name}: the limit allows no error at all"
    return ""
