"""Strategies without trials: means and ranks, the best member, log loss, greedy selection."""

import numpy as np
from numpy.typing import NDArray

from src.ensemble.calibration import CALIBRATIONS, fit_logistic, fit_rank
from src.ensemble.predictions import fit_threshold
from src.ensemble.rule import Rule, equal_weights, plain_rule, vote
from src.ensemble.strategy import INCUMBENT, Search, strategy, with_best_threshold
from src.metrics import log_odds, sigmoid
from src.thresholds import BINS, best_score_of_bins, plug_in_threshold

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
TINY = 1e-12  # how near to 0 and 1 a prob may come
ROUNDS = 50  # of a greedy selection
BAGS = 10
FEWEST_ROWS = 50  # of a bag


@strategy(INCUMBENT, voting="soft", rung=0, scale_matters=False)
def fit_incumbent(_label: IntArray, logits: FloatArray, _search: Search) -> Rule:
    """Take the mean of probs at 0.5: nothing is learned."""
    return plain_rule("soft", equal_weights(logits.shape[1]))


@strategy("best-member", voting="soft", rung=1, min_members=2, scale_matters=False)
def fit_best_member(label: IntArray, logits: FloatArray, _search: Search) -> Rule:
    """Take the member with the best macro-F1, each at its exact threshold, and drop the others."""
    scores = [fit_threshold(label, logit)[1] for logit in logits.T]
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
    rule = plain_rule("soft", equal_weights(logits.shape[1]))
    prob = vote(rule, logits).prob
    logit = log_odds(prob, TINY)
    believed = CALIBRATIONS.get("platt")(label, logit).prob(logit)
    return Rule("soft", rule.weights, rule.thresholds, plug_in_threshold(believed, prob))


@strategy("logit-mean", voting="logit", rung=3, min_members=2)
def fit_logit_mean(label: IntArray, logits: FloatArray, _search: Search) -> Rule:
    """Take the mean of logits at the exact best threshold."""
    return with_best_threshold(label, logits, "logit", equal_weights(logits.shape[1]))


@strategy("rank-mean", voting="rank", rung=4, min_members=2, scale_matters=False)
def fit_rank_mean(label: IntArray, logits: FloatArray, _search: Search) -> Rule:
    """Take the mean of ranks among the out-of-fold rows, at the exact best threshold."""
    curves = tuple(fit_rank(logit) for logit in logits.T)
    return with_best_threshold(label, logits, "rank", equal_weights(logits.shape[1]), curves=curves)


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
    return _stacked(label, logits, positive=True)


@strategy("stack-free", voting="stack", rung=9, min_members=2)
def fit_stack_free(label: IntArray, logits: FloatArray, _search: Search) -> Rule:
    """Fit the same with weights of any sign: a member may correct another."""
    return _stacked(label, logits, positive=False)


def _stacked(label: IntArray, logits: FloatArray, *, positive: bool) -> Rule:
    weights, intercept = fit_logistic(label, logits, l2=1.0, positive=positive)
    if not weights.any():  # all pushed to 0, or constants: nothing would be left to vote
        weights = equal_weights(logits.shape[1])
    return with_best_threshold(label, logits, "stack", weights, intercept=intercept)


@strategy("greedy", voting="soft", rung=10, min_members=2)
def fit_greedy(label: IntArray, logits: FloatArray, _search: Search) -> Rule:
    """Add the member that helps macro-F1 most, 50 times, with replacement; keep the best round."""
    probs = sigmoid(np.ascontiguousarray(logits.T))
    return with_best_threshold(label, logits, "soft", greedy_weights(label, probs))


@strategy("greedy-bagged", voting="soft", rung=11, min_members=4)
def fit_bagged_greedy(label: IntArray, logits: FloatArray, search: Search) -> Rule:
    """Average ten greedy selections, each from half the members on a bootstrap of half the rows."""
    probs = sigmoid(np.ascontiguousarray(logits.T))
    n_members, n = probs.shape
    rng = np.random.default_rng(search.seed)
    total = np.zeros(n_members)
    for _ in range(BAGS):
        some = np.sort(rng.choice(n_members, (n_members + 1) // 2, replace=False))
        rows = np.sort(rng.integers(0, n, max(FEWEST_ROWS, n // 2)))
        total[some] += greedy_weights(label[rows], probs[np.ix_(some, rows)])
    return with_best_threshold(label, logits, "soft", total / BAGS)


def greedy_weights(label: IntArray, probs: FloatArray, rounds: int = ROUNDS) -> FloatArray:
    """Return (m,) weights of sum 1 by adding members one by one, from (m, n) probs.

    Each candidate is scored at its best threshold (histogram). Ties go to a member that is in
    already, then to the first; the weights are those of the round with the best score, the
    earliest of equals. Caruana, Niculescu-Mizil, Crew & Ksikes, "Ensemble selection from libraries
    of models", ICML 2004; bags of models and rows as in their section 2.3.
    """
    n_members = len(probs)
    n_real = int(np.count_nonzero(label == 0))
    probs = np.ascontiguousarray(probs[:, np.argsort(label, kind="stable")])
    picks = np.zeros(n_members)
    total = np.zeros(probs.shape[1])
    best_score, best_picks = -1.0, picks
    for number in range(1, rounds + 1):
        scores = np.array(
            [best_score_of_bins((total + prob) * (BINS / number), n_real) for prob in probs]
        )
        top = np.flatnonzero(scores >= scores.max() - 1e-12)
        inside = top[picks[top] > 0]
        pick = int(inside[0] if inside.size else top[0])
        picks[pick] += 1
        total += probs[pick]
        if scores[pick] > best_score + 1e-12:
            best_score, best_picks = float(scores[pick]), picks.copy()
    return best_picks / best_picks.sum()
