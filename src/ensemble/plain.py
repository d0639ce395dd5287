"""Strategies that learn no weights: means, ranks, and the best member alone."""

import numpy as np
from numpy.typing import NDArray

from src.ensemble.curves import CALIBRATIONS, fit_rank
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
