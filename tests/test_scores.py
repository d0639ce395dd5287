import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn import metrics as sk

from src import scores
from src.metrics import auc, counts
from src.reporting.plots import expected_calibration_error

EXACT = 1e-9


def draw(seed=0, n=300, ties=0):
    """Return labels and probs; with ties, probs of so many distinct values."""
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.4).astype(int)
    prob = 1 / (1 + np.exp(-(rng.normal(size=n) + 1.2 * label - 0.5)))
    return label, np.round(prob * ties) / ties if ties else prob


CASES = [draw(seed, ties=ties) for seed in range(3) for ties in (0, 7, 40)]
few_labels = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 12), st.integers(0, 3)), min_size=1, max_size=40
)


@pytest.mark.parametrize(("label", "prob"), CASES)
def test_area_and_average_precision_equal_scikit_learn(label, prob):
    curve = scores.roc(label, prob)
    assert scores.area(curve) == pytest.approx(sk.roc_auc_score(label, prob), abs=EXACT)
    assert scores.area(curve) == pytest.approx(auc(label, prob), abs=EXACT)
    want = sk.average_precision_score(label, prob)
    assert scores.average_precision(curve) == pytest.approx(want, abs=EXACT)


@pytest.mark.parametrize(("label", "prob"), CASES)
def test_the_curve_is_scikit_learns(label, prob):
    fpr, tpr, _ = sk.roc_curve(label, prob, drop_intermediate=False)
    curve = scores.roc(label, prob)
    assert curve.fp / curve.fp[-1] == pytest.approx(fpr, abs=EXACT)
    assert curve.tp / curve.tp[-1] == pytest.approx(tpr, abs=EXACT)
    for cut, fp, tp in zip(*curve, strict=True):
        c = counts(label, prob >= cut)
        assert (c.fp, c.tp) == (fp, tp)


@pytest.mark.parametrize(("label", "prob"), CASES)
def test_eer_equals_brentq_on_the_interpolated_curve(label, prob):
    fpr, tpr, _ = sk.roc_curve(label, prob, drop_intermediate=False)
    line = interp1d(fpr, tpr)
    want = brentq(lambda x: 1 - x - line(x), 0, 1, xtol=1e-14, rtol=np.float64(1e-14))
    assert scores.eer(scores.roc(label, prob)) == pytest.approx(want, abs=EXACT)


def test_eer_by_hand_and_the_other_definition():
    # Cuts from the top: fake, real, fake, real, real. FPR 0 1/3 1/3 .. against FNR 1/2 1/2 0 ..
    label, prob = [1, 0, 1, 0, 0], [0.9, 0.8, 0.7, 0.6, 0.1]
    curve = scores.roc(label, prob)
    assert scores.eer(curve) == pytest.approx(1 / 3)
    fpr, tpr, _ = sk.roc_curve(label, prob, drop_intermediate=False)
    assert fpr[np.argmin(np.abs(1 - tpr - fpr))] == pytest.approx(1 / 3)
    # One cut above all but a tie of everything: the straight line meets the diagonal at 1/2.
    assert scores.eer(scores.roc([0, 1, 1], [0.5, 0.5, 0.5])) == pytest.approx(0.5)
    # Two points (0, 0.5) and (0.5, 1) of (FPR, TPR): the lines meet at 0.25, argmin says 0 or 0.5.
    assert scores.eer(scores.roc([1, 1, 0, 0], [0.9, 0.5, 0.5, 0.1])) == pytest.approx(0.25)


@pytest.mark.parametrize(("label", "prob"), CASES)
def test_the_cut_at_the_eer_is_the_closest_that_can_be_made(label, prob):
    cut = scores.eer_cut(scores.roc(label, prob))
    label = np.asarray(label)

    def gap(threshold):
        c = counts(label, prob >= threshold)
        return abs(c.fp / (c.fp + c.tn) - c.fn / (c.fn + c.tp)), scores.hter(c)

    every = [gap(t) for t in [*np.unique(prob), 2.0]]
    assert gap(cut)[0] == pytest.approx(min(every)[0], abs=EXACT)
    close = [h for g, h in every if g <= min(every)[0] + 1e-12]
    assert gap(cut)[1] == pytest.approx(min(close), abs=EXACT)


@pytest.mark.parametrize("limit", [0.0, 0.001, 0.01, 0.1, 1.0])
@pytest.mark.parametrize(("label", "prob"), CASES)
def test_tpr_at_fpr_is_the_last_point_within_the_limit(label, prob, limit):
    fpr, tpr, _ = sk.roc_curve(label, prob, drop_intermediate=False)
    want = tpr[fpr <= limit][-1]
    assert scores.tpr_at_fpr(scores.roc(label, prob), limit) == pytest.approx(want, abs=EXACT)
    # FLIP: real = 1, scored by P(real).
    fpr, tpr, _ = sk.roc_curve(1 - label, -prob, drop_intermediate=False)
    got = scores.tpr_at_fpr(scores.swapped(scores.roc(label, prob)), limit)
    assert got == pytest.approx(tpr[fpr <= limit][-1], abs=EXACT)


