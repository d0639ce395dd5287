import tracemalloc

import numpy as np
import pytest
from scipy.stats import binomtest

from src.bootstrap import bootstrap_scores, wilson_interval
from src.metrics import MACRO_F1, metric_named, score_of

RNG = np.random.default_rng(0)
GROUP = RNG.integers(0, 60, 400)
LABEL = RNG.integers(0, 2, 400)
PREDS = [np.where(RNG.random(400) < p, LABEL, 1 - LABEL) for p in (0.9, 0.8)]
PROBS = [np.clip(0.1 + 0.6 * p + 0.2 * RNG.random(400).round(2), 0, 1) for p in PREDS]
ANSWERS = list(zip(PROBS, PREDS, strict=True))


def bootstrap_macro_f1(label, preds, group, **rest):
    return bootstrap_scores(MACRO_F1, label, [(p * 0.5, p) for p in preds], group, **rest)


def naive(replicates, seed, metric=MACRO_F1):
    """Draw groups with replacement, put their rows together and score them."""
    rng = np.random.default_rng(seed)
    names = np.unique(GROUP)
    rows_of = {g: np.flatnonzero(g == GROUP) for g in names}
    scores = []
    for _ in range(replicates):
        rows = np.concatenate([rows_of[g] for g in rng.choice(names, names.size)])
        scores.append([score_of(metric, LABEL[rows], *(a[rows] for a in one)) for one in ANSWERS])
    return np.array(scores)


@pytest.mark.parametrize("name", ["macro_f1", "mcc", "auc", "tpr@fpr=10%", "log_loss"])
def test_agrees_with_drawing_groups_one_by_one(name):
    metric = metric_named(name)
    ours = bootstrap_scores(metric, LABEL, ANSWERS, GROUP, seed=0, replicates=2000)
    theirs = naive(600, 1, metric)
    assert ours.shape == (2000, 2)
    spread = theirs.std(axis=0)
    assert abs(ours.mean(axis=0) - theirs.mean(axis=0)) / spread == pytest.approx(0, abs=0.25)
    assert ours.std(axis=0) == pytest.approx(spread, rel=0.15)
    ours_gain, their_gain = (s[:, 0] - s[:, 1] for s in (ours, theirs))
    assert ours_gain.std() == pytest.approx(their_gain.std(), rel=0.15)


@pytest.mark.parametrize(("name", "off"), [("auc", 1e-3), ("tpr@fpr=0.1%", 1e-2)])
def test_of_many_rows_ranks_are_drawn_to_one_bin(name, off):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 80_000)
    prob = 1 / (1 + np.exp(-rng.normal(label)))
    metric, group = metric_named(name), np.arange(80_000)
    draws = bootstrap_scores(metric, label, [(prob, label)], group, seed=0, replicates=40)
    assert draws.mean() == pytest.approx(score_of(metric, label, prob, label), abs=off)


def test_forgets_order_of_rows_names_of_groups_and_copies_of_rows():
    want = bootstrap_macro_f1(LABEL, PREDS, GROUP, seed=3)
    order = RNG.permutation(400)
    mixed = bootstrap_macro_f1(LABEL[order], [p[order] for p in PREDS], 1000 - GROUP[order], seed=3)
    assert np.array_equal(mixed, want)
    twice = bootstrap_macro_f1(
        np.tile(LABEL, 2), [np.tile(p, 2) for p in PREDS], np.tile(GROUP, 2), seed=3
    )
    assert twice == pytest.approx(want, abs=1e-12)


def test_equal_decisions_have_no_gain_and_no_error():
    draws = bootstrap_macro_f1(LABEL, [PREDS[0], PREDS[0]], GROUP, seed=0)
    assert np.array_equal(draws[:, 0], draws[:, 1])


def test_whole_groups_are_drawn():
    # Ten copies of each row in one group carry no more than one row: same spread.
    rows = np.arange(400)
    single = bootstrap_macro_f1(LABEL, PREDS[:1], rows, seed=0).std()
    copies = bootstrap_macro_f1(
        np.repeat(LABEL, 10), [np.repeat(PREDS[0], 10)], np.repeat(rows, 10), seed=0
    ).std()
    as_if_new = bootstrap_macro_f1(
        np.repeat(LABEL, 10), [np.repeat(PREDS[0], 10)], np.arange(4000), seed=0
    ).std()
    assert copies == pytest.approx(single)
    assert as_if_new < 0.5 * single


def test_memory_stays_bounded_for_a_hundred_thousand_groups():
    rng = np.random.default_rng(0)
    group = np.arange(100_000)
    label = rng.integers(0, 2, 100_000)
    tracemalloc.start()
    bootstrap_macro_f1(label, [1 - label, label], group, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 2**20


def test_wilsons_interval_is_scipys():
    hits, trials = np.array([0, 1, 7, 50, 50]), np.array([4, 3, 50, 50, 300])
    low, high = wilson_interval(hits, trials)
    for k, n, *found in zip(hits, trials, low, high, strict=True):
        limits = binomtest(int(k), int(n)).proportion_ci(method="wilson")
        assert found == pytest.approx([limits.low, limits.high], abs=1e-12)
    assert np.isnan(wilson_interval(0, 0)).all()
