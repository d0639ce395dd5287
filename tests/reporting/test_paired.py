"""Two cards of the same items: differences, their intervals and p-values."""

import math

import numpy as np
import pytest

from src.metrics import metric_named
from src.reporting import scorecard
from src.reporting.paired import differences, disagreement, sentence
from src.reporting.scorecard import Scorer, score_rows
from tests.reporting.test_scorecard import make_rows


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(scorecard, "MOST_REPLICATES", 300)


def test_the_bootstrap_is_paired_and_by_group():
    """Against drawing groups one by one, both predictions on the same draw."""
    one, other = make_rows(n=300, seed=0, groups=100), make_rows(n=300, seed=1, groups=100)
    found = {d.metric: d for d in differences(score_rows(one), score_rows(other))}
    rng = np.random.default_rng(5)
    rows_of = [np.flatnonzero(one.group == g) for g in range(100)]
    pure = [[g for g in range(100) if one.label[rows_of[g][0]] == k] for k in (0, 1)]
    draws = []
    for _ in range(300):
        groups = [g for some in pure for g in rng.choice(some, len(some))]
        rows = np.concatenate([rows_of[g] for g in groups])
        a, b = Scorer(one.take(rows))(), Scorer(other.take(rows))()
        draws.append({key: a[key] - b[key] for key in ("macro_f1", "eer", "log_loss", "auc")})
    for key in draws[0]:
        values = np.array([draw[key] for draw in draws])
        low, high = np.quantile(values, [0.025, 0.975])
        assert (found[key].low, found[key].high) == pytest.approx((low, high), abs=0.03), key
        share = 2 * min((values <= 0).mean(), (values >= 0).mean())
        assert found[key].p == pytest.approx(share, abs=0.12), key
    assert found["auc"].how == "DeLong by group"
    assert found["macro_f1"].how == "bootstrap by group"


def test_equal_predictions_and_few_groups_are_not_tested():
    one = score_rows(make_rows())
    for found in differences(one, one):
        assert math.isnan(found.p), found.metric
        assert found.why
        assert found.value == 0 or math.isnan(found.value)
    few = [score_rows(make_rows(groups=9, seed=seed)) for seed in (0, 1)]
    found = {d.metric: d for d in differences(*few)}
    assert found["auc"].why == found["macro_f1"].why == "9 groups are fewer than 10"
    assert not math.isnan(found["auc"].value)
    assert "that cannot be tested (9 groups" in sentence(
        "a", "b", found["auc"], metric_named("auc")
    )


def test_what_one_lacks_has_no_difference_and_other_items_are_refused():
    rows = make_rows()
    one, other = score_rows(rows), score_rows(rows, lacks={"ranks": "labels alone"})
    found = {d.metric: d for d in differences(one, other)}
    assert math.isnan(found["auc"].value)
    text = sentence("a", "b", found["auc"], metric_named("auc"))
    assert text == "a and b: auc says nothing here (labels alone)"
    with pytest.raises(ValueError, match="not the same items"):
        differences(one, score_rows(make_rows(n=200)))


def test_verdicts_that_differ_are_counted():
    one, other = make_rows(seed=0), make_rows(seed=1)
    want = np.mean(one.pred != other.pred)
    assert disagreement(score_rows(one), score_rows(other)) == want
