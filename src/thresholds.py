"""The best threshold for a metric of decisions: exact by one sort, or from a histogram."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.metrics import MACRO_F1, Counts, Metric, check_label

FloatArray = NDArray[np.float64]
ABOVE_ONE = float(np.nextafter(1.0, 2.0))  # the threshold that no probability reaches
EQUALLY_GOOD = 1e-12  # values closer than this are the same up to rounding
BINS = 4096


def cut_values(metric: Metric, items_below: FloatArray, fakes_below: FloatArray) -> FloatArray:
    """Return what cuts are worth, more is better; -inf where the metric is undefined.

    Everything below a cut is called real; the last cut has everything below it.
    """
    n, n_fake = items_below[-1], fakes_below[-1]
    tn = items_below - fakes_below
    value = metric.compute(Counts(tn, n - n_fake - tn, fakes_below, n_fake - fakes_below))
    return np.where(np.isnan(value), -np.inf, metric.sign * value)


def _pick(
    metric: Metric, thresholds: FloatArray, items_below: FloatArray, fakes_below: FloatArray
) -> tuple[float, float]:
    """Return the best cut and its value; of equal ones the closest to 0.5, then the lowest."""
    value = cut_values(metric, items_below, fakes_below)
    good = np.flatnonzero(value >= value.max() - EQUALLY_GOOD)
    best = good[np.argmin(np.abs(thresholds[good] - 0.5))]
    return float(thresholds[best]), metric.sign * float(value[best])


def best_threshold(
    label: ArrayLike, prob: ArrayLike, metric: Metric = MACRO_F1
) -> tuple[float, float]:
    """Find the threshold with the best value of all, by one sort.

    Cuts lie half-way between distinct probs (on the upper where half-way rounds onto the lower);
    two more call all fake (0.0) or real (`ABOVE_ONE`). Ties: closest to 0.5, then the lowest.

    Args:
        label: (n,) 0/1.
        prob: (n,) in [0, 1].
        metric: one of decisions.

    Returns:
        The threshold and the metric of `prob >= threshold`.

    Raises:
        ValueError: see `check_label`; or a prob outside [0, 1].
    """
    return _pick(metric, *_cuts(label, prob))


def best_threshold_at(
    label: ArrayLike, prob: ArrayLike, share: float, metric: Metric = MACRO_F1
) -> tuple[float, float]:
    """As `best_threshold`, where another share of items is fake than among these rows.

    Rows, of both classes, are weighted by class to reach the share, in (0, 1).
    """
    thresholds, items_below, fakes_below = _cuts(label, prob)
    n, n_fake = items_below[-1], fakes_below[-1]
    fakes = fakes_below * (share * n / n_fake)
    reals = (items_below - fakes_below) * ((1 - share) * n / (n - n_fake))
    return _pick(metric, thresholds, reals + fakes, fakes)


def _cuts(label: ArrayLike, prob: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return all thresholds that differ, and how many items and fakes lie below each."""
    fake = check_label(label, prob, "prob")
    prob = np.asarray(prob, dtype=np.float64)
    if prob.min() < 0 or prob.max() > 1:
        raise ValueError(f"probs reach from {prob.min()} to {prob.max()}, want [0, 1]")
    # The bits of non-negative floats sort like the floats, and their sign bit is free to carry
    # the label: sorting these is several times faster than argsort. (+ 0.0 turns -0.0 into 0.0.)
    keys = ((prob + 0.0).view(np.uint64) << np.uint64(1)) | fake
    keys.sort()
    value = (keys >> np.uint64(1)).view(np.float64)
    return _cuts_between(value, np.cumsum(keys & np.uint64(1), dtype=np.float64))


def _cuts_between(
    value: FloatArray, fakes: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the cuts of sorted (n,) values whose first i + 1 rows hold `fakes[i]` fakes."""
    last = np.append(np.flatnonzero(value[1:] > value[:-1]), value.size - 1)  # of each value
    lower, upper = value[last[:-1]], value[last[:-1] + 1]
    middle = lower + (upper - lower) / 2
    thresholds = np.concatenate(([0.0], np.where(middle > lower, middle, upper), [ABOVE_ONE]))
    return thresholds, np.append(0.0, last + 1.0), np.append(0.0, fakes[last])


def threshold_of_counts(
    counts: NDArray[np.int64] | FloatArray, metric: Metric = MACRO_F1
) -> tuple[float, float]:
    """As `best_threshold`, of a histogram: (2, bins + 1) reals and fakes, perhaps weighted.

    Bin b holds probs in [b, b + 1) / bins.
    """
    real, fake = counts
    bins = len(real) - 1
    items_below = np.append(0.0, np.cumsum(real + fake))
    fakes_below = np.append(0.0, np.cumsum(fake))
    thresholds = np.append(np.arange(bins + 1) / bins, ABOVE_ONE)
    return _pick(metric, thresholds, items_below, fakes_below)


def plug_in_threshold(believed: FloatArray, prob: FloatArray, metric: Metric = MACRO_F1) -> float:
    """Return the cut of (n,) probs with the best value of the counts that calibrated probs expect.

    Half-way between two probs; ties as `best_threshold`. `believed` (n,) is calibrated P(fake),
    never falling where `prob` rises.
    """
    order = np.argsort(prob, kind="stable")
    return _pick(metric, *_cuts_between(prob[order], np.cumsum(believed[order])))[0]
