"""DeLong's test of two areas under the ROC curve, of items that may come in groups."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.metrics import NAN, check_label

FloatArray = NDArray[np.float64]
WIDE = 1.959963984540054  # standard errors to either side of a 95 % interval
_NOTHING = 1e-12  # a standard error this small is rounding


class AucGain(NamedTuple):
    """By how much one AUC exceeds another on the same items."""

    gain: float  # NaN where a class is absent
    why: str = ""  # why nothing but the gain is known
    error: float = NAN  # its standard error
    low: float = NAN  # of the 95 % interval, within -1 and 1
    high: float = NAN
    p: float = NAN  # two-sided: that a difference this large comes of equal areas


def placements(label: ArrayLike, score: ArrayLike) -> FloatArray:
    """Return (n,) the share of the other class that each item stands on the right side of.

    Of a fake the share of reals below it, of a real the share of fakes above it, ties half: the
    structural components V10 and V01 of DeLong et al. 1988, by sorting (Sun & Xu, "Fast
    implementation of DeLong's algorithm", IEEE Signal Processing Letters 2014). The mean over
    either class is the AUC. Both classes are there; raises as `check_label`.
    """
    fake = check_label(label, score, "score")
    score = np.asarray(score, dtype=np.float64)
    found = np.empty(score.size)
    for own, sign in ((fake, 1.0), (~fake, -1.0)):
        value, others = sign * score[own], np.sort(sign * score[~own])
        below = np.searchsorted(others, value, "left") + np.searchsorted(others, value, "right")
        found[own] = below / (2.0 * others.size)
    return found


def delong(label: ArrayLike, one: ArrayLike, other: ArrayLike, group: ArrayLike) -> AucGain:
    """Test whether two scores of the same items have the same AUC.

    DeLong, DeLong & Clarke-Pearson, "Comparing the areas under two or more correlated receiver
    operating characteristic curves", Biometrics 1988; with items in groups (frames of one video)
    its extension by Obuchowski, "Nonparametric analysis of clustered ROC curve data", Biometrics
    1997, which is the former where each group is one item. A group may hold both classes.

    Args:
        label: (n,) 0/1.
        one, other: (n,) finite scores, higher for fakes; the gain is `one`'s AUC minus `other`'s.
        group: (n,) codes.

    Raises:
        ValueError: see `check_label`.
    """
    fake = check_label(label, one, "score")
    check_label(label, other, "score")
    if fake.all() or not fake.any():
        return AucGain(NAN, "only fakes" if fake.all() else "only reals")
    # Of the differences themselves, so that equal orders give exactly 0.
    apart = placements(label, one) - placements(label, other)
    gain = float(apart[fake].mean())
    _, code = np.unique(np.asarray(group), return_inverse=True)
    groups = int(code.max()) + 1
    sums, parts, variance = [], [], 0.0
    for own in (fake, ~fake):
        here = len(np.unique(code[own]))
        if here < 2:
            kind = "fakes" if own is fake else "reals"
            return AucGain(gain, f"all {kind} are one group")
        sums.append(np.bincount(code[own], apart[own] - gain, groups) / own.sum())
        parts.append(here)
    for total, here in zip(sums, parts, strict=True):
        variance += here / (here - 1) * float(total @ total)
    variance += 2 * groups / (groups - 1) * float(sums[0] @ sums[1])
    error = math.sqrt(max(variance, 0.0))
    if error <= _NOTHING:
        return AucGain(gain, "both order these items alike: no variance to test by")
    low, high = max(-1.0, gain - WIDE * error), min(1.0, gain + WIDE * error)
    return AucGain(gain, "", error, low, high, math.erfc(abs(gain) / error / math.sqrt(2)))
