"""The metrics of the field, from one ranking of the items; numpy, float64, fake = 1 = positive.

Positive is the fake: the attack of ISO/IEC 30107-3. Papers on face anti-spoofing such as FLIP
(Srivatsan et al., ICCV 2023) take the real face as positive: `swapped` gives their curve.

Every item may carry a weight, a whole number of copies of it, so that a bootstrap sorts once.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.metrics import Counts, check_label

FloatArray = NDArray[np.float64]
NAN = float("nan")
BINS = 15  # of the calibration error
CLIP = float(np.finfo(np.float64).eps)  # how near to 0 and 1 a prob may come in a log loss


class Roc(NamedTuple):
    """The ROC curve, as counts: what `score >= cut` calls fake."""

    cut: FloatArray  # (k + 1,) falling: inf, half-way between the k distinct scores, -inf
    fp: FloatArray  # (k + 1,) reals called fake, from 0 to all
    tp: FloatArray  # (k + 1,) fakes called fake, from 0 to all


@dataclass(frozen=True)
class Ranking:
    """Items sorted by score, once for all weights."""

    order: NDArray[np.intp]  # (n,) rows, the highest score first
    fake: NDArray[np.bool_]  # (n,) bool, in that order
    last: NDArray[np.intp]  # (k,) place of the last item of each distinct score
    cut: FloatArray  # (k + 1,) as in `Roc`


def rank(label: ArrayLike, score: ArrayLike) -> Ranking:
    """Sort (n,) items by finite scores: probs, or logits; raises as `check_label`."""
    fake = check_label(label, score, "score")
    score = np.asarray(score, dtype=np.float64)
    order = np.argsort(-score, kind="stable")
    value = score[order]
    last = np.append(np.flatnonzero(value[1:] < value[:-1]), value.size - 1)
    upper, lower = value[last[:-1]], value[last[:-1] + 1]
    middle = lower + (upper - lower) / 2
    cut = np.concatenate(([np.inf], np.where(middle > lower, middle, upper), [-np.inf]))
    return Ranking(order, fake[order], last, cut)


def roc_of(ranking: Ranking, weight: NDArray[np.int64] | None = None) -> Roc:
    """Return the ROC curve of ranked items, (n,) copies of each (None: one)."""
    share = np.ones(ranking.order.size) if weight is None else weight[ranking.order].astype(float)
    called = np.append(0.0, np.cumsum(share)[ranking.last])
    tp = np.append(0.0, np.cumsum(share * ranking.fake)[ranking.last])
    return Roc(ranking.cut, called - tp, tp)


def roc(label: ArrayLike, score: ArrayLike) -> Roc:
    """Return the ROC curve of (n,) labels and finite scores; raises as `check_label`."""
    return roc_of(rank(label, score))


def swapped(curve: Roc) -> Roc:
    """Return the curve with the real as positive: what `score < cut` calls real, cuts rising."""
    fp, tp = curve.fp[::-1], curve.tp[::-1]
    return Roc(curve.cut[::-1], tp[0] - tp, fp[0] - fp)


def _rates(curve: Roc) -> tuple[FloatArray, FloatArray] | None:
    """Return FPR and TPR; None where a class is absent."""
    reals, fakes = curve.fp[-1], curve.tp[-1]
    return (curve.fp / reals, curve.tp / fakes) if reals and fakes else None


def area(curve: Roc) -> float:
    """Return the area under the ROC curve, by trapezoids: a tie counts half; NaN for one class."""
    rates = _rates(curve)
    return NAN if rates is None else float(np.trapezoid(rates[1], rates[0]))


def average_precision(curve: Roc) -> float:
    """Return AP = sum over cuts of (recall gained) * precision there, without interpolation.

    As scikit-learn's `average_precision_score`. NaN where a class is absent.
    """
    if _rates(curve) is None:
        return NAN
    precision = curve.tp[1:] / np.maximum(curve.tp[1:] + curve.fp[1:], 1)
    return float(np.sum(np.diff(curve.tp) / curve.tp[-1] * precision))


def eer(curve: Roc) -> float:
    """Return the equal error rate: x where the ROC curve crosses TPR = 1 - x.

    Between its points the curve is a straight line, and the crossing is solved exactly: what
    scipy's brentq on 1 - x - TPR(x) finds (FSFM, CVPR 2025, and most papers). DeepfakeBench
    (NeurIPS 2023) takes the FPR at argmin |FNR - FPR| over the points instead, which can differ by
    half a step of either rate. NaN where a class is absent.
    """
    rates = _rates(curve)
    if rates is None:
        return NAN
    fpr, tpr = rates
    gap = fpr + tpr - 1  # FPR - FNR: from -1 to 1, never falling
    after = int(np.argmax(gap >= 0))
    step = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(fpr[after - 1] + step * (fpr[after] - fpr[after - 1]))


def eer_cut(curve: Roc) -> float:
    """Return the cut whose FNR and FPR are closest: the threshold "at the EER".

    Among equally close ones that of the lowest sum of both, then the highest cut. Unlike `eer`
    itself it is a cut that can be made, so its HTER may differ a little from the EER. NaN where a
    class is absent.
    """
    reals, fakes = curve.fp[-1], curve.tp[-1]
    if not reals or not fakes:
        return NAN
    # Whole numbers: equal distances are equal to the last bit.
    wrong_real, wrong_fake = curve.fp * fakes, (fakes - curve.tp) * reals
    best = np.lexsort((wrong_real + wrong_fake, np.abs(wrong_real - wrong_fake)))[0]
    return float(curve.cut[best])


def tpr_at_fpr(curve: Roc, limit: float) -> float:
    """Return the TPR at the last point of the ROC curve with FPR <= limit; 0 if none finds a fake.

    No interpolation, as FLIP computes it (on `swapped`). NaN where a class is absent.
    """
    rates = _rates(curve)
    if rates is None:
        return NAN
    return float(rates[1][np.searchsorted(rates[0], limit, "right") - 1])


def weighted_counts(
    fake: NDArray[np.bool_], said: NDArray[np.bool_], weight: NDArray[np.int64]
) -> Counts:
    """Return the confusion counts of (n,) items and decisions, each counted `weight` times."""
    cells = np.bincount(2 * fake + said, weights=weight, minlength=4)
    return Counts(*cells)


def _share(part: float | FloatArray, whole: float | FloatArray) -> float:
    return float(part / whole) if whole else NAN


def fpr(c: Counts) -> float:
    """Return the share of reals called fake: BPCER (ISO/IEC 30107-3), FAR; NaN without reals."""
    return _share(c.fp, c.fp + c.tn)


def fnr(c: Counts) -> float:
    """Return the share of fakes called real: the miss rate, FRR; NaN without fakes."""
    return _share(c.fn, c.fn + c.tp)


def balanced_accuracy(c: Counts) -> float:
    """Return the mean of both classes' recall; NaN where a class is absent."""
    return 1 - hter(c)


