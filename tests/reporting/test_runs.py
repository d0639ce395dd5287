"""What is read of finished runs: predictions, and the threshold that a recipe found for them."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from src import paths
from src.cli import tune
from src.metrics import sigmoid
from src.reporting.runs import collect_runs, reportable
from src.thresholds import best_threshold
from tests.reporting.conftest import predict, run_record, write_recipe_of

pytestmark = pytest.mark.usefixtures("toy", "coarse")


def test_threshold_comes_from_the_recipe_of_the_model_alone():
    oof = predict("m")
    predict("x", seed=2)
    own, _ = best_threshold(oof["label"], sigmoid(oof["logit"]))
    assert collect_runs("toy", "s", "m").whole.line == own
    write_recipe_of("both", "m", weight=0.5, other="x")
    assert "the best of its out-of-fold items" in collect_runs("toy", "s", "m").whole.tuned
    write_recipe_of("alone", "m", 0.7, other="x")
    runs = collect_runs("toy", "s", "m")
    assert runs.whole.how == "in-sample: threshold 0.7000, recipe alone"  # it kept no others
    assert runs.whole.line == 0.7
    assert np.array_equal(runs.whole.rows.pred, runs.whole.rows.prob >= 0.7)
    assert np.array_equal(runs.folds[1].rows.pred, runs.folds[1].rows.prob >= 0.7)
    write_recipe_of("tuned", "m", 0.6)
    assert collect_runs("toy", "s", "m").whole.tuned == "threshold 0.6000, recipe tuned"
    predict("m", [2], seed=5)  # trained again: no recipe stands on these any more
    assert "out-of-fold" in collect_runs("toy", "s", "m").whole.tuned


def test_thresholds_by_kind_are_no_line():
    predict("m")
    params = {"value": 0.5, "by": "kind", "values": {"image": 0.8}}
    voting = {"name": "voting", "params": {"rule": "soft"}}
    write_recipe_of("tuned", "m", stages=[voting, {"name": "threshold", "params": params}])
    whole = collect_runs("toy", "s", "m").whole
    assert (whole.tuned, whole.line) == ("thresholds by kind, recipe tuned", None)
    assert np.array_equal(whole.rows.pred, whole.rows.prob >= 0.8)


def test_each_fold_takes_the_threshold_of_the_others():
    oof = predict("m")
    prob, label = sigmoid(oof["logit"].to_numpy()), oof["label"].to_numpy()
    pred = np.empty(len(oof), dtype=int)
    for fold in range(3):
        held = oof["fold"].to_numpy() == fold
        pred[held] = prob[held] >= best_threshold(label[~held], prob[~held])[0]
    assert tune.main(["--models", "m", "--strategies", "mean", "--recipe", "alone"]) == 0
    whole = collect_runs("toy", "s", "m").whole
    order = pd.Index(whole.rows.item_id).get_indexer(oof["item_id"])
    assert np.array_equal(whole.rows.pred[order], pred)  # the recipe's rules say the same
    assert whole.tuned.endswith("recipe alone")
    assert whole.how.startswith("cross-fitted: thresholds 0.")
    assert f1_score(label, pred, average="macro") <= f1_score(
        label, prob >= best_threshold(label, prob)[0], average="macro"
    )


def test_a_model_is_reportable_by_its_predictions_or_by_a_record():
    predict("b", [0])
    run_record("a", paths.ALL)
    assert reportable("toy", "s") == ["a", "b"]
