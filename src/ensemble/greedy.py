"""Greedy selection with replacement, the threshold solved inside every candidate.

Caruana, Niculescu-Mizil, Crew & Ksikes, "Ensemble selection from libraries of models", ICML 2004;
bags of models and rows as in their section 2.3.
"""

import numpy as np
from numpy.typing import NDArray

from src.ensemble.rule import Rule
from src.ensemble.strategy import Search, strategy, with_best_threshold
from src.metrics import sigmoid
from src.thresholds import BINS, best_score_of_bins

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
ROUNDS = 50
BAGS = 10
FEWEST_ROWS = 50  # of a bag


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
    """Select members one by one; each candidate is scored at its best threshold (histogram).

    Ties go to a member that is in already, then to the first. The weights are those of the round
    with the best score, the earliest of equals.

    Args:
        label: (n,) 0/1.
        probs: (m, n) in [0, 1].
        rounds: how often a member is added.

    Returns:
        (m,) weights of sum 1.
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