def hter(c: Counts) -> float:
    """Return the half total error rate (FPR + FNR) / 2; NaN where a class is absent.

    It is honest only at a threshold that was not chosen on these items.
    """
    return (fpr(c) + fnr(c)) / 2


def attack_errors(
    kind: NDArray[np.intp], missed: NDArray[np.bool_], weight: NDArray[np.int64], n_kinds: int
) -> FloatArray:
    """Return APCER of each kind of attack (ISO/IEC 30107-3): the share of its fakes called real.

    Args:
        kind: (m,) code of every fake, 0..n_kinds-1.
        missed: (m,) whether it was called real.
        weight: (m,) copies of it.
        n_kinds: number of kinds.

    Returns:
        (n_kinds,), NaN where a kind has no fakes; APCER of all is the largest.
    """
    total = np.bincount(kind, weight, n_kinds)
    wrong = np.bincount(kind, weight * missed, n_kinds)
    return np.divide(wrong, total, out=np.full(n_kinds, np.nan), where=total > 0)


def acer(apcer: float, bpcer: float) -> float:
    """Return the average of the worst kind's APCER and BPCER (ISO/IEC 30107-3:2017)."""
    return (apcer + bpcer) / 2


def bins_of(prob: FloatArray, bins: int = BINS) -> NDArray[np.int64]:
    """Return the bin of (n,) probs, 0..bins-1, all equally wide; 1.0 lies in the last."""
    return np.minimum((prob * bins).astype(np.int64), bins - 1)


def calibration_error(
    fake: NDArray[np.bool_], prob: FloatArray, weight: NDArray[np.int64], bins: int = BINS
) -> float:
    """Return the mean distance of P(fake) from the share of fakes (Guo et al., ICML 2017, eq. 3).

    Sum over bins of (items / n) * |share of fakes - mean prob|, in equally wide bins of P(fake)
    itself, not of the confidence in the decision.

    Args:
        fake: (n,).
        prob: (n,) in [0, 1].
        weight: (n,) copies of each.
        bins: number of bins.
    """
    gap = np.bincount(bins_of(prob, bins), weight * (fake - prob), bins)
    return float(np.abs(gap).sum() / weight.sum())
