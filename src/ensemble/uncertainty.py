"""How sure the score of the chosen rule is: its rows, that it was chosen, and its folds.

A bootstrap of rows knows the first alone. Its draws are asked the second too, by choosing anew in
each; what folds differ by beyond the luck of their rows is the third, with a prior where few folds
are finished.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.ensemble.predictions import Predictions
from src.ensemble.rule import Votes
from src.metrics import Metric, score_of

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
# What is believed of the spread between folds before two of them show any: its variance is this
# multiple of that of one fold's score by the luck of its rows ...
PRIOR_RATIO = 1.0
PRIOR_FOLDS = 4  # ... and counts as much as so many folds more than the first
LEVEL = 0.95


@dataclass(frozen=True)
class Uncertainty:
    """What lies around a score, in units of the metric."""

    interval: tuple[float, float]  # 95 %, of all that follows
    rows: float  # standard error by the luck of the rows, the choice made anew in each draw
    folds: float  # standard error by the spread between folds
    selection: float  # how much better the score looks for having been chosen, >= 0


def gain_errors(draws: FloatArray) -> FloatArray:
    """Return (k, k) standard errors of the differences between scores, from (b, k) paired draws."""
    k = draws.shape[1]
    errors = np.zeros((k, k))
    for i in range(k):
        for j in range(i):
            errors[i, j] = errors[j, i] = np.nanstd(draws[:, i] - draws[:, j], ddof=1)
    return errors


def climb(
    good: FloatArray, errors: FloatArray, rounds: Sequence[range], first: int
) -> list[IntArray]:
    """Let candidates challenge the one that stands, in every draw by itself.

    A challenger passes that gains more than one standard error over the standing one; of several
    in one round the best of those that pass takes its place, of equal ones the first.

    Args:
        good: (b, k) scores, more is better.
        errors: (k, k) standard errors of their differences.
        rounds: places of the candidates that challenge at once.
        first: place of the one that stands at the beginning.

    Returns:
        (b,) places of the one that stands, before each round and at the end.
    """
    draw = np.arange(len(good))
    standing = np.full(len(good), first, dtype=np.int64)
    path = [standing]
    for places in rounds:
        rivals = np.asarray(places)
        gain = good[:, rivals] - good[draw, standing][:, None]
        passed = gain > errors[np.ix_(rivals, np.arange(good.shape[1]))][:, standing].T
        best = rivals[np.argmax(np.where(passed, good[:, rivals], -np.inf), axis=1)]
        standing = np.where(passed.any(axis=1), best, standing)
        path.append(standing)
    return path


def fold_scores(metric: Metric, rows: Predictions, votes: Votes) -> tuple[FloatArray, FloatArray]:
    """Return (f,) the score on each fold, and its rows.

    NaN where the metric says nothing there, and where other members predicted it than the most
    items: folds then differ by who votes, not by luck.
    """
    voted = ~np.isnan(rows.logit.reshape(len(rows), -1))
    parts = [rows.fold == fold for fold in np.unique(rows.fold)]
    sizes = np.array([np.count_nonzero(here) for here in parts])
    voters = [_same_row(voted[here]) for here in parts]
    items = {who: sum(sizes[i] for i, w in enumerate(voters) if w == who) for who in voters if who}
    most = max(items, key=items.__getitem__, default=b"")
    scores = np.full(len(parts), np.nan)
    for i, here in enumerate(parts):
        label = rows.label[here]
        fakes = int(label.sum())
        if voters[i] and voters[i] == most and not metric.undefined(label.size - fakes, fakes):
            scores[i] = score_of(metric, label, votes.prob[here], votes.pred[here])
    return scores, sizes.astype(np.float64)


def _same_row(table: NDArray[np.bool_]) -> bytes:
    """Return the row that all rows of a table are, as bytes; none where they differ."""
    return table[0].tobytes() if (table == table[0]).all() else b""


def fold_variance(scores: FloatArray, variances: FloatArray) -> float:
    """Return the variance between folds beyond that of their rows; below 0 where they agree well.

    The moment estimate of DerSimonian & Laird, "Meta-analysis in clinical trials", Controlled
    Clinical Trials 7 (1986) 177, before it is cut off at 0.

    Args:
        scores: (k,) of two folds or more.
        variances: (k,) of each by the luck of its rows, > 0.
    """
    weight = 1 / variances
    total = weight.sum()
    q = weight @ (scores - weight @ scores / total) ** 2
    return float((q - (scores.size - 1)) / (total - weight @ weight / total))


def spread_of_folds(scores: FloatArray, sizes: FloatArray, rows: float) -> tuple[float, float]:
    """Return the standard error that folds add to a score over all their rows, and its freedom.

    The variance between folds is the weighted mean of what is believed before (`PRIOR_RATIO`,
    worth `PRIOR_FOLDS`) and of what the folds show (`fold_variance`, worth all but the first), as
    with a conjugate prior (Gelman et al., Bayesian Data Analysis, 3rd ed., 2013, sec. 3.3). One
    fold alone shows nothing.

    Args:
        scores: (f,) of each fold; NaN where it has none.
        sizes: (f,) rows of each.
        rows: standard error of the score over all rows, by their luck.

    Returns:
        The standard error, >= 0, and its degrees of freedom.
    """
    share = sizes / sizes.sum()
    known = np.isfinite(scores)
    freedom, variance = PRIOR_FOLDS, PRIOR_RATIO * PRIOR_FOLDS * rows**2 * sizes.size
    shown = int(known.sum()) - 1
    if shown > 0 and rows > 0:
        variance += shown * fold_variance(scores[known], rows**2 / share[known])
        freedom += shown
    return float(np.sqrt(max(variance, 0.0) / freedom * (share @ share))), float(freedom)


def uncertainty(
    metric: Metric,
    score: float,
    draws: FloatArray,
    places: IntArray,
    chosen: int,
    folds: tuple[FloatArray, FloatArray],
) -> Uncertainty:
    """Return what is known of the chosen candidate's score.

    The interval lies round the score less what the choice flatters it by: the mean, over the draws,
    of how far the one chosen there is above its own mean (the bootstrap's optimism, Efron, JASA 78
    (1983) 316, of the bias that Tibshirani & Tibshirani, Ann. Appl. Stat. 3 (2009) 822, correct in
    cross-validation). Its two sides are those of the draws' percentiles, longer by what the folds
    add: a t distribution of as much freedom as both have together (Satterthwaite, Biometrics
    Bulletin 2 (1946) 110).

    Args:
        metric: what the scores are of.
        score: of the chosen one on all rows.
        draws: (b, k) bootstrap scores of all candidates.
        places: (b,) which one each draw would have chosen.
        chosen: which one was.
        folds: as from `fold_scores`.
    """
    from scipy.special import ndtri, stdtrit  # slow to import

    drawn = draws[np.arange(len(draws)), places]
    mean = np.nanmean(draws, axis=0)
    selection = max(0.0, metric.sign * float(np.nanmean(drawn - mean[places])))
    rows = float(np.nanstd(drawn, ddof=1))
    error, freedom = spread_of_folds(*folds, float(np.nanstd(draws[:, chosen], ddof=1)))
    total = rows**2 + error**2
    tail = (1 + LEVEL) / 2
    longer = 1.0
    if error > 0:
        freedom *= (total / error**2) ** 2
        longer = np.sqrt(total) / rows * stdtrit(freedom, tail) / ndtri(tail) if rows > 0 else 1.0
    middle, low_high = score - metric.sign * selection, np.nanquantile(drawn, [1 - tail, tail])
    low, high = np.clip(middle + longer * (low_high - np.nanmean(drawn)), *metric.bounds)
    return Uncertainty((float(low), float(high)), rows, error, selection)
