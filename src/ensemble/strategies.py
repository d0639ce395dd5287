"""Strategies without trials: means and ranks, the best member, log loss, greedy selection."""

import numpy as np
from numpy.typing import NDArray

from src.ensemble.calibration import CALIBRATIONS, fit_logistic, fit_rank
from src.ensemble.predictions import ALONE, fit_threshold
from src.ensemble.rule import Rule, equal_weights, mean_prob, plain_rule, vote
from src.ensemble.strategy import DECIDING, INCUMBENT, Search, strategy, with_best_threshold
from src.metrics import LOSSES, MACRO_F1, RANKS, Metric, log_odds, sigmoid
from src.objectives import Objective, best_exactly
from src.thresholds import EQUALLY_GOOD, plug_in_threshold

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
TINY = 1e-12  # how near to 0 and 1 a prob may come
ROUNDS = 50  # of a greedy selection
BAGS = 10
FEWEST_ROWS = 50  # of a bag


@strategy(INCUMBENT, voting="soft", rung=0, suits=DECIDING, scale_matters=False)
def fit_incumbent(_label: IntArray, logits: FloatArray, _search: Search) -> Rule:
    """Take the mean of probs at 0.5: nothing is learned."""
    return plain_rule("soft", equal_weights(logits.shape[1]))


@strategy("best-member", voting="soft", rung=1, min_members=2, scale_matters=False, weighs=True)
def fit_best_member(label: IntArray, logits: FloatArray, search: Search) -> Rule:
    """Take the best member, each at its exact threshold, and drop the others."""
    metric = search.metric
    scores = [metric.sign * fit_threshold(label, m, ALONE, metric)[1] for m in logits.T]
    weights = np.zeros(logits.shape[1])
    weights[int(np.nanargmax(scores))] = 1.0
    return with_best_threshold(label, logits, search, "soft", weights)


@strategy("mean", voting="soft", rung=2)
def fit_mean(label: IntArray, logits: FloatArray, search: Search) -> Rule:
    """Take the mean of probs at the exact best threshold."""
    return with_best_threshold(label, logits, search, "soft", equal_weights(logits.shape[1]))


@strategy("mean-plug-in", voting="soft", rung=3, suits=DECIDING)
def fit_mean_plug_in(label: IntArray, logits: FloatArray, search: Search) -> Rule:
    """Take the mean of probs; the threshold is the best by what Platt-calibrated probs expect.

    Steadier than the exact threshold on a few thousand rows (Ye et al., ICML 2012, "Optimizing
    F-measures: a tale of two approaches": the plug-in rule, here for any metric of counts).
    """
    rule = plain_rule("soft", equal_weights(logits.shape[1]))
    prob = vote(rule, logits).prob
    logit = log_odds(prob, TINY)
    believed = CALIBRATIONS.get("platt")(label, logit).prob(logit)
    return Rule(
        "soft", rule.weights, rule.thresholds, plug_in_threshold(believed, prob, search.metric)
    )


@strategy("logit-mean", voting="logit", rung=3, min_members=2)
def fit_logit_mean(label: IntArray, logits: FloatArray, search: Search) -> Rule:
    """Take the mean of logits at the exact best threshold."""
    return with_best_threshold(label, logits, search, "logit", equal_weights(logits.shape[1]))


@strategy(
    "rank-mean", voting="rank", rung=4, min_members=2, suits=(*DECIDING, RANKS), scale_matters=False
)
def fit_rank_mean(label: IntArray, logits: FloatArray, search: Search) -> Rule:
    """Take the mean of ranks among the out-of-fold rows, at the exact best threshold."""
    curves = tuple(fit_rank(logit[~np.isnan(logit)]) for logit in logits.T)
    weights = equal_weights(logits.shape[1])
    return with_best_threshold(label, logits, search, "rank", weights, curves=curves)


@strategy("scaled-logit-mean", voting="stack", rung=5, min_members=2, suits=(LOSSES,), weighs=True)
def fit_scaled_logit_mean(label: IntArray, logits: FloatArray, search: Search) -> Rule:
    """Take the mean of logits, then calibrate it (Platt): a slope and an offset for all members."""
    mean = logits.mean(axis=1, keepdims=True)
    slope, intercept = fit_logistic(label, mean, positive=True)
    weights = equal_weights(logits.shape[1]) * (slope[0] or TINY)  # all of weight 0 would be none
    return with_best_threshold(label, logits, search, "stack", weights, intercept=intercept)


