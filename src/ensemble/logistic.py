"""Logistic regression of few columns: for calibration and stacking (scikit-learn loads slowly)."""

import numpy as np
from numpy.typing import NDArray

from src.metrics import sigmoid

FloatArray = NDArray[np.float64]
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
