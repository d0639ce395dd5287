"""Every score, on numpy arrays: label 0 real, 1 fake; `pred = prob >= threshold`; float64."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
ABOVE_ONE = float(np.nextafter(1.0, 2.0))  # the threshold that no probability reaches
EQUALLY_GOOD = 1e-12  # macro-F1 closer than this is the same up to rounding
BINS = 4096


class Counts(NamedTuple):
    """The confusion counts; numbers, or arrays of the same shape."""

    tn: FloatArray
    fp: FloatArray
    fn: FloatArray
    tp: FloatArray


def sigmoid(logit: ArrayLike) -> FloatArray:
    """Return P(fake) of logits, float64 and without overflow."""
    logit = np.asarray(logit, dtype=np.float64)
    small = np.exp(-np.abs(logit))
    return np.where(logit >= 0, 1.0, small) / (1.0 + small)


def check_label(label: ArrayLike, other: ArrayLike, what: str) -> NDArray[np.bool_]:
    """Return labels as bool after checking them against what they are paired with.

    Args:
        label: (n,) 0 or 1.
        other: (n,) finite numbers.
        what: name of `other` in messages.

    Raises:
        ValueError: no items, other shapes, a label other than 0/1, a number that is not finite.
    """
    label, other = np.asarray(label), np.asarray(other)
    if label.ndim != 1 or label.shape != other.shape or not label.size:
        raise ValueError(f"label {label.shape} and {what} {other.shape} are not two equal (n,)")
    fake = label == 1
    if not (fake | (label == 0)).all():
        raise ValueError(f"labels are {np.unique(label)[:5].tolist()}, want 0 (real) and 1 (fake)")
    if not np.isfinite(other).all():
        raise ValueError(f"{what} of row {int(np.argmin(np.isfinite(other)))} is not finite")
    return fake


def counts(label: ArrayLike, pred: ArrayLike) -> Counts:
    """Return the confusion counts of (n,) labels and (n,) decisions, both 0/1."""
    fake = check_label(label, pred, "pred")
    said = check_label(pred, label, "label")
    tp = np.count_nonzero(fake & said)
    n_fake, n_said = np.count_nonzero(fake), np.count_nonzero(said)
    values = (fake.size - n_fake - n_said + tp, n_said - tp, n_fake - tp, tp)
    return Counts(*np.array(values, dtype=np.float64))


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Divide whole numbers; 0/0 is 0 (scikit-learn's `zero_division=0`)."""
    return part / np.maximum(whole, 1)


def f1_real(c: Counts) -> FloatArray:
    """Return the F1 of class 0; 0 where it has neither items nor predictions."""
    return _ratio(2 * c.tn, 2 * c.tn + c.fn + c.fp)


def f1_fake(c: Counts) -> FloatArray:
    """Return the F1 of class 1; 0 where it has neither items nor predictions."""
    return _ratio(2 * c.tp, 2 * c.tp + c.fn + c.fp)


def accuracy(c: Counts) -> FloatArray:
    """Return the share of right decisions."""
    return _ratio(c.tn + c.tp, c.tn + c.fp + c.fn + c.tp)


def precision(c: Counts) -> FloatArray:
    """Return the share of fakes among the items called fake; 0 if none was."""
    return _ratio(c.tp, c.tp + c.fp)


def recall(c: Counts) -> FloatArray:
    """Return the share of fakes that were called fake; 0 if there is none."""
    return _ratio(c.tp, c.tp + c.fn)


def macro_f1_of_counts(c: Counts) -> FloatArray:
    """Return the mean of both classes' F1, for one set of counts or for arrays of them."""
    return (f1_real(c) + f1_fake(c)) / 2


def macro_f1(label: ArrayLike, pred: ArrayLike) -> float:
    """Return the plain mean of both classes' F1, of (n,) labels and (n,) decisions.

    The same as scikit-learn's `f1_score(labels=[0, 1], average="macro", zero_division=0)`.
    """
    return float(macro_f1_of_counts(counts(label, pred)))


