"""How sure a score is: what the choice and the folds add, by hand and where the truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from src.ensemble.predictions import Predictions
from src.ensemble.rule import Votes
from src.ensemble.uncertainty import (
    PRIOR_FOLDS,
    PRIOR_RATIO,
    Uncertainty,
    climb,
    fold_scores,
    fold_variance,
    gain_errors,
    spread_of_folds,
    uncertainty,
)
from src.metrics import METRICS, Metric

AUC = METRICS.get("auc")
LESS = replace(AUC, higher=False, bounds=(-1.0, 0.0))


def _of(score: float, draws: np.ndarray, folds: np.ndarray, metric: Metric = AUC) -> Uncertainty:
    """Return the uncertainty of one candidate alone, on folds of equal size."""
    places = np.zeros(len(draws), dtype=np.int64)
    return uncertainty(metric, score, draws[:, None], places, 0, (folds, np.ones(folds.size)))


def _climb_one(good: np.ndarray, errors: np.ndarray, rounds: list[range], first: int) -> list[int]:
    path = [first]
    for places in rounds:
        passed = [k for k in places if good[k] - good[path[-1]] > errors[k, path[-1]]]
        path.append(max(passed, key=lambda k: good[k], default=path[-1]))
    return path


def test_climbing_in_many_draws_is_climbing_in_each():
    rng = np.random.default_rng(0)
    good = rng.normal(0, 1, (300, 7))
    errors = gain_errors(rng.normal(0, 0.5, (50, 7)))
    rounds = [range(2, 3), range(3, 4), range(4, 7)]
    path = np.stack(climb(good, errors, rounds, 1), axis=1)
    assert path.tolist() == [_climb_one(one, errors, rounds, 1) for one in good]


def test_equal_candidates_are_not_flattered_by_the_choice():
    draws = np.repeat(np.random.default_rng(1).normal(0.8, 0.02, (500, 1)), 15, axis=1)
    rounds = [range(k, k + 1) for k in range(1, 15)]
    places = climb(draws, gain_errors(draws), rounds, 0)[-1]
    folds = np.array([0.79, 0.8, 0.81]), np.ones(3)
    found = uncertainty(AUC, 0.8, draws, places, 0, folds)
    assert found.selection == 0
    assert found == _of(0.8, draws[:, 0], folds[0])


def test_most_of_what_the_choice_flatters_by_is_seen():
    """Fifteen equally good candidates, independent noise: the mean score of the chosen is known."""
    rng, noise, said, truly = np.random.default_rng(2), 0.02, [], []
    rounds = [range(k, k + 1) for k in range(1, 15)]
    for _ in range(40):
        scores = 0.8 + rng.normal(0, noise, 15)
        draws = scores + rng.normal(0, noise, (150, 15))
        errors = gain_errors(draws)
        chosen = int(climb(scores[None], errors, rounds, 0)[-1][0])
        places = climb(draws, errors, rounds, 0)[-1]
        folds = np.full(5, scores[chosen]), np.ones(5)
        found = uncertainty(AUC, scores[chosen], draws, places, chosen, folds)
        said.append(found.selection)
        truly.append(scores[chosen] - 0.8)
    assert 0.5 * np.mean(truly) < np.mean(said) < 1.1 * np.mean(truly)  # never all of it


def test_a_metric_whose_less_is_better_is_the_mirror_image():
    rng = np.random.default_rng(3)
    draws, folds = rng.gamma(9, 0.05, 400), rng.normal(0.45, 0.1, 4)
    up = _of(0.45, draws, folds)
    down = _of(-0.45, -draws, -folds, LESS)
    assert (up.rows, up.folds) == pytest.approx((down.rows, down.folds))
    assert up.interval == pytest.approx(tuple(-edge for edge in reversed(down.interval)))


def test_fewer_folds_make_a_wider_interval_and_the_range_of_the_metric_bounds_it():
    draws = np.random.default_rng(4).normal(0.95, 0.03, 2000)
    found = [_of(0.95, draws, np.full(k, 0.95)) for k in (1, 2, 3, 5)]
    width = [one.interval[1] - one.interval[0] for one in found]
    assert width == sorted(width, reverse=True)
    assert found[0].interval[1] == 1.0
    assert found[0].folds == pytest.approx(PRIOR_RATIO**0.5 * np.std(draws, ddof=1))


def test_the_spread_of_folds_in_a_case_worked_by_hand():
    # Folds of .7 and .8, each with a standard error of .02 * sqrt(2) by its rows: their sample
    # variance .005 less .0008 is the folds' own, worth one; the prior's .0008 is worth four.
    scores, sizes = np.array([0.7, 0.8]), np.array([50.0, 50.0])
    assert fold_variance(scores, np.full(2, 0.0008)) == pytest.approx(0.0042)
    error, freedom = spread_of_folds(scores, sizes, 0.02)
    variance = (PRIOR_FOLDS * PRIOR_RATIO * 0.0008 + 0.0042) / (PRIOR_FOLDS + 1)
    assert error == pytest.approx((variance / 2) ** 0.5)
    assert freedom == PRIOR_FOLDS + 1
    unknown = spread_of_folds(np.array([0.7, np.nan]), sizes, 0.02)
    assert unknown == pytest.approx(((0.0008 / 2) ** 0.5, PRIOR_FOLDS))


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_where_folds_truly_differ_the_interval_covers_and_that_of_rows_alone_does_not(k):
    """Folds spread as far as a fold's rows do: the score of yet another fold's model is covered."""
    rng, by_rows = np.random.default_rng(5), 0.03
    covered, alone = [], []
    for _ in range(300):
        folds = 0.7 + rng.normal(0, by_rows, k) + rng.normal(0, by_rows, k)
        draws = folds.mean() + rng.normal(0, by_rows / k**0.5, 200)
        low, high = _of(folds.mean(), draws, folds).interval
        covered.append(low <= 0.7 <= high)
        low, high = np.quantile(draws, [0.025, 0.975])
        alone.append(low <= 0.7 <= high)
    assert np.mean(alone) < 0.86
    assert 0.91 < np.mean(covered) < 0.98


def test_the_score_of_each_fold_and_none_where_the_metric_says_nothing():
    label = np.array([0, 1, 0, 1, 1, 1])
    blank = np.full(6, "", dtype=object)
    fold = np.array([0, 0, 2, 2, 3, 3])
    rows = Predictions(blank, label, np.arange(6), fold, blank, blank, np.zeros((6, 1)))
    prob = np.array([0.2, 0.8, 0.6, 0.4, 0.5, 0.5])
    scores, sizes = fold_scores(AUC, rows, Votes(prob, (prob >= 0.5).astype(np.int64)))
    np.testing.assert_array_equal(scores, [1.0, 0.0, np.nan])
    assert sizes.tolist() == [2, 2, 2]
