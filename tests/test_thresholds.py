import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src import metrics, thresholds
from tests.test_metrics import ROWS, exact_macro, split


def at(label, prob, cut):
    return exact_macro(label.tolist(), [int(p >= cut) for p in prob.tolist()])


def brute_force(label, prob):
    """Score every distinct decision that a threshold can make."""
    return max(at(label, prob, cut) for cut in {*prob.tolist(), 2.0})


def of_histogram(label, prob, bins=thresholds.BINS):
    counts = np.zeros((2, bins + 1), dtype=np.int64)
    np.add.at(counts, (label, (prob * bins).astype(np.int64)), 1)
    return thresholds.threshold_of_counts(counts)


@given(ROWS)
def test_best_threshold_is_the_optimum(rows):
    label, prob = split(rows)
    threshold, score = thresholds.best_threshold(label, prob)
    assert score == pytest.approx(float(brute_force(label, prob)), abs=1e-12)
    assert score == pytest.approx(float(at(label, prob, threshold)), abs=1e-12)
    assert 0 <= threshold <= thresholds.ABOVE_ONE


@given(ROWS)
def test_best_threshold_lies_half_way_between_two_probs(rows):
    label, prob = split(rows)
    threshold, _ = thresholds.best_threshold(label, prob)
    distinct = np.unique(prob)
    below, above = distinct[distinct < threshold], distinct[distinct >= threshold]
    if not below.size:
        assert threshold == 0.0
    elif not above.size:
        assert threshold == thresholds.ABOVE_ONE
    else:
        middle = below[-1] + (above[0] - below[-1]) / 2
        assert threshold == (middle if middle > below[-1] else above[0])


@given(ROWS, st.randoms(use_true_random=False))
def test_best_threshold_forgets_order_and_copies(rows, random):
    want = thresholds.best_threshold(*split(rows))
    mixed = random.sample(rows, len(rows))
    assert thresholds.best_threshold(*split(mixed)) == want
    copies = thresholds.best_threshold(*split(rows * 3))
    assert copies == (want[0], pytest.approx(want[1], abs=1e-12))


@given(ROWS)
def test_no_equally_good_cut_is_closer_to_a_half(rows):
    label, prob = split(rows)
    threshold, score = thresholds.best_threshold(label, prob)
    distinct = np.unique(prob)
    middle = distinct[:-1] + np.diff(distinct) / 2
    cuts = [0.0, thresholds.ABOVE_ONE, *np.where(middle > distinct[:-1], middle, distinct[1:])]
    good = [cut for cut in cuts if at(label, prob, cut) >= score - 1e-12]
    assert abs(threshold - 0.5) == min(abs(cut - 0.5) for cut in good)


def test_neighbouring_floats_are_told_apart():
    low = 0.3
    high = math.nextafter(low, 1)
    threshold, score = thresholds.best_threshold([0, 1], [low, high])
    assert (threshold, score) == (high, 1.0)


@pytest.mark.parametrize(("label", "want"), [(0, thresholds.ABOVE_ONE), (1, 0.0)])
def test_a_single_class_takes_the_degenerate_cut_or_one_as_good(label, want):
    threshold, score = thresholds.best_threshold([label] * 3, [0.2, 0.4, 0.6])
    assert (threshold, score) == (want, 0.5)


def test_equal_cuts_equally_far_from_a_half_take_the_lower():
    # Cutting at .25 or at .75 leaves one mistake of the same kind on each side.
    label = [0, 1, 0, 1]
    threshold, _ = thresholds.best_threshold(label, [0.0, 0.5, 0.5, 1.0])
    assert threshold == 0.25


@given(ROWS, st.sampled_from([1, 2, 64, 4096]))
def test_histogram_threshold_is_the_best_multiple(rows, bins):
    label, prob = split(rows)
    threshold, score = of_histogram(label, prob, bins)
    assert score == pytest.approx(float(at(label, prob, threshold)), abs=1e-12)
    if bins <= 64:
        cuts = [*(np.arange(bins + 1) / bins), 2.0]
        best = max(at(label, prob, cut) for cut in cuts)
        assert score == pytest.approx(float(best), abs=1e-12)


def test_histogram_threshold_is_close_to_the_exact_one():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 20_000)
    prob = metrics.sigmoid(rng.normal(size=20_000) + label)
    exact = thresholds.best_threshold(label, prob)[1]
    assert exact - 1e-3 < of_histogram(label, prob)[1] <= exact


@pytest.mark.parametrize(
    ("label", "prob", "match"),
    [
        ([], [], "equal"),
        ([0, 1], [0.5], "equal"),
        ([0, 2], [0.5, 0.5], r"labels are \[0, 2\]"),
        ([0, 1], [0.5, np.nan], "row 1 is not finite"),
        ([0, 1], [0.5, np.inf], "row 1 is not finite"),
        ([0, 1], [0.5, 1.5], "1.5"),
        ([0, 1], [-0.1, 0.5], "-0.1"),
    ],
)
def test_a_threshold_is_refused_for_what_is_no_probability(label, prob, match):
    with pytest.raises(ValueError, match=match):
        thresholds.best_threshold(label, prob)


def test_bins_are_a_power_of_two_so_that_multiplying_a_prob_is_exact():
    assert thresholds.BINS.bit_count() == 1


@given(ROWS)
def test_plug_in_with_certain_beliefs_is_the_exact_threshold(rows):
    label, prob = split(rows)
    threshold = thresholds.plug_in_threshold(label.astype(float), prob)
    found = metrics.macro_f1(label, prob >= threshold)
    assert found == pytest.approx(thresholds.best_threshold(label, prob)[1])
