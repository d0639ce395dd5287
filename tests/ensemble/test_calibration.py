"""Curves against scikit-learn and against what they promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from src.ensemble.calibration import CALIBRATIONS, KNOTS, Curve, fit_logistic, fit_rank
from src.metrics import log_loss, sigmoid

RNG = np.random.default_rng(3)
LABEL = RNG.integers(0, 2, 3000)
LOGIT = 3.0 * (2 * LABEL - 1) + 4.0 * RNG.normal(size=3000) + 1.5


@pytest.mark.parametrize("columns", [1, 4])
def test_logistic_regression_equals_scikit_learn(columns):
    x = LOGIT[:, None] * 0.3 + RNG.normal(size=(3000, columns)) * [1.0, 5.0, 0.2, 3.0][:columns]
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(scaler.transform(x), LABEL)
    weights, intercept = fit_logistic(LABEL, x, l2=1.0)
    want = model.coef_[0] / scaler.scale_
    assert weights == pytest.approx(want, abs=1e-4)
    assert intercept == pytest.approx(model.intercept_[0] - want @ scaler.mean_, abs=1e-4)


def test_positive_weights_are_the_constrained_optimum():
    x = np.stack([LOGIT, -LOGIT - 2 * LABEL + RNG.normal(size=3000), RNG.normal(size=3000)], axis=1)
    weights, _ = fit_logistic(LABEL, x, l2=1.0, positive=True)
    assert (weights >= 0).all()
    assert weights[1] == 0  # pulls the wrong way
    alone, _ = fit_logistic(LABEL, x[:, [0, 2]], l2=1.0, positive=True)
    assert weights[[0, 2]] == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("method", CALIBRATIONS.names())
def test_calibration_lowers_log_loss_and_keeps_the_order(method):
    curve = CALIBRATIONS.get(method)(LABEL, LOGIT)
    assert log_loss(LABEL, curve.logit(LOGIT)) < log_loss(LABEL, LOGIT)
    order = np.argsort(LOGIT)
    assert (np.diff(curve.prob(LOGIT)[order]) >= 0).all()
    assert curve.prob(LOGIT) == pytest.approx(sigmoid(curve.logit(LOGIT)), abs=1e-5)


def test_temperature_recovers_what_was_done_to_calibrated_logits():
    logit = RNG.normal(size=40_000) * 2
    label = (RNG.random(40_000) < sigmoid(logit)).astype(int)
    curve = CALIBRATIONS.get("temperature")(label, logit * 5)
    assert curve.slope == pytest.approx(0.2, rel=0.05)
    assert curve.intercept == 0
    platt = CALIBRATIONS.get("platt")(label, logit * 5 + 3)
    assert platt.slope == pytest.approx(0.2, rel=0.05)
    assert platt.intercept == pytest.approx(-0.6, abs=0.05)


def test_platt_flattens_a_member_that_is_the_wrong_way_round():
    curve = CALIBRATIONS.get("platt")(LABEL, -LOGIT)
    assert curve.slope == pytest.approx(0, abs=1e-6)


def test_isotonic_is_close_to_scikit_learn_and_off_the_ends():
    curve = CALIBRATIONS.get("isotonic")(LABEL, LOGIT)
    want = IsotonicRegression(out_of_bounds="clip").fit(LOGIT, LABEL).predict(LOGIT)
    found = curve.prob(LOGIT)
    assert np.abs(found - want).mean() < 0.01
    assert 0 < found.min() < found.max() < 1


def test_separable_members_stay_finite():
    label = np.repeat([0, 1], 50)
    for method in CALIBRATIONS:
        curve = CALIBRATIONS.get(method)(label, np.where(label, 9.0, -9.0) + RNG.normal(size=100))
        assert np.isfinite(curve.logit(np.array([-1e6, 0.0, 1e6]))).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-5, 5).map(float), min_size=2, max_size=200))
def test_ranks_are_mean_ranks(values):
    logit = np.array(values)
    want = (rankdata(logit) - 0.5) / logit.size
    assert fit_rank(logit).prob(logit) == pytest.approx(want)


def test_stored_knots_are_few_and_still_close():
    logit = RNG.normal(size=50_000)
    curve = fit_rank(logit)
    assert len(curve.x) <= KNOTS + 1
    want = (rankdata(logit) - 0.5) / logit.size
    assert np.abs(curve.prob(logit) - want).max() < 1 / KNOTS
    assert Curve().prob(logit) == pytest.approx(sigmoid(logit))
