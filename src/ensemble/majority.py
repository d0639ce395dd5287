"""Strategies of hard voting: members decide, the (weighted) majority wins."""

import numpy as np
from numpy.typing import NDArray

from src.ensemble.rule import TIE, Rule, mean_prob
from src.ensemble.strategy import Search, equal_weights, plain_rule, strategy
from src.ensemble.studies import search_weights
from src.metrics import macro_f1, sigmoid
from src.thresholds import best_threshold

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@strategy("majority@0.5", voting="hard", rung=1)
def fit_plain_majority(_label: IntArray, logits: FloatArray, _search: Search) -> Rule:
    """Take the majority of the members' decisions at 0.5: nothing is learned."""
    return plain_rule("hard", logits.shape[1])


@strategy("majority", voting="hard", rung=2)
def fit_majority(label: IntArray, logits: FloatArray, _search: Search) -> Rule:
    """Let every member decide at its own exact best threshold; take the plain majority."""
    thresholds = np.array([best_threshold(label, prob)[0] for prob in sigmoid(logits.T)])
    return Rule("hard", equal_weights(logits.shape[1]), thresholds, 0.5)


@strategy(
    "weighted-majority", voting="hard", rung=12, min_members=3, sampler="TPESampler", trials=100
)
def fit_weighted_majority(label: IntArray, logits: FloatArray, search: Search) -> Rule:
    """Search the weights of the members' votes with TPE."""
    plain = fit_majority(label, logits, search)
    probs = sigmoid(np.ascontiguousarray(logits.T))
    votes = (probs >= plain.thresholds[:, None]).astype(np.float64)

    def score(weights: FloatArray) -> float:
        share = weights @ votes
        pred = share > 0.5 + TIE
        tie = np.abs(share - 0.5) <= TIE
        if tie.any():
            pred[tie] = mean_prob(weights, probs[:, tie]) >= 0.5
        return macro_f1(label, pred)

    weights = search_weights(score, logits.shape[1], search, "TPESampler", [])
    return Rule("hard", weights, plain.thresholds, 0.5)
