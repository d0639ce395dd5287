"""Strategies that learn weights by log loss: smooth, fast, and far less optimistic than F1."""

import numpy as np
from numpy.typing import NDArray

from src.ensemble.logistic import fit_logistic
from src.ensemble.rule import Rule
from src.ensemble.strategy import Search, equal_weights, strategy, with_best_threshold
from src.metrics import sigmoid

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
TINY = 1e-12


@strategy("log-loss-weights", voting="soft", rung=7, min_members=2)
def fit_log_loss_weights(label: IntArray, logits: FloatArray, _search: Search) -> Rule:
    """Find the weights of sum 1 whose mean prob has the least log loss (SLSQP)."""
    from scipy.optimize import minimize

    probs = sigmoid(np.ascontiguousarray(logits.T))
    n_members, n = probs.shape
    fake = label == 1

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        prob = np.clip(weights @ probs, TINY, 1 - TINY)
        value = -np.log(np.where(fake, prob, 1 - prob)).mean()
        slope = probs @ (np.where(fake, -1 / prob, 1 / (1 - prob))) / n
        return float(value), slope

    found = minimize(
        loss, equal_weights(n_members), jac=True, method="SLSQP",
        bounds=[(0.0, 1.0)] * n_members,
        constraints={
            "type": "eq",
            "fun": lambda w: w.sum() - 1.0,
            "jac": lambda _w: np.ones(n_members),
        },
        options={"maxiter": 200, "ftol": 1e-10},
    )  # fmt: skip
    weights = np.where(found.x < 1e-4, 0.0, found.x)  # a member of no weight need not run
    total = weights.sum()
    weights = weights / total if np.isfinite(total) and total > 0 else equal_weights(n_members)
    return with_best_threshold(label, logits, "soft", weights)


@strategy("stack", voting="stack", rung=8, min_members=2)
def fit_stack(label: IntArray, logits: FloatArray, _search: Search) -> Rule:
    """Fit a logistic regression on the members' logits (L2; Wolpert 1992), weights >= 0."""
    weights, intercept = fit_logistic(label, logits, l2=1.0, positive=True)
    if not weights.any():  # all pushed to 0: nothing would be left to vote
        weights = equal_weights(logits.shape[1])
    return with_best_threshold(label, logits, "stack", weights, intercept=intercept)


@strategy("stack-free", voting="stack", rung=9, min_members=2)
def fit_stack_free(label: IntArray, logits: FloatArray, _search: Search) -> Rule:
    """Fit the same with weights of any sign: a member may correct another."""
    weights, intercept = fit_logistic(label, logits, l2=1.0)
    if not weights.any():  # every member is a constant
        weights = equal_weights(logits.shape[1])
    return with_best_threshold(label, logits, "stack", weights, intercept=intercept)