def test_tpr_at_fpr_includes_the_limit_itself_and_is_0_where_a_real_leads():
    prob = np.linspace(1, 0, 200)
    label = np.ones(200, dtype=int)
    label[[10, *range(101, 200)]] = 0  # 100 reals: the first alone is FPR 1 %
    assert scores.tpr_at_fpr(scores.roc(label, prob), 0.01) == 1.0
    assert scores.tpr_at_fpr(scores.roc(label, prob), 0.0099) == pytest.approx(0.1)
    assert scores.tpr_at_fpr(scores.roc([0, 1, 1], [0.9, 0.8, 0.7]), 0.01) == 0.0


@given(few_labels)
def test_weights_are_copies_and_order_is_forgotten(rows):
    label, prob, copies = (np.array(column) for column in zip(*rows, strict=True))
    if len(set(label[copies > 0])) < 2:
        copies = copies + 1
    long_label, long_prob = np.repeat(label, copies), np.repeat(prob, copies)[::-1]
    weighted = scores.roc_of(scores.rank(label, prob), copies)
    repeated = scores.roc(long_label[::-1], long_prob)
    for score in (scores.area, scores.average_precision, scores.eer):
        assert score(weighted) == pytest.approx(score(repeated), abs=EXACT, nan_ok=True)
    for limit in (0.01, 0.3):
        a, b = (scores.tpr_at_fpr(curve, limit) for curve in (weighted, repeated))
        assert a == pytest.approx(b, abs=EXACT, nan_ok=True)


@given(few_labels)
def test_turning_both_classes_round_keeps_area_and_eer(rows):
    label, prob, _ = (np.array(column) for column in zip(*rows, strict=True))
    curve, turned = scores.roc(label, prob), scores.roc(1 - label, -prob)
    swapped = scores.swapped(curve)
    for score in (scores.area, scores.eer):
        assert score(swapped) == pytest.approx(score(curve), abs=EXACT, nan_ok=True)
    for score in (scores.area, scores.eer, scores.average_precision):
        assert score(swapped) == pytest.approx(score(turned), abs=EXACT, nan_ok=True)
    monotone = scores.roc(label, np.exp(prob / 3.0))
    assert scores.eer(monotone) == scores.eer(curve) or len(set(label)) == 1


@pytest.mark.parametrize("label", [[0, 0, 0], [1, 1, 1]])
def test_one_class_is_nan(label):
    curve = scores.roc(label, [0.1, 0.4, 0.9])
    for score in (scores.area, scores.average_precision, scores.eer, scores.eer_cut):
        assert np.isnan(score(curve))
    assert np.isnan(scores.tpr_at_fpr(curve, 0.01))
    c = counts(label, [0, 1, 1])
    assert np.isnan(scores.hter(c))
    assert np.isnan(scores.balanced_accuracy(c))


@pytest.mark.parametrize(("label", "prob"), CASES)
def test_rates_at_a_threshold_equal_scikit_learn(label, prob):
    pred = (prob >= 0.45).astype(int)
    c = counts(label, pred)
    want = sk.balanced_accuracy_score(label, pred)
    assert scores.balanced_accuracy(c) == pytest.approx(want, abs=EXACT)
    assert scores.hter(c) == pytest.approx(1 - want, abs=EXACT)
    assert scores.fpr(c) == pytest.approx(1 - sk.recall_score(label, pred, pos_label=0), abs=EXACT)
    assert scores.fnr(c) == pytest.approx(1 - sk.recall_score(label, pred), abs=EXACT)
    copies = np.arange(len(label)) % 3
    weighted = scores.weighted_counts(label == 1, pred == 1, copies)
    matrix = sk.confusion_matrix(label, pred, sample_weight=copies)
    assert list(weighted) == matrix.ravel().tolist()


def test_attack_errors_by_hand():
    # Prints: 1 of 4 missed. Replays: 2 of 3. Masks: none shown. The worst kind counts.
    kind = np.array([0, 0, 0, 0, 1, 1, 1])
    missed = np.array([1, 0, 0, 0, 1, 1, 0], dtype=bool)
    one = np.ones(7, dtype=int)
    found = scores.attack_errors(kind, missed, one, 3)
    assert found[:2] == pytest.approx([1 / 4, 2 / 3], abs=EXACT)
    assert np.isnan(found[2])
    assert scores.acer(float(np.nanmax(found)), 0.1) == pytest.approx((2 / 3 + 0.1) / 2, abs=EXACT)
    twice = scores.attack_errors(kind, missed, np.array([3, 1, 1, 1, 1, 1, 1]), 2)
    assert twice[0] == pytest.approx(3 / 6, abs=EXACT)


def test_calibration_error_by_hand_and_as_the_report_has_it():
    # Bins of 1/15: 0.01 and 0.05 share the first, 0.5 stands in the 8th, 1.0 in the last.
    fake = np.array([False, True, True, True])
    prob = np.array([0.01, 0.05, 0.5, 1.0])
    want = 2 / 4 * abs(0.5 - 0.03) + 1 / 4 * 0.5 + 0
    one = np.ones(4, dtype=int)
    assert scores.calibration_error(fake, prob, one) == pytest.approx(want, abs=EXACT)
    for label, prob in CASES:
        same = expected_calibration_error(label, prob)
        one = np.ones(len(label), dtype=int)
        got = scores.calibration_error(label == 1, prob, one)
        assert got == pytest.approx(same, abs=EXACT)