def auc(label: ArrayLike, score: ArrayLike) -> float:
    """Return the area under the ROC curve; a tie counts half.

    Args:
        label: (n,) 0/1.
        score: (n,) probs or logits.

    Returns:
        P(score of a fake > score of a real); NaN where a class is absent.
    """
    fake = check_label(label, score, "score")
    score = np.asarray(score, dtype=np.float64)
    fakes, reals = np.sort(score[fake]), np.sort(score[~fake])
    if not fakes.size or not reals.size:
        return float("nan")
    below = np.searchsorted(reals, fakes, "left").sum()
    upto = np.searchsorted(reals, fakes, "right").sum()
    return float((below + upto) / (2.0 * fakes.size * reals.size))


def log_loss(label: ArrayLike, logit: ArrayLike) -> float:
    """Return the mean cross entropy in nats; from logits, so nothing has to be clipped."""
    fake = check_label(label, logit, "logit")
    logit = np.asarray(logit, dtype=np.float64)
    return float(np.mean(np.logaddexp(0.0, np.where(fake, -logit, logit))))


def _check_prob(label: ArrayLike, prob: ArrayLike) -> tuple[NDArray[np.bool_], FloatArray]:
    fake = check_label(label, prob, "prob")
    prob = np.asarray(prob, dtype=np.float64)
    if prob.min() < 0 or prob.max() > 1:
        raise ValueError(f"probs reach from {prob.min()} to {prob.max()}, want [0, 1]")
    return fake, prob


def _macro_f1_of_cuts(items_below: FloatArray, fakes_below: FloatArray) -> FloatArray:
    """Score cuts below which everything is called real; the last cut has everything below it.

    F1 = 2 right / (items called so + items that are so), which needs fewer passes over memory than
    the counts would.
    """
    n, n_fake = items_below[-1], fakes_below[-1]
    real = _ratio(items_below - fakes_below, items_below + (n - n_fake))
    return real + _ratio(n_fake - fakes_below, n_fake + n - items_below)


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
    """Find the best threshold where another share of items is fake than among these rows.

    Args:
        label: (n,) 0/1, both classes present.
        prob: (n,) in [0, 1].
        share: of fakes, in (0, 1); rows are weighted by class to reach it.

    Returns:
        As `best_threshold`, for the weighted rows.
    """
    thresholds, items_below, fakes_below = _cuts(label, prob)
    n, n_fake = items_below[-1], fakes_below[-1]
    fakes = fakes_below * (share * n / n_fake)
    reals = (items_below - fakes_below) * ((1 - share) * n / (n - n_fake))
    return _pick(thresholds, _macro_f1_of_cuts(reals + fakes, fakes))


