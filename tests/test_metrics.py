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


def split(rows):
    label, prob = zip(*rows, strict=True)
    return np.array(label), np.array(prob)


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
