"""Greedy selection against a plain loop with scikit-learn's F1."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from src.ensemble.search import STRATEGIES, Search
from src.ensemble.strategies import greedy_weights
from src.thresholds import BINS

RNG = np.random.default_rng(5)
LABEL = RNG.integers(0, 2, 300)
# Multiples of 1/64: sums stay exact, so that both loops see the same ties.
PROBS = np.round(
    64 * np.clip(0.5 + (LABEL - 0.5) * [[0.4], [0.3], [0.1]] + RNG.normal(size=(3, 300)) / 4, 0, 1)
) / 64  # fmt: skip


def slow_greedy(label, probs, rounds):
    def best(prob):
        cuts = [*np.arange(BINS + 1) / BINS, 2.0]
        cuts = [c for c in cuts if c in {0.0, 2.0} or (np.abs(prob - c) < 1 / BINS).any()]
        return max(f1_score(label, prob >= cut, average="macro", zero_division=0) for cut in cuts)

    picks, history = [], []
    for _ in range(rounds):
        scores = [best(probs[[*picks, m]].mean(axis=0)) for m in range(len(probs))]
        top = [m for m in range(len(probs)) if scores[m] >= max(scores) - 1e-12]
        inside = [m for m in top if m in picks]
        picks.append((inside or top)[0])
        history.append((scores[picks[-1]], list(picks)))
    score = max(s for s, _ in history)
    picks = next(p for s, p in history if s >= score - 1e-12)
    return np.bincount(picks, minlength=len(probs)) / len(picks)


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_equals_a_plain_loop(rounds):
    assert greedy_weights(LABEL, PROBS, rounds) == pytest.approx(slow_greedy(LABEL, PROBS, rounds))


def test_a_member_twice_shares_the_weight_of_the_first():
    doubled = np.concatenate([PROBS, PROBS[:1]])
    weights = greedy_weights(LABEL, doubled)
    assert weights[3] == 0
    assert weights[:3] == pytest.approx(greedy_weights(LABEL, PROBS))


def test_bags_follow_the_seed():
    logits = np.concatenate([PROBS, PROBS + RNG.normal(size=(3, 300)) / 9]).T * 8 - 4
    fit = STRATEGIES.get("greedy-bagged").fit
    first = fit(LABEL, logits, Search(seed=1))
    assert np.array_equal(first.weights, fit(LABEL, logits, Search(seed=1)).weights)
    assert not np.array_equal(first.weights, fit(LABEL, logits, Search(seed=2)).weights)
    assert first.weights.sum() == pytest.approx(1)
