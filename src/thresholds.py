"""The best threshold for macro-F1: exact by one sort, or from a histogram in searches."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.metrics import check_label, ratio

FloatArray = NDArray[np.float64]
ABOVE_ONE = float(np.nextafter(1.0, 2.0))  # the threshold that no probability reaches
EQUALLY_GOOD = 1e-12  # macro-F1 closer than this is the same up to rounding
BINS = 4096


def _macro_f1_of_cuts(items_below: FloatArray, fakes_below: FloatArray) -> FloatArray:
    """Score cuts below which everything is called real; the last cut has everything below it.

    F1 = 2 right / (items called so + items that are so), which needs fewer passes over memory than
    the counts would.
    """
    n, n_fake = items_below[-1], fakes_below[-1]
    real = ratio(items_below - fakes_below, items_below + (n - n_fake))
    return real + ratio(n_fake - fakes_below, n_fake + n - items_below)


def _pick(thresholds: FloatArray, scores: FloatArray) -> tuple[float, float]:
    """Return the best cut; among equally good ones the closest to 0.5, then the lowest."""
    good = np.flatnonzero(scores >= scores.max() - EQUALLY_GOOD)
    best = good[np.argmin(np.abs(thresholds[good] - 0.5))]
    return float(thresholds[best]), float(scores[best])


def best_threshold(label: ArrayLike, prob: ArrayLike) -> tuple[float, float]:
    """Find the threshold with the highest macro-F1 of all, by one sort.

    Cuts lie half-way between distinct probs (on the upper where half-way rounds onto the lower);
    two more call all fake (0.0) or real (`ABOVE_ONE`). Ties: closest to 0.5, then the lowest.

    Args:
        label: (n,) 0/1.
        prob: (n,) in [0, 1].

    Returns:
        The threshold and the macro-F1 of `prob >= threshold`.

    Raises:
        ValueError: see `check_label`; or a prob outside [0, 1].
    """
    thresholds, items_below, fakes_below = _cuts(label, prob)
    return _pick(thresholds, _macro_f1_of_cuts(items_below, fakes_below))


def best_threshold_at(label: ArrayLike, prob: ArrayLike, share: float) -> tuple[float, float]:
    """As `best_threshold`, where another share of items is fake than among these rows.

    Rows, of both classes, are weighted by class to reach the share, in (0, 1).
    """
    thresholds, items_below, fakes_below = _cuts(label, prob)
    n, n_fake = items_below[-1], fakes_below[-1]
    fakes = fakes_below * (share * n / n_fake)
    reals = (items_below - fakes_below) * ((1 - share) * n / (n - n_fake))
    return _pick(thresholds, _macro_f1_of_cuts(reals + fakes, fakes))


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


def threshold_of_counts(counts: NDArray[np.int64] | FloatArray) -> tuple[float, float]:
    """As `best_threshold`, of a histogram: (2, bins + 1) reals and fakes, perhaps weighted.

    Bin b holds probs in [b, b + 1) / bins.
    """
    real, fake = counts
    bins = len(real) - 1
    items_below = np.append(0.0, np.cumsum(real + fake))
    fakes_below = np.append(0.0, np.cumsum(fake))
    thresholds = np.append(np.arange(bins + 1) / bins, ABOVE_ONE)
    return _pick(thresholds, _macro_f1_of_cuts(items_below, fakes_below))


def best_score_of_bins(scaled: NDArray[np.floating], n_real: int, bins: int = BINS) -> float:
    """Return the score alone of the best histogram threshold, for searches that ask many times.

    Args:
        scaled: (n,) `prob * bins` of the reals, then of the fakes; float32 or float64. Rounding
            beyond `bins` by less than 1 is harmless.
        n_real: number of reals.
        bins: a power of two.
    """
    place = scaled.astype(np.int64)
    # Whole numbers until they are divided: a running sum of floats takes several times as long.
    real = np.bincount(place[:n_real], minlength=bins + 1).cumsum()
    fake = np.bincount(place[n_real:], minlength=bins + 1).cumsum()
    n_fake = len(place) - n_real
    items = real + fake
    # Where a class is absent its share is 0 over anything, so 1 keeps 0 / 0 away.
    score = real / (items + max(n_real, 1))
    score += (n_fake - fake) / (n_real + n_fake + max(n_fake, 1) - items)
    all_fake = n_fake / (n_real + 2 * n_fake) if n_fake else 0.0
    return float(max(score.max(), all_fake))


def plug_in_threshold(believed: FloatArray, prob: FloatArray) -> float:
    """Return the cut of (n,) probs with the highest macro-F1 that calibrated probs expect.

    Half-way between two probs; ties as `best_threshold`. `believed` (n,) is calibrated P(fake),
    never falling where `prob` rises.
    """
    order = np.argsort(prob, kind="stable")
    thresholds, items_below, fakes_below = _cuts_between(prob[order], np.cumsum(believed[order]))
    return _pick(thresholds, _macro_f1_of_cuts(items_below, fakes_below))[0]
