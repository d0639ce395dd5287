import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from src import metrics

SPECIAL = [0.0, -0.0, 5e-324, 1e-310, 0.1, math.nextafter(0.1, 1), 0.5, math.nextafter(0.5, 0),
           math.nextafter(0.5, 1), math.nextafter(1, 0), 1.0]  # fmt: skip
PROBS = st.one_of(st.sampled_from(SPECIAL), st.floats(0, 1), st.sampled_from([0.25, 0.75]))
ROWS = st.lists(st.tuples(st.integers(0, 1), PROBS), min_size=1, max_size=40)


def sk_macro(label, pred):
    return sk.f1_score(label, pred, labels=[0, 1], average="macro", zero_division=0)


def exact_macro(label, pred):
    """Return macro-F1 as a fraction of integers: an oracle without rounding."""
    total = Fraction(0)
    for k in (0, 1):
        right = sum(a == b == k for a, b in zip(label, pred, strict=True))
        both = sum(a == k for a in label) + sum(b == k for b in pred)
        total += Fraction(2 * right, both) if both else 0
    return total / 2


def at(label, prob, cut):
    return exact_macro(label.tolist(), [int(p >= cut) for p in prob.tolist()])


def brute_force(label, prob):
    """Score every distinct decision that a threshold can make."""
    return max(at(label, prob, cut) for cut in {*prob.tolist(), 2.0})


def split(rows):
    label, prob = zip(*rows, strict=True)
    return np.array(label), np.array(prob)


@given(ROWS)
def test_best_threshold_is_the_optimum(rows):
    label, prob = split(rows)
    threshold, score = metrics.best_threshold(label, prob)
    assert score == pytest.approx(float(brute_force(label, prob)), abs=1e-12)
    assert score == pytest.approx(float(at(label, prob, threshold)), abs=1e-12)
    assert 0 <= threshold <= metrics.ABOVE_ONE


@given(ROWS)
def test_best_threshold_lies_half_way_between_two_probs(rows):
    label, prob = split(rows)
    threshold, _ = metrics.best_threshold(label, prob)
    distinct = np.unique(prob)
    below, above = distinct[distinct < threshold], distinct[distinct >= threshold]
    if not below.size:
        assert threshold == 0.0
    elif not above.size:
        assert threshold == metrics.ABOVE_ONE
    else:
        middle = below[-1] + (above[0] - below[-1]) / 2
        assert threshold == (middle if middle > below[-1] else above[0])


@given(ROWS, st.randoms(use_true_random=False))
def test_best_threshold_forgets_order_and_copies(rows, random):
    want = metrics.best_threshold(*split(rows))
    mixed = random.sample(rows, len(rows))
    assert metrics.best_threshold(*split(mixed)) == want
    assert metrics.best_threshold(*split(rows * 3)) == (want[0], pytest.approx(want[1], abs=1e-12))


@given(ROWS)
def test_no_equally_good_cut_is_closer_to_a_half(rows):
    label, prob = split(rows)
    threshold, score = metrics.best_threshold(label, prob)
    distinct = np.unique(prob)
    middle = distinct[:-1] + np.diff(distinct) / 2
    cuts = [0.0, metrics.ABOVE_ONE, *np.where(middle > distinct[:-1], middle, distinct[1:])]
    good = [cut for cut in cuts if at(label, prob, cut) >= score - 1e-12]
    assert abs(threshold - 0.5) == min(abs(cut - 0.5) for cut in good)


def test_neighbouring_floats_are_told_apart():
    low = 0.3
    high = math.nextafter(low, 1)
    threshold, score = metrics.best_threshold([0, 1], [low, high])
    assert (threshold, score) == (high, 1.0)


@pytest.mark.parametrize(("label", "want"), [(0, metrics.ABOVE_ONE), (1, 0.0)])
def test_a_single_class_takes_the_degenerate_cut_or_one_as_good(label, want):
    threshold, score = metrics.best_threshold([label] * 3, [0.2, 0.4, 0.6])
    assert (threshold, score) == (want, 0.5)


def test_equal_cuts_equally_far_from_a_half_take_the_lower():
    # Cutting at .25 or at .75 leaves one mistake of the same kind on each side.
    label = [0, 1, 0, 1]
    threshold, _ = metrics.best_threshold(label, [0.0, 0.5, 0.5, 1.0])
    assert threshold == 0.25


@given(ROWS, st.sampled_from([1, 2, 64, 4096]))
def test_histogram_threshold_is_the_best_multiple(rows, bins):
    label, prob = split(rows)
    threshold, score = metrics.histogram_threshold(label, prob, bins)
    assert score == pytest.approx(float(at(label, prob, threshold)), abs=1e-12)
    if bins <= 64:
        cuts = [*(np.arange(bins + 1) / bins), 2.0]
        best = max(at(label, prob, cut) for cut in cuts)
        assert score == pytest.approx(float(best), abs=1e-12)


