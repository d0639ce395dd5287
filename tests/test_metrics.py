import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn import metrics as sk

from src import metrics
from src.errors import UserError

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
        (metrics.precision_fake, sk.precision_score),
        (metrics.recall_fake, sk.recall_score),
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


def points(label, score):
    fpr, tpr, _ = sk.roc_curve(label, score, drop_intermediate=False)
    return fpr, tpr


def at_most(limit, label, score):
    fpr, tpr = points(label, score)
    return tpr[fpr <= limit][-1]


def crossing(label, score):
    """Return the EER as papers compute it: brentq on the interpolated curve."""
    line = interp1d(*points(label, score))
    return brentq(lambda x: 1 - x - line(x), 0, 1, xtol=1e-14, rtol=np.float64(1e-14))


def gaps(label, prob):
    """Return the expected calibration error by a plain loop over 15 bins."""
    place = [min(int(p * 15), 14) for p in prob]
    bins = [np.array([k == b for k in place]) for b in sorted(set(place))]
    return sum(b.mean() * abs(label[b].mean() - prob[b].mean()) for b in bins)


def half_errors(label, pred):
    return 1 - sk.balanced_accuracy_score(label, pred)


def missed(label, pred, kind):
    """Return the worst kind's share of fakes called real."""
    return max(1 - pred[(label == 1) & (kind == k)].mean() for k in set(kind[label == 1]))


ZERO = {"zero_division": 0}
# metric -> label, prob, decisions at the threshold, at foreign and at own EER cuts, kind of attack
ORACLES = {
    "macro_f1": lambda y, p, d, dev, own, k: sk.f1_score(y, d, average="macro", **ZERO),
    "f1_real": lambda y, p, d, dev, own, k: sk.f1_score(y, d, pos_label=0, **ZERO),
    "f1_fake": lambda y, p, d, dev, own, k: sk.f1_score(y, d, **ZERO),
    "precision_real": lambda y, p, d, dev, own, k: sk.precision_score(y, d, pos_label=0, **ZERO),
    "precision_fake": lambda y, p, d, dev, own, k: sk.precision_score(y, d, **ZERO),
    "recall_real": lambda y, p, d, dev, own, k: sk.recall_score(y, d, pos_label=0),
    "recall_fake": lambda y, p, d, dev, own, k: sk.recall_score(y, d),
    "accuracy": lambda y, p, d, dev, own, k: sk.accuracy_score(y, d),
    "balanced_accuracy": lambda y, p, d, dev, own, k: sk.balanced_accuracy_score(y, d),
    "mcc": lambda y, p, d, dev, own, k: sk.matthews_corrcoef(y, d),
    "auc": lambda y, p, d, dev, own, k: sk.roc_auc_score(y, p),
    "ap": lambda y, p, d, dev, own, k: sk.average_precision_score(y, p),
    "eer": lambda y, p, d, dev, own, k: crossing(y, p),
    "hter": lambda y, p, d, dev, own, k: half_errors(y, dev),
    "hter_test_eer": lambda y, p, d, dev, own, k: half_errors(y, own),
    "apcer": lambda y, p, d, dev, own, k: missed(y, d, k),
    "bpcer": lambda y, p, d, dev, own, k: d[y == 0].mean(),
    "acer": lambda y, p, d, dev, own, k: (missed(y, d, k) + d[y == 0].mean()) / 2,
    "tpr@fpr=1%": lambda y, p, d, dev, own, k: at_most(0.01, y, p),
    "tpr@fpr=0.1%": lambda y, p, d, dev, own, k: at_most(0.001, y, p),
    "tnr@fnr=1%": lambda y, p, d, dev, own, k: at_most(0.01, 1 - y, -p),
    "log_loss": lambda y, p, d, dev, own, k: sk.log_loss(y, p, labels=[0, 1]),
    "brier": lambda y, p, d, dev, own, k: sk.brier_score_loss(y, p),
    "ece": lambda y, p, d, dev, own, k: gaps(y, p),
}


@pytest.mark.parametrize("name", list(metrics.METRICS))
def test_every_metric_equals_its_oracle(name):
    """Scikit-learn, scipy or a plain loop; on probs with ties and without, and of 0 and 1."""
    one = metrics.METRICS.get(name)
    for seed, (label, prob) in enumerate([*CASES, draw(5, n=40, ties=2)]):
        fake, pred = label == 1, (prob >= 0.45).astype(int)
        dev = (prob >= 0.3 + 0.05 * seed).astype(int)
        curve = metrics.roc(label, prob)
        own = (prob >= metrics.eer_cut(curve)).astype(int)
        kind = np.arange(label.size) % 3
        wrong = metrics.attack_errors(kind[fake], pred[fake] == 0, np.ones(fake.sum(), int), 3)
        given = {
            metrics.DECISIONS: (metrics.counts(label, pred),),
            metrics.DEVELOPMENT: (metrics.counts(label, dev),),
            metrics.OWN_CUT: (metrics.counts(label, own),),
            metrics.ATTACKS: (metrics.counts(label, pred), np.nanmax(wrong)),
            metrics.RANKS: (curve,),
            metrics.LOSSES: (fake, metrics.log_odds(prob)),
            metrics.PROBS: (fake, prob),
        }
        want = ORACLES[name](label, prob, pred, dev, own, kind)
        found = np.mean(one.compute(*given[one.wants]))
        assert found == pytest.approx(want, abs=EXACT)
        if one.tuned:
            decided = dev if one.wants == metrics.DEVELOPMENT else pred
            assert metrics.score_of(one, label, prob, decided) == pytest.approx(want, abs=EXACT)


