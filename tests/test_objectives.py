import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from src.metrics import LOSSES, METRICS, Counts, metric_named, score_of, sigmoid
from src.objectives import Objective, best_exactly
from src.thresholds import BINS, best_threshold

TUNED = [one for one in METRICS.in_order() if one.tuned]
DECIDING = [one for one in TUNED if one.decides]


def make_rows(seed, n=None):
    """Return labels of both classes and probs, many of them equal or at an end."""
    rng = np.random.default_rng(seed)
    n = n or int(rng.integers(2, 25))
    label = rng.integers(0, 2, n)
    label[:2] = 0, 1
    return label, np.round(np.clip(rng.normal(0.3 + 0.3 * label, 0.4), 0, 1), rng.integers(1, 4))


def test_the_best_threshold_equals_brute_force():
    for seed in range(1000):
        label, prob = make_rows(seed)
        said = prob >= np.append(np.unique(prob), 2.0)[:, None]  # every cut that differs
        fake = label == 1
        cells = (~fake & ~said, ~fake & said, fake & ~said, fake & said)
        tried = Counts(*(cell.sum(axis=1).astype(float) for cell in cells))
        for metric in DECIDING:
            threshold, value = best_threshold(label, prob, metric)
            best = (metric.sign * metric.compute(tried)).max()
            assert value == pytest.approx(metric.sign * best, abs=1e-12), metric.name
            again = score_of(metric, label, prob, prob >= threshold)
            assert again == pytest.approx(value, abs=1e-12), metric.name


@pytest.mark.parametrize("metric", TUNED, ids=lambda one: one.name)
@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_a_histogram_is_near_and_the_end_exact(metric, seed):
    label, prob = make_rows(seed, 400)
    if metric.wants == LOSSES:  # a sure error costs 36 nats exactly, 10 in the middle of its bin
        prob = np.clip(prob, 0.01, 0.99)
    objective = Objective(metric, label)
    rows = objective.arrange(prob)
    if metric.decides:
        want = best_threshold(label, prob, metric)[1]
    else:
        want = score_of(metric, label, prob, label)
    assert objective.exact(rows) == pytest.approx(metric.sign * want, abs=1e-12)
    near = 5e-3 if metric.wants == LOSSES else 1e-9
    assert objective.quick(rows) == pytest.approx(metric.sign * want, abs=near)
    assert objective.quick(rows * 3, 1 / 3) == pytest.approx(objective.quick(rows), abs=1e-2)


def test_auc_of_many_bins_is_near_scikit_learns_and_exact_at_the_end():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 20_000)
    prob = sigmoid(rng.normal(size=20_000) + 2 * label)
    objective, want = Objective(metric_named("auc"), label), roc_auc_score(label, prob)
    rows = objective.arrange(prob)
    assert objective.quick(rows.astype(np.float32)) == pytest.approx(want, abs=1 / BINS)
    assert objective.exact(rows) == pytest.approx(want, abs=1e-12)


def test_the_end_of_a_search_is_exact_and_equals_go_to_the_earlier():
    found = [(0.5, "a"), (0.7, "b"), (0.6, "c"), (0.7, "d")]
    assert best_exactly(found, {"a": 0.1, "b": 0.2, "c": 0.9, "d": 0.3}.__getitem__) == "c"
    assert best_exactly(found, lambda _: 1.0) == "a"
    many = [(-float(i), i) for i in range(30)]
    assert best_exactly(many, float) == 4  # none but the five that look best is scored
