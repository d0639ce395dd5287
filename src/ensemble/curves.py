"""Curves that turn one member's logits into probs: calibration, and ranks."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.ensemble.logistic import fit_logistic
from src.metrics import log_odds, sigmoid
from src.registry import Registry

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
KNOTS = 256  # a stored curve has at most one more
EDGE = 1e-6  # probs that are turned into log-odds stay this far from 0 and 1


@dataclass(frozen=True)
class Curve:
    """P(fake) of a logit: sigmoid(slope * logit + intercept), or through knots.

    Attributes:
        slope: of the logit.
        intercept: added to it.
        x: logits of the knots, rising; none for the sigmoid form.
        y: probs at the knots, not falling; straight lines between, flat outside.
    """

    slope: float = 1.0
    intercept: float = 0.0
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()

    def prob(self, logit: FloatArray) -> FloatArray:
        """Map (n,) logits to (n,) probs: the sigmoid of `logit`, to the last bit."""
        return sigmoid(self.logit(logit))

    def logit(self, logit: FloatArray) -> FloatArray:
        """Map (n,) logits to calibrated (n,) logits."""
        if self.x:
            return log_odds(np.interp(logit, self.x, self.y), EDGE)
        if self.slope == 1.0 and self.intercept == 0.0:
            return logit
        return self.slope * logit + self.intercept


FitCurve = Callable[[IntArray, FloatArray], Curve]
CALIBRATIONS: Registry[FitCurve] = Registry("calibration")


@CALIBRATIONS.register("temperature")
def fit_temperature(label: IntArray, logit: FloatArray) -> Curve:
    """Divide logits by the temperature with the least log loss (Guo et al., ICML 2017)."""
    weights, _ = fit_logistic(label, logit[:, None], l2=1e-3, intercept=False, positive=True)
    return Curve(slope=float(weights[0]))


@CALIBRATIONS.register("platt")
def fit_platt(label: IntArray, logit: FloatArray) -> Curve:
    """Fit slope and intercept to smoothed targets (Platt 1999; Lin, Lin & Weng 2007).

    The slope is kept >= 0: a member that ranks the wrong way round is flattened, not turned.
    """
    fake = np.count_nonzero(label)
    high, low = (fake + 1) / (fake + 2), 1 / (label.size - fake + 2)
    target = np.where(label == 1, high, low)
    weights, intercept = fit_logistic(target, logit[:, None], positive=True)
    return Curve(slope=float(weights[0]), intercept=intercept)


@CALIBRATIONS.register("isotonic")
def fit_isotonic(label: IntArray, logit: FloatArray) -> Curve:
    """Fit the best non-falling steps, by pooling adjacent violators (Zadrozny & Elkan, KDD 2002).

    Each step is pulled towards the share of fakes by the weight of one item: none is 0 or 1.
    """
    from scipy.optimize import isotonic_regression

    value, place, count = np.unique(logit, return_inverse=True, return_counts=True)
    share = np.bincount(place, weights=label) / count
    steps = isotonic_regression(share, weights=count)
    bounds = steps.blocks
    weight = np.add.reduceat(count, bounds[:-1])
    level = np.asarray(steps.x)[bounds[:-1]]
    level = np.maximum.accumulate((level * weight + label.mean()) / (weight + 1))
    first, last = value[bounds[:-1]], value[bounds[1:] - 1]
    return _thin(np.stack([first, last], 1).ravel(), np.repeat(level, 2))


def fit_rank(logit: FloatArray) -> Curve:
    """Return the curve from a logit to the share of items below it; a tie counts half."""
    value, count = np.unique(logit, return_counts=True)
    share = (np.cumsum(count) - count / 2) / logit.size
    return _thin(value, share)


def _thin(x: FloatArray, y: FloatArray) -> Curve:
    """Keep at most `KNOTS` + 1 points, evenly spread over the rows, the ends among them."""
    keep = np.unique(np.linspace(0, x.size - 1, min(x.size, KNOTS + 1)).round().astype(np.int64))
    x, y = x[keep], y[keep]
    rising = np.append(True, np.diff(x) > 0)
    return Curve(x=tuple(x[rising].tolist()), y=tuple(y[rising].tolist()))