def _cuts(label: ArrayLike, prob: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return all thresholds that differ, and how many items and fakes lie below each."""
    fake, prob = _check_prob(label, prob)
    # The bits of non-negative floats sort like the floats, and their sign bit is free to carry
    # the label: sorting these is several times faster than argsort. (+ 0.0 turns -0.0 into 0.0.)
    keys = ((prob + 0.0).view(np.uint64) << np.uint64(1)) | fake
    keys.sort()
    value = (keys >> np.uint64(1)).view(np.float64)
    last = np.append(np.flatnonzero(value[1:] > value[:-1]), value.size - 1)  # of each value
    lower, upper = value[last[:-1]], value[last[:-1] + 1]
    middle = lower + (upper - lower) / 2
    thresholds = np.concatenate(([0.0], np.where(middle > lower, middle, upper), [ABOVE_ONE]))
    items_below = np.append(0.0, last + 1)
    fakes_below = np.append(0.0, np.cumsum(keys & np.uint64(1), dtype=np.float64)[last])
    return thresholds, items_below, fakes_below


def histogram_threshold(label: ArrayLike, prob: ArrayLike, bins: int = BINS) -> tuple[float, float]:
    """Find the best threshold among the multiples of `1/bins`, without a sort: for searches.

    Args:
        label: (n,) 0/1.
        prob: (n,) in [0, 1].
        bins: a power of two, which makes `prob * bins`, and so the score, exact.

    Returns:
        As `best_threshold`, which also says what is raised.
    """
    fake, prob = _check_prob(label, prob)
    if bins < 1 or bins & (bins - 1):
        raise ValueError(f"bins is {bins}, want a power of two")
    return threshold_of_bins(prob, fake * np.int64(bins + 1), bins)


def threshold_of_bins(
    prob: FloatArray, offset: NDArray[np.int64], bins: int = BINS
) -> tuple[float, float]:
    """Do the work of `histogram_threshold`, unchecked, for loops that checked before.

    Args:
        prob: (n,) in [0, 1].
        offset: (n,) `label * (bins + 1)`.
        bins: a power of two.
    """
    place = (prob * bins).astype(np.int64) + offset
    return threshold_of_counts(np.bincount(place, minlength=2 * (bins + 1)).reshape(2, bins + 1))


def threshold_of_counts(counts: NDArray[np.int64] | FloatArray) -> tuple[float, float]:
    """Find the best threshold of a histogram.

    Args:
        counts: (2, bins + 1) reals and fakes, possibly weighted, with prob in [b, b + 1) / bins.
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
    real = np.cumsum(np.bincount(place[:n_real], minlength=bins + 1), dtype=np.float64)
    fake = np.cumsum(np.bincount(place[n_real:], minlength=bins + 1), dtype=np.float64)
    n_fake = len(place) - n_real
    items = real + fake
    score = real / np.maximum(items + n_real, 1)
    score += (n_fake - fake) / np.maximum(n_real + 2 * n_fake - items, 1)
    all_fake = n_fake / (n_real + 2 * n_fake) if n_fake else 0.0
    return float(max(score.max(), all_fake))


def plug_in_threshold(believed: FloatArray, prob: FloatArray) -> float:
    """Find the cut of `prob` with the highest macro-F1 that calibrated probs expect.

    Args:
        believed: (n,) calibrated P(fake), never falling where `prob` rises.
        prob: (n,) in [0, 1], what the threshold is held against.

    Returns:
        A threshold half-way between two probs; ties as `best_threshold`.
    """
    order = np.argsort(prob, kind="stable")
    value, fakes = prob[order], np.cumsum(believed[order])
    last = np.append(np.flatnonzero(value[1:] > value[:-1]), value.size - 1)
    lower, upper = value[last[:-1]], value[last[:-1] + 1]
    middle = lower + (upper - lower) / 2
    thresholds = np.concatenate(([0.0], np.where(middle > lower, middle, upper), [ABOVE_ONE]))
    items_below = np.append(0.0, last + 1.0)
    fakes_below = np.append(0.0, fakes[last])
    return _pick(thresholds, _macro_f1_of_cuts(items_below, fakes_below))[0]


def classification_report(
    label: ArrayLike, logit: ArrayLike, threshold: float = 0.5
) -> dict[str, float]:
    """Return what training prints per epoch.

    Args:
        label: (n,) 0/1.
        logit: (n,) finite.
        threshold: on P(fake).

    Returns:
        `accuracy, macro_f1, f1_real, f1_fake, precision, recall` (of class fake) and `auc` (NaN
        where a class is absent).
    """
    check_label(label, logit, "logit")
    c = counts(label, sigmoid(logit) >= threshold)
    return {
        "accuracy": float(accuracy(c)),
        "macro_f1": float(macro_f1_of_counts(c)),
        "f1_real": float(f1_real(c)),
        "f1_fake": float(f1_fake(c)),
        "precision": float(precision(c)),
        "recall": float(recall(c)),
        "auc": auc(label, logit),
    }