@pytest.mark.parametrize(("label", "prob"), CASES)
def test_the_curve_is_scikit_learns(label, prob):
    fpr, tpr, _ = sk.roc_curve(label, prob, drop_intermediate=False)
    curve = metrics.roc(label, prob)
    assert curve.fp / curve.fp[-1] == pytest.approx(fpr, abs=EXACT)
    assert curve.tp / curve.tp[-1] == pytest.approx(tpr, abs=EXACT)
    for cut, fp, tp in zip(*curve, strict=True):
        c = metrics.counts(label, prob >= cut)
        assert (c.fp, c.tp) == (fp, tp)


def test_eer_by_hand_and_the_other_definition():
    # Cuts from the top: fake, real, fake, real, real. FPR 0 1/3 1/3 .. against FNR 1/2 1/2 0 ..
    label, prob = [1, 0, 1, 0, 0], [0.9, 0.8, 0.7, 0.6, 0.1]
    curve = metrics.roc(label, prob)
    assert metrics.eer(curve) == pytest.approx(1 / 3)
    fpr, tpr, _ = sk.roc_curve(label, prob, drop_intermediate=False)
    assert fpr[np.argmin(np.abs(1 - tpr - fpr))] == pytest.approx(1 / 3)
    # One cut above all but a tie of everything: the straight line meets the diagonal at 1/2.
    assert metrics.eer(metrics.roc([0, 1, 1], [0.5, 0.5, 0.5])) == pytest.approx(0.5)
    # Two points (0, 0.5) and (0.5, 1) of (FPR, TPR): the lines meet at 0.25, argmin says 0 or 0.5.
    assert metrics.eer(metrics.roc([1, 1, 0, 0], [0.9, 0.5, 0.5, 0.1])) == pytest.approx(0.25)


@pytest.mark.parametrize(("label", "prob"), CASES)
def test_the_cut_at_the_eer_is_the_closest_that_can_be_made(label, prob):
    cut = metrics.eer_cut(metrics.roc(label, prob))
    label = np.asarray(label)

    def gap(threshold):
        c = metrics.counts(label, prob >= threshold)
        return abs(c.fp / (c.fp + c.tn) - c.fn / (c.fn + c.tp)), metrics.hter(c)

    every = [gap(t) for t in [*np.unique(prob), 2.0]]
    assert gap(cut)[0] == pytest.approx(min(every)[0], abs=EXACT)
    close = [h for g, h in every if g <= min(every)[0] + 1e-12]
    assert gap(cut)[1] == pytest.approx(min(close), abs=EXACT)


@pytest.mark.parametrize("limit", [0.0, 0.001, 0.01, 0.1, 1.0])
@pytest.mark.parametrize(("label", "prob"), CASES)
def test_tpr_at_fpr_is_the_last_point_within_the_limit(label, prob, limit):
    fpr, tpr, _ = sk.roc_curve(label, prob, drop_intermediate=False)
    want = tpr[fpr <= limit][-1]
    assert metrics.tpr_at_fpr(metrics.roc(label, prob), limit) == pytest.approx(want, abs=EXACT)
    # FLIP: real = 1, scored by P(real).
    fpr, tpr, _ = sk.roc_curve(1 - label, -prob, drop_intermediate=False)
    got = metrics.tpr_at_fpr(metrics.swapped(metrics.roc(label, prob)), limit)
    assert got == pytest.approx(tpr[fpr <= limit][-1], abs=EXACT)


def test_tpr_at_fpr_includes_the_limit_itself_and_is_0_where_a_real_leads():
    prob = np.linspace(1, 0, 200)
    label = np.ones(200, dtype=int)
    label[[10, *range(101, 200)]] = 0  # 100 reals: the first alone is FPR 1 %
    assert metrics.tpr_at_fpr(metrics.roc(label, prob), 0.01) == 1.0
    assert metrics.tpr_at_fpr(metrics.roc(label, prob), 0.0099) == pytest.approx(0.1)
    assert metrics.tpr_at_fpr(metrics.roc([0, 1, 1], [0.9, 0.8, 0.7]), 0.01) == 0.0


@given(few_labels)
def test_weights_are_copies_and_order_is_forgotten(rows):
    label, prob, copies = (np.array(column) for column in zip(*rows, strict=True))
    if len(set(label[copies > 0])) < 2:
        copies = copies + 1
    long_label, long_prob = np.repeat(label, copies), np.repeat(prob, copies)[::-1]
    weighted = metrics.roc_of(metrics.rank(label, prob), copies)
    repeated = metrics.roc(long_label[::-1], long_prob)
    for score in (metrics.area, metrics.average_precision, metrics.eer):
        assert score(weighted) == pytest.approx(score(repeated), abs=EXACT, nan_ok=True)
    for limit in (0.01, 0.3):
        a, b = (metrics.tpr_at_fpr(curve, limit) for curve in (weighted, repeated))
        assert a == pytest.approx(b, abs=EXACT, nan_ok=True)


