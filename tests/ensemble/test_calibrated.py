"""Calibration before a strategy: the same as calibrating by hand, and inside each part."""

import numpy as np
import pytest

from src import paths
from src.artifacts.recipes import read_recipe, write_recipe
from src.ensemble.align import align
from src.ensemble.calibration import CALIBRATIONS
from src.ensemble.crossfit import cross_rules
from src.ensemble.rule import rule_of, vote
from src.ensemble.search import STRATEGIES, Search, calibrate, ladder
from src.ensemble.tune import tune
from src.errors import UserError
from src.metrics import macro_f1
from tests.ensemble.synthetic import DATA, SCHEME, make_folds, make_oof

RNG = np.random.default_rng(0)
LABEL = RNG.integers(0, 2, 400)
LOGITS = (2 * LABEL - 1)[:, None] * [2.0, 0.5, 8.0] + RNG.normal(size=(400, 3)) * [1, 1, 9]
QUICK = Search(trials=15, seed=1)
READY = [
    (method, name)
    for method in CALIBRATIONS
    for name in STRATEGIES
    if f"{method}-{name}" in set(STRATEGIES)
]


@pytest.mark.parametrize(("method", "name"), READY)
def test_it_is_the_strategy_on_calibrated_logits(method, name):
    curves = [CALIBRATIONS.get(method)(LABEL, logit) for logit in LOGITS.T]
    rows = np.stack([c.logit(logit) for c, logit in zip(curves, LOGITS.T, strict=True)], axis=1)
    plain = STRATEGIES.get(name).fit(LABEL, rows, QUICK)
    rule = STRATEGIES.get(f"{method}-{name}").fit(LABEL, LOGITS, QUICK)
    assert rule.curves == tuple(curves)
    assert rule.weights.tolist() == plain.weights.tolist()
    assert rule.threshold == plain.threshold
    assert vote(rule, LOGITS).prob.tolist() == vote(plain, rows).prob.tolist()
    assert vote(rule, LOGITS).pred.tolist() == vote(plain, rows).pred.tolist()


def test_every_strategy_that_scale_matters_to_has_one_after_each_calibration():
    plain = {name for _, name in READY}
    assert plain == {name for name in STRATEGIES if STRATEGIES.get(name).scale_matters}
    assert {"greedy", "tpe", "stack", "mean", "log-loss-weights"} < plain
    assert not plain & {"mean@0.5", "best-member", "rank-mean", "platt-mean"}
    assert len(READY) == 3 * len(plain)
    for method, name in READY:
        assert STRATEGIES.get(f"{method}-{name}").rung > STRATEGIES.get(name).rung


def test_a_member_far_out_of_scale_no_longer_drowns_the_others():
    scores = [
        macro_f1(LABEL, vote(STRATEGIES.get(name).fit(LABEL, LOGITS, QUICK), LOGITS).pred)
        for name in ("logit-mean", "platt-logit-mean")
    ]
    assert scores[1] > scores[0] + 0.05


def test_a_ladder_is_calibrated_where_that_can_change_anything():
    assert calibrate(["mean@0.5", "best-member", "mean", "greedy"], "platt", 3) == [
        "mean@0.5", "best-member", "platt-mean", "platt-greedy"
    ]  # fmt: skip
    assert calibrate(["mean", "platt-mean"], "platt", 3) == ["platt-mean"]
    assert calibrate(ladder(1), "platt", 1) == ladder(1)
    with pytest.raises(UserError, match="unknown calibration 'plat'; did you mean 'platt'"):
        calibrate(["mean"], "plat", 3)


def test_curves_never_see_the_part_that_they_are_judged_on(artefact_root):
    aligned = toy()
    rules = cross_rules(STRATEGIES.get("platt-greedy"), aligned, aligned.fold, QUICK)
    assert sorted(rules) == [0, 1, 2]
    for fold, rule in rules.items():
        rest = aligned.fold != fold
        assert rule.curves == tuple(
            CALIBRATIONS.get("platt")(aligned.label[rest], logit[rest]) for logit in aligned.logit.T
        )


def test_the_recipe_keeps_the_curves_and_reproduces_its_score(artefact_root):
    aligned = toy()
    tuned = tune(aligned, names=["isotonic-greedy"], search=QUICK)
    path = paths.recipe_json(DATA, "r")
    write_recipe(path, tuned.recipe)
    recipe = read_recipe(path)
    assert [stage["name"] for stage in recipe.stages] == ["calibration", "voting", "threshold"]
    assert recipe.search["strategy"] == "isotonic-greedy"
    pred = vote(rule_of(recipe), aligned.logit).pred
    assert macro_f1(aligned.label, pred) == recipe.scores["in_sample"]


def toy():
    folds = make_folds()
    make_oof(folds, "a", seed=1)
    make_oof(folds, "b", seed=2, shift=2.0)
    return align(DATA, SCHEME)


@pytest.mark.parametrize("name", ["platt-stack", "platt-stack-free", "isotonic-stack-free"])
def test_members_flattened_to_constants_get_no_weight(name):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 500)
    backwards = -label[:, None] + rng.normal(size=(500, 3))
    rule = STRATEGIES.get(name).fit(label, backwards, Search(None, 0))
    assert np.isfinite(rule.weights).all()
    assert np.abs(rule.weights).max() <= 1.0
    mixed = np.column_stack([backwards[:, 0], label + rng.normal(size=500)])
    assert STRATEGIES.get(name).fit(label, mixed, Search(None, 0)).weights[0] == 0.0