def test_histogram_threshold_is_close_to_the_exact_one():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 20_000)
    prob = metrics.sigmoid(rng.normal(size=20_000) + label)
    exact = metrics.best_threshold(label, prob)[1]
    assert exact - 1e-3 < metrics.histogram_threshold(label, prob)[1] <= exact


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30))
def test_decision_scores_agree_with_scikit_learn(rows):
    label, pred = split(rows)
    c = metrics.counts(label, pred)
    assert list(c) == sk.confusion_matrix(label, pred, labels=[0, 1]).ravel().tolist()
    assert metrics.macro_f1(label, pred) == pytest.approx(sk_macro(label, pred), abs=1e-12)
    assert exact_macro(label.tolist(), pred.tolist()) == pytest.approx(sk_macro(label, pred))
    per_class = sk.f1_score(label, pred, labels=[0, 1], average=None, zero_division=0)
    assert [metrics.f1_real(c), metrics.f1_fake(c)] == pytest.approx(list(per_class))
    assert metrics.accuracy(c) == pytest.approx(sk.accuracy_score(label, pred))
    for ours, theirs in (
        (metrics.precision, sk.precision_score),
        (metrics.recall, sk.recall_score),
    ):
        assert ours(c) == pytest.approx(theirs(label, pred, zero_division=0))


def test_macro_f1_is_not_accuracy():
    label, pred = [0, 0, 0, 1], [0, 0, 0, 0]
    assert metrics.macro_f1(label, pred) == pytest.approx((6 / 7 + 0) / 2)
    assert metrics.accuracy(metrics.counts(label, pred)) == 0.75


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=2, max_size=30))
def test_auc_counts_ties_half(scores):
    label = np.arange(len(scores)) % 2
    assert metrics.auc(label, scores) == pytest.approx(sk.roc_auc_score(label, scores), abs=1e-12)


def test_auc_of_one_class_is_nan():
    assert math.isnan(metrics.auc([1, 1], [0.1, 0.2]))


def test_log_loss_agrees_with_scikit_learn_and_does_not_clip():
    rng = np.random.default_rng(0)
    label, logit = rng.integers(0, 2, 200), rng.normal(size=200) * 3
    want = sk.log_loss(label, metrics.sigmoid(logit), labels=[0, 1])
    assert metrics.log_loss(label, logit) == pytest.approx(want, rel=1e-12)
    assert metrics.log_loss([0, 1], [1000.0, 1000.0]) == 500.0


def test_sigmoid_neither_overflows_nor_warns():
    assert metrics.sigmoid([-1e4, 0.0, 1e4]).tolist() == [0.0, 0.5, 1.0]
    assert metrics.sigmoid(np.float32(1)).dtype == np.float64


def test_classification_report():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 300)
    logit = rng.normal(size=300) + label
    prob = metrics.sigmoid(logit)
    report = metrics.classification_report(label, logit, 0.6)
    theirs = sk.classification_report(label, prob >= 0.6, output_dict=True)
    assert report == pytest.approx(
        {
            "accuracy": theirs["accuracy"],
            "macro_f1": theirs["macro avg"]["f1-score"],
            "f1_real": theirs["0"]["f1-score"],
            "f1_fake": theirs["1"]["f1-score"],
            "precision": theirs["1"]["precision"],
            "recall": theirs["1"]["recall"],
            "auc": sk.roc_auc_score(label, logit),
        }
    )


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
@pytest.mark.parametrize("function", [metrics.best_threshold, metrics.histogram_threshold])
def test_thresholds_refuse_what_is_no_probability(function, label, prob, match):
    with pytest.raises(ValueError, match=match):
        function(label, prob)


def test_bins_must_be_a_power_of_two():
    with pytest.raises(ValueError, match="power of two"):
        metrics.histogram_threshold([0, 1], [0.1, 0.9], bins=1000)


@given(ROWS, st.sampled_from([64, 4096]))
def test_the_score_alone_equals_the_histogram_threshold(rows, bins):
    label, prob = split(rows)
    offset = label * np.int64(bins + 1)
    reals_first = np.argsort(label, kind="stable")
    n_real = int((label == 0).sum())
    assert metrics.best_score_of_bins(prob[reals_first] * bins, n_real, bins) == pytest.approx(
        metrics.threshold_of_bins(prob, offset, bins)[1], abs=1e-12
    )


@given(ROWS)
def test_plug_in_with_certain_beliefs_is_the_exact_threshold(rows):
    label, prob = split(rows)
    threshold = metrics.plug_in_threshold(label.astype(float), prob)
    found = metrics.macro_f1(label, prob >= threshold)
    assert found == pytest.approx(metrics.best_threshold(label, prob)[1])