@given(few_labels)
def test_turning_both_classes_round_keeps_area_and_eer(rows):
    label, prob, _ = (np.array(column) for column in zip(*rows, strict=True))
    curve, turned = metrics.roc(label, prob), metrics.roc(1 - label, -prob)
    swapped = metrics.swapped(curve)
    for score in (metrics.area, metrics.eer):
        assert score(swapped) == pytest.approx(score(curve), abs=EXACT, nan_ok=True)
    for score in (metrics.area, metrics.eer, metrics.average_precision):
        assert score(swapped) == pytest.approx(score(turned), abs=EXACT, nan_ok=True)
    monotone = metrics.roc(label, np.exp(prob / 3.0))
    assert metrics.eer(monotone) == metrics.eer(curve) or len(set(label)) == 1


@pytest.mark.parametrize("label", [[0, 0, 0], [1, 1, 1]])
def test_one_class_is_nan(label):
    curve = metrics.roc(label, [0.1, 0.4, 0.9])
    assert math.isnan(metrics.auc(label, [0.1, 0.4, 0.9]))
    for score in (metrics.area, metrics.average_precision, metrics.eer, metrics.eer_cut):
        assert np.isnan(score(curve))
    assert np.isnan(metrics.tpr_at_fpr(curve, 0.01))
    c = metrics.counts(label, [0, 1, 1])
    assert np.isnan(metrics.hter(c))
    assert np.isnan(metrics.balanced_accuracy(c))


@pytest.mark.parametrize(("label", "prob"), CASES)
def test_weighted_counts_and_the_miss_rate_equal_scikit_learn(label, prob):
    pred = (prob >= 0.45).astype(int)
    c = metrics.counts(label, pred)
    assert metrics.fnr(c) == pytest.approx(1 - sk.recall_score(label, pred), abs=EXACT)
    copies = np.arange(len(label)) % 3
    weighted = metrics.weighted_counts(label == 1, pred == 1, copies)
    matrix = sk.confusion_matrix(label, pred, sample_weight=copies)
    assert list(weighted) == matrix.ravel().tolist()


def test_attack_errors_by_hand():
    # Prints: 1 of 4 missed. Replays: 2 of 3. Masks: none shown. The worst kind counts.
    kind = np.array([0, 0, 0, 0, 1, 1, 1])
    missed = np.array([1, 0, 0, 0, 1, 1, 0], dtype=bool)
    one = np.ones(7, dtype=int)
    found = metrics.attack_errors(kind, missed, one, 3)
    assert found[:2] == pytest.approx([1 / 4, 2 / 3], abs=EXACT)
    assert np.isnan(found[2])
    c = metrics.Counts(*np.array([9.0, 1.0, 3.0, 4.0]))
    assert metrics.acer(c, float(np.nanmax(found))) == pytest.approx((2 / 3 + 0.1) / 2, abs=EXACT)
    twice = metrics.attack_errors(kind, missed, np.array([3, 1, 1, 1, 1, 1, 1]), 2)
    assert twice[0] == pytest.approx(3 / 6, abs=EXACT)


def test_calibration_error_by_hand_and_by_a_plain_loop():
    # Bins of 1/15: 0.01 and 0.05 share the first, 0.5 stands in the 8th, 1.0 in the last.
    fake = np.array([False, True, True, True])
    prob = np.array([0.01, 0.05, 0.5, 1.0])
    want = 2 / 4 * abs(0.5 - 0.03) + 1 / 4 * 0.5 + 0
    assert metrics.calibration_error(fake, prob) == pytest.approx(want, abs=EXACT)


@pytest.mark.parametrize(
    ("asked", "name"),
    [("f1", "f1_fake"), ("ROC-AUC", "auc"), ("tpr@fpr=5%", "tpr@fpr=5%"), ("brier", "brier"),
     ("tpr@fpr=0.01", "tpr@fpr=1%"), ("logloss", "log_loss")],
)  # fmt: skip
def test_a_metric_goes_by_the_names_in_use(asked, name):
    assert metrics.tuned_metric(asked).name == name


def test_a_rate_at_any_limit_is_the_roc_curve_there():
    rng = np.random.default_rng(0)
    label, score = rng.integers(0, 2, 400), rng.normal(size=400).round(1)
    fpr, tpr, _ = sk.roc_curve(label, score, drop_intermediate=False)
    asked = metrics.metric_named("tpr@fpr=12.5%")
    assert metrics.score_of(asked, label, score, score) == tpr[fpr <= 0.125][-1]


@pytest.mark.parametrize(("name", "says"), [("aucc", "auc"), ("recall_fake", "choose one of")])
def test_a_metric_that_cannot_be_tuned_for_is_refused(name, says):
    with pytest.raises(UserError, match=says):
        metrics.tuned_metric(name)
