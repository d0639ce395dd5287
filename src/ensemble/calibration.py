"""Curves that turn one member's logits into probs: calibration, and ranks.

Logistic regression of few columns: for calibration and stacking (scikit-learn loads slowly).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.metrics import log_odds, sigmoid
from src.registry import Registry

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
KNOTS = 256  # a stored curve has at most one more
EDGE = 1e-6  # probs that are turned into log-odds stay this far from 0 and 1
FLAT = 1e-9  # a spread below this share of the mean is rounding


def fit_logistic(
    target: NDArray[np.int64] | FloatArray,
    columns: FloatArray,
    *,
    l2: float = 0.0,
    intercept: bool = True,
    positive: bool = False,
) -> tuple[FloatArray, float]:
    """Minimise the summed log loss plus `l2 / 2` times the squared weights.

    Columns are scaled to unit variance first, so that `l2` means the same for all; the weights
    returned are those of the columns as given, 0 for a constant one beside an intercept. With
    `l2=1` this is scikit-learn's `LogisticRegression(C=1)` on standardised columns.

    Args:
        target: (n,) 0/1, or shares in [0, 1].
        columns: (n, m) finite.
        l2: strength of the pull to 0; the intercept is free of it.
        intercept: fit one; else it is 0.
        positive: weights >= 0.

    Returns:
        (m,) weights and the intercept.
    """
    from scipy.optimize import minimize

    mean, scale = columns.mean(axis=0), columns.std(axis=0)
    flat = scale <= FLAT * np.maximum(np.abs(mean), 1.0)  # rounding leaves a constant some spread
    scale[flat] = 1.0
    middle = mean if intercept else np.zeros(columns.shape[1])
    scaled = (columns - middle) / scale
    target = np.asarray(target, dtype=np.float64)
    n_weights = columns.shape[1]

    def loss(point: FloatArray) -> tuple[float, FloatArray]:
        weights = point[:n_weights]
        logit = scaled @ weights + (point[-1] if intercept else 0.0)
        off = sigmoid(logit) - target
        value = np.logaddexp(0.0, logit).sum() - target @ logit + l2 / 2 * weights @ weights
        slope = scaled.T @ off + l2 * weights
        slope = np.append(slope, off.sum()) if intercept else slope
        return float(value) / target.size, slope / target.size

    bounds = [(0.0 if positive else None, None)] * n_weights + [(None, None)] * intercept
    start = np.append(np.full(n_weights, 1.0 / n_weights), [0.0] * intercept)
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds,
        options={"maxiter": 500, "ftol": 1e-12, "gtol": 1e-8},
    )  # fmt: skip
    weights = found.x[:n_weights] / scale
    if intercept:
        weights[flat] = 0.0  # the intercept says all that a constant can
    constant = float(found.x[-1] - weights @ middle) if intercept else 0.0
    return weights, constant


@dataclass(frozen=True)
class Curve:
    """P(fake) of a logit: sigmoid(slope * logit + intercept), or through knots."""

    slope: float = 1.0  # of the logit
    intercept: float = 0.0  # added to it
    x: tuple[float, ...] = ()  # logits of the knots, rising; none for the sigmoid form
    # probs at the knots, not falling; straight lines between, flat outside
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