@strategy("log-loss-weights", voting="soft", rung=7, min_members=2, weighs=True)
def fit_log_loss_weights(label: IntArray, logits: FloatArray, search: Search) -> Rule:
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
    return with_best_threshold(label, logits, search, "soft", weights)


@strategy("stack", voting="stack", rung=8, min_members=2, weighs=True)
def fit_stack(label: IntArray, logits: FloatArray, search: Search) -> Rule:
    """Fit a logistic regression on the members' logits (L2; Wolpert 1992), weights >= 0."""
    return _stacked(label, logits, search, positive=True)


@strategy("stack-free", voting="stack", rung=9, min_members=2, weighs=True)
def fit_stack_free(label: IntArray, logits: FloatArray, search: Search) -> Rule:
    """Fit the same with weights of any sign: a member may correct another."""
    return _stacked(label, logits, search, positive=False)


def _stacked(label: IntArray, logits: FloatArray, search: Search, *, positive: bool) -> Rule:
    weights, intercept = fit_logistic(label, logits, l2=1.0, positive=positive)
    if not weights.any():  # all pushed to 0, or constants: nothing would be left to vote
        weights = equal_weights(logits.shape[1])
    return with_best_threshold(label, logits, search, "stack", weights, intercept=intercept)


@strategy("greedy", voting="soft", rung=10, min_members=2, weighs=True)
def fit_greedy(label: IntArray, logits: FloatArray, search: Search) -> Rule:
    """Add the member that helps most, 50 times, with replacement; keep the best round."""
    probs = sigmoid(np.ascontiguousarray(logits.T))
    weights = greedy_weights(label, probs, search.metric)
    return with_best_threshold(label, logits, search, "soft", weights)


@strategy("greedy-bagged", voting="soft", rung=11, min_members=4, weighs=True)
def fit_bagged_greedy(label: IntArray, logits: FloatArray, search: Search) -> Rule:
    """Average ten greedy selections, each from half the members on a bootstrap of half the rows."""
    probs = sigmoid(np.ascontiguousarray(logits.T))
    n_members, n = probs.shape
    rng = np.random.default_rng(search.seed)
    total = np.zeros(n_members)
    for _ in range(BAGS):
        some = np.sort(rng.choice(n_members, (n_members + 1) // 2, replace=False))
        rows = np.sort(rng.integers(0, n, max(FEWEST_ROWS, n // 2)))
        total[some] += greedy_weights(label[rows], probs[np.ix_(some, rows)], search.metric)
    return with_best_threshold(label, logits, search, "soft", total / BAGS)


def greedy_weights(
    label: IntArray, probs: FloatArray, metric: Metric = MACRO_F1, rounds: int = ROUNDS
) -> FloatArray:
    """Return (m,) weights of sum 1 by adding members one by one, from (m, n) probs.

    Each candidate is scored from a histogram, at its best threshold where there is one. Ties go to
    a member that is in already, then to the first; the weights are those of the round with the best
    exact score, the earliest of equals. Caruana, Niculescu-Mizil, Crew & Ksikes, "Ensemble
    selection from libraries of models", ICML 2004; bags of models and rows as in their section 2.3.
    """
    objective = Objective(metric, label)
    probs = objective.arrange(probs)
    picks, total = np.zeros(len(probs)), np.zeros(probs.shape[1])
    found: list[tuple[float, FloatArray]] = []
    for number in range(1, rounds + 1):
        scores = np.array([objective.quick(total + prob, 1 / number) for prob in probs])
        top = np.flatnonzero(scores >= scores.max() - EQUALLY_GOOD)
        inside = top[picks[top] > 0]
        pick = int(inside[0] if inside.size else top[0])
        picks[pick] += 1
        total += probs[pick]
        found.append((float(scores[pick]), picks / number))
    return best_exactly(found, lambda weights: objective.exact(mean_prob(weights, probs)))
