"""Strategies that learn no weights: means, ranks, and the best member alone.

Strategies that learn weights by log loss: smooth, fast, and far less optimistic than F1.
"""

import numpy as np
from numpy.typing import NDArray

from src.ensemble.calibration import CALIBRATIONS, fit_logistic, fit_rank
from src.ensemble.rule import Rule, vote
from src.ensemble.strategy import (
    INCUMBENT,
    Search,
    equal_weights,
    plain_rule,
    strategy,
    with_best_threshold,
)
from src.metrics import log_odds, sigmoid
from src.thresholds import best_threshold, plug_in_threshold

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@strategy(INCUMBENT, voting="soft", rung=0, scale_matters=False)
def fit_incumbent(_label: IntArray, logits: FloatArray, _search: Search) -> Rule:
    """Take the mean of probs at 0.5: nothing is learned."""
    return plain_rule("soft", logits.shape[1])


@strategy("best-member", voting="soft", rung=1, min_members=2, scale_matters=False)
def fit_best_member(label: IntArray, logits: FloatArray, _search: Search) -> Rule:
    """Take the member with the best macro-F1, each at its exact threshold, and drop the others."""
    scores = [best_threshold(label, prob)[1] for prob in sigmoid(logits.T)]
    weights = np.zeros(logits.shape[1])
    weights[int(np.argmax(scores))] = 1.0
    return with_best_threshold(label, logits, "soft", weights)


@strategy("mean", voting="soft", rung=2)
def fit_mean(label: IntArray, logits: FloatArray, _search: Search) -> Rule:
    """Take the mean of probs at the exact best threshold."""
    return with_best_threshold(label, logits, "soft", equal_weights(logits.shape[1]))


@strategy("mean-plug-in", voting="soft", rung=3)
def fit_mean_plug_in(label: IntArray, logits: FloatArray, _search: Search) -> Rule:
    """Take the mean of probs; the threshold maximises the F1 that Platt-calibrated probs expect.

    Steadier than the exact threshold on a few thousand rows (Ye et al., ICML 2012, "Optimizing
    F-measures: a tale of two approaches": the plug-in rule, here for macro-F1).
    """
    rule = plain_rule("soft", logits.shape[1])
    prob = vote(rule, logits).prob
    logit = log_odds(prob, 1e-12)
    believed = CALIBRATIONS.get("platt")(label, logit).prob(logit)
    threshold = plug_in_threshold(believed, prob)
    return Rule("soft", rule.weights, rule.thresholds, threshold)


@strategy("logit-mean", voting="logit", rung=3, min_members=2)
def fit_logit_mean(label: IntArray, logits: FloatArray, _search: Search) -> Rule:
    """Take the mean of logits at the exact best threshold."""
    return with_best_threshold(label, logits, "logit", equal_weights(logits.shape[1]))


@strategy("rank-mean", voting="rank", rung=4, min_members=2, scale_matters=False)
def fit_rank_mean(label: IntArray, logits: FloatArray, _search: Search) -> Rule:
    """Take the mean of ranks among the out-of-fold rows, at the exact best threshold."""
    curves = tuple(fit_rank(logit) for logit in logits.T)
    return with_best_threshold(label, logits, "rank", equal_weights(logits.shape[1]), curves=curves)


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
