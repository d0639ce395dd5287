import dataclasses

import numpy as np
import pandas as pd
import pytest

from src.artifacts.oof import UNREADABLE
from src.artifacts.recipes import Member, Recipe, read_recipe, write_recipe
from src.ensemble.calibration import Curve, fit_rank
from src.ensemble.rule import (
    VOTING,
    Deliveries,
    Rule,
    can_vote,
    deliveries_of,
    fold_curves_of,
    rule_of,
    stages_of,
    vote,
)
from src.ensemble.vote import apply_recipe, pool_views
from src.errors import UserError
from src.metrics import sigmoid

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(200, 4))
WEIGHTS = np.array([0.4, 0.3, 0.2, 0.1])
OWN = np.array([0.3, 0.5, 0.6, 0.4])


def rule(voting="soft", weights=WEIGHTS, thresholds=OWN, threshold=0.5):
    return Rule(voting, np.asarray(weights, float), np.asarray(thresholds, float), threshold)


def recipe_of(a_rule, models="abcd"):
    members = [
        Member(model, float(weight), float(own), [0], {"0": "0" * 64})
        for model, weight, own in zip(models, a_rule.weights, a_rule.thresholds, strict=True)
    ]
    return Recipe("toy", "s", [0], "0" * 64, members, stages_of(a_rule, models))


def test_soft_is_the_weighted_mean_of_probs():
    prob, pred = vote(rule(threshold=0.45), LOGITS)
    want = np.average(1 / (1 + np.exp(-LOGITS)), axis=1, weights=WEIGHTS)
    assert prob == pytest.approx(want)
    assert np.array_equal(pred, want >= 0.45)


def test_hard_is_the_weighted_majority_of_own_decisions():
    share, pred = vote(rule("hard"), LOGITS)
    want = ((sigmoid(LOGITS) >= OWN) * WEIGHTS).sum(axis=1)
    clear = np.abs(want - 0.5) > 1e-6
    assert share == pytest.approx(want)
    assert np.array_equal(pred[clear], want[clear] > 0.5)


@pytest.mark.parametrize(("logits", "want"), [([3.0, -1.0], 1), ([1.0, -3.0], 0), ([1.0, -1.0], 1)])
def test_a_tie_is_decided_by_the_mean_prob(logits, want):
    share, pred = vote(rule("hard", [1, 1], [0.5, 0.5]), np.array([logits]))
    assert (share[0], pred[0]) == (0.5, want)


def test_a_tie_of_rounded_weights_is_a_tie():
    weights = [0.1, 0.2, 0.3]  # 0.1 + 0.2 != 0.3 in floats
    share, pred = vote(rule("hard", weights, [0.5] * 3), np.array([[9.0, 9.0, -0.1]]))
    assert (share[0], pred[0]) == (0.5, 1)


@pytest.mark.parametrize("voting", VOTING.names())
def test_order_of_rows_and_members_and_scale_of_weights_do_not_matter(voting):
    prob, pred = vote(rule(voting), LOGITS)
    rows, columns = RNG.permutation(200), RNG.permutation(4)
    scale = 1 if VOTING.get(voting).free else 7
    again = vote(rule(voting, WEIGHTS[columns] * scale, OWN[columns]), LOGITS[rows][:, columns])
    assert again.prob == pytest.approx(prob[rows], abs=1e-12)
    assert np.array_equal(again.pred, pred[rows])


@pytest.mark.parametrize("voting", VOTING.names())
def test_equal_rows_get_equal_bits_wherever_they_stand(voting):
    for n in (1, 7, 64, 1001):
        prob = vote(rule(voting), np.repeat(LOGITS[:1], n, axis=0)).prob
        assert np.unique(prob).size == 1
        assert prob[0] == vote(rule(voting), LOGITS).prob[0]


@pytest.mark.parametrize("voting", VOTING.names())
def test_members_of_weight_0_are_not_looked_at(voting):
    logits = LOGITS.copy()
    logits[:, 2] = np.nan
    some = [0, 1, 3]
    without = vote(rule(voting, WEIGHTS[some], OWN[some]), LOGITS[:, some])
    zeroed = vote(rule(voting, WEIGHTS * [1, 1, 0, 1]), logits)
    assert np.array_equal(zeroed.prob, without.prob)
    assert np.array_equal(zeroed.pred, without.pred)


def test_logit_and_stack_vote_on_weighted_logits():
    prob, _ = vote(rule("logit"), LOGITS)
    assert prob == pytest.approx(sigmoid(LOGITS @ WEIGHTS))
    a_rule = dataclasses.replace(rule("stack", [2.0, -1.0, 0.0, 0.5]), intercept=-0.3)
    prob, _ = vote(a_rule, LOGITS)
    assert prob == pytest.approx(sigmoid(LOGITS @ [2.0, -1.0, 0.0, 0.5] - 0.3))


@pytest.mark.parametrize("voting", VOTING.names())
def test_curves_come_before_any_voting_and_survive_a_recipe(voting, tmp_path):
    curves = (
        Curve(2.0, 1.0),
        Curve(),
        Curve(x=(-1.0, 0.0, 2.0), y=(0.1, 0.4, 0.8)),
        fit_rank(LOGITS[:, 3]),
    )
    a_rule = dataclasses.replace(rule(voting), curves=curves)
    mapped = np.stack([c.logit(x) for c, x in zip(curves, LOGITS.T, strict=True)], axis=1)
    prob, pred = vote(a_rule, LOGITS)
    # Mapped logits of knots stay off 0 and 1, their probs do not: equal away from the ends.
    inside = (np.abs(mapped) < 12).all(axis=1)
    want = vote(rule(voting), mapped)
    assert inside.mean() > 0.9
    assert prob[inside] == pytest.approx(want.prob[inside], abs=1e-9)
    write_recipe(tmp_path / "r.json", recipe_of(a_rule))
    again = vote(rule_of(read_recipe(tmp_path / "r.json")), LOGITS)
    assert np.array_equal(again.prob, prob)
    assert np.array_equal(again.pred, pred)


def test_thresholds_by_kind():
    a_rule = dataclasses.replace(rule(threshold=0.5), by="kind", cuts={"video": 0.7, "image": 0.5})
    kinds = np.array(["image", "video"] * 100, dtype=object)
    prob, pred = vote(a_rule, LOGITS, kinds)
    assert np.array_equal(pred, prob >= np.where(kinds == "video", 0.7, 0.5))
    assert rule_of(recipe_of(a_rule)).cuts == a_rule.cuts
    ids = [f"{i:03d}" for i in range(200)]
    series = {m: pd.Series(LOGITS[:, i], index=ids) for i, m in enumerate("abcd")}
    values = pd.DataFrame({"kind": kinds, "domain": ""}, index=ids).sample(frac=1, random_state=0)
    assert np.array_equal(apply_recipe(recipe_of(a_rule), series, 0.5, values)["pred"], pred)
    with pytest.raises(UserError, match="thresholds by kind"):
        apply_recipe(recipe_of(a_rule), series, 0.5)
    with pytest.raises(UserError, match="kinds 'video', 'image', and a test item is of ''"):
        apply_recipe(recipe_of(a_rule), series, 0.5, values.assign(kind=""))


def test_vote_refuses_other_shapes_names_and_nan():
    with pytest.raises(ValueError, match=r"\(n, 4\)"):
        vote(rule(), LOGITS[:, :3])
    with pytest.raises(ValueError, match="infinite, or an item has none"):
        vote(rule(), np.full((2, 4), np.inf))
    one = np.where(np.arange(8).reshape(2, 4) == 1, np.nan, 0.3)
    with pytest.raises(ValueError, match="infinite, or an item has none"):
        vote(rule("stack"), one)  # coefficients of the others would not do
    with pytest.raises(ValueError, match="infinite, or an item has none"):
        vote(rule(weights=[0, 1, 0, 0]), one)
    with pytest.raises(UserError, match="unknown voting 'sofft'; did you mean 'soft'"):
        vote(rule("sofft"), LOGITS)


@pytest.mark.parametrize("voting", ["soft", "hard", "logit", "rank"])
def test_an_item_is_decided_by_those_that_predicted_it(voting):
    logits = np.where(RNG.random(LOGITS.shape) < 0.4, np.nan, LOGITS)
    curves = (Curve(2.0, 1.0), Curve(), Curve(0.5, -1.0), fit_rank(LOGITS[:, 3]))
    cuts = {"image": 0.4, "video": 0.6}
    kinds = np.array(["image", "video"] * 100, dtype=object)
    weights = np.array([0.5, 0.0, 0.3, 0.2])  # the second has no say, there or not
    a_rule = dataclasses.replace(rule(voting, weights), curves=curves, by="kind", cuts=cuts)
    known = can_vote(a_rule, logits)
    assert np.array_equal(known, ~np.isnan(logits[:, [0, 2, 3]]).all(axis=1))
    assert 0.85 < known.mean() < 1
    got = vote(a_rule, logits[known], kinds[known])
    for row, (logit, kind) in enumerate(zip(logits[known], kinds[known], strict=True)):
        there = np.flatnonzero(~np.isnan(logit))  # a rule of these alone, by hand
        alone = dataclasses.replace(
            a_rule, weights=weights[there], thresholds=OWN[there],
            curves=tuple(curves[i] for i in there),
        )  # fmt: skip
        want = vote(alone, logit[there][None], np.array([kind], dtype=object))
        assert (got.prob[row], got.pred[row]) == (want.prob[0], want.pred[0])


@pytest.mark.parametrize("voting", VOTING.names())
def test_prediction_decides_bit_for_bit_as_tuning_scored(voting, tmp_path):
    tuned = rule(voting, np.array([0.123, 0.0, 0.577, 0.3]), threshold=0.4321)
    write_recipe(tmp_path / "r.json", recipe_of(tuned))
    recipe = read_recipe(tmp_path / "r.json")
    ids = [f"{i:03d}" for i in range(200)]
    series = {m: pd.Series(LOGITS[:, i], index=ids) for i, m in enumerate("abcd") if m != "b"}
    series["c"] = series["c"].sample(frac=1, random_state=0)  # another order of rows
    got = apply_recipe(recipe, series, 0.5)
    want = vote(tuned, LOGITS)
    assert got["item_id"].tolist() == ids
    assert np.array_equal(got["prob"], want.prob)
    assert np.array_equal(got["pred"], want.pred)
    assert not got["fallback"].any()


def test_an_unreadable_item_gets_the_stated_fallback():
    a_rule = rule(weights=[1, 1, 0, 0], threshold=0.6)
    ids = ["x", "y", "z"]
    series = {
        "a": pd.Series([1.0, np.nan, 2.0], index=ids),
        "b": pd.Series([1.0, np.nan, 2.0], index=ids),
    }
    got = apply_recipe(recipe_of(a_rule), series, 0.7).set_index("item_id")
    assert got["fallback"].tolist() == [False, True, False]
    assert (got.loc["y", "prob"], got.loc["y", "pred"]) == (0.7, 1)
    assert apply_recipe(recipe_of(a_rule), series, 0.5).set_index("item_id").loc["y", "pred"] == 0
    nothing = {m: pd.Series([np.nan], index=["x"]) for m in "ab"}
    assert apply_recipe(recipe_of(a_rule), nothing, 0.7)["prob"].tolist() == [0.7]


@pytest.mark.parametrize(
    ("series", "match"),
    [
        ({"a": pd.Series([1.0], ["x"])}, "member 'b' has no predictions"),
        ({"a": pd.Series([1.0, 2.0], ["x", "x"])}, "a predicted item 'x' twice"),
        ({"a": pd.Series([np.inf], ["x"])}, "a: the logit of item 'x' is infinite"),
        (
            {"a": pd.Series([1.0, 1.0], ["x", "y"]), "b": pd.Series([1.0], ["x"])},
            "'y' was predicted by a and not by b",
        ),
        (
            {"a": pd.Series([1.0], ["x"]), "b": pd.Series([1.0, 1.0], ["x", "y"])},
            "'y' was predicted by b and not by a",
        ),
    ],
)
def test_apply_recipe_refuses_what_is_not_complete(series, match):
    with pytest.raises(UserError, match=match):
        apply_recipe(recipe_of(rule(weights=[1, 1, 0, 0])), series, 0.5)


def test_a_recipe_of_a_later_version_is_refused():
    recipe = recipe_of(rule())
    recipe.stages.insert(0, {"name": "prophecy", "params": {}})
    with pytest.raises(UserError, match=r"\['prophecy', 'voting', 'threshold'\].*tune.py"):
        rule_of(recipe)
    recipe.stages.pop(0)
    del recipe.stages[1]["params"]["value"]
    with pytest.raises(UserError, match="lacks 'value'"):
        rule_of(recipe)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"levels": [], "seed": 42}, "names no levels; run tune.py"),
        ({"levels": "jpeg70", "seed": 42}, "names no levels; run tune.py"),
        ({"levels": ["jpeg70"], "seed": "42"}, "has no seed; run tune.py"),
    ],
)
def test_deliveries_are_a_stage_that_a_recipe_keeps(tmp_path, params, match):
    looked = Deliveries(("jpeg70", "blur1"), 7)
    write_recipe(tmp_path / "r.json", recipe_of(dataclasses.replace(rule(), deliveries=looked)))
    recipe = read_recipe(tmp_path / "r.json")
    assert deliveries_of(recipe) == rule_of(recipe).deliveries == looked
    assert deliveries_of(recipe_of(rule())) is None
    recipe.stages[0]["params"] = params
    with pytest.raises(UserError, match=match):
        deliveries_of(recipe)


def views(rows):
    return pd.DataFrame(rows, columns=["item_id", "fold", "view", "logit"])


def test_views_are_pooled_per_fold_and_then_over_folds():
    table = views(
        [
            ("v", 0, "f00", 1.0),
            ("v", 0, "f01", 3.0),
            ("v", 1, "f00", 5.0),
            ("bad", 0, UNREADABLE, np.nan),
            ("bad", 1, UNREADABLE, np.nan),
        ]
    )
    pooled = pool_views(table.sample(frac=1, random_state=1), "mean_logit")
    assert pooled.index.tolist() == ["bad", "v"]
    assert np.isnan(pooled["bad"])
    assert pooled["v"] == 3.5  # (2 + 5) / 2, not the mean of all three


def test_each_fold_goes_through_its_own_curve_before_the_mean_over_folds(tmp_path):
    curves = {"0": Curve(2.0, 1.0), "1": Curve(0.5, -1.0)}
    a_rule = dataclasses.replace(rule(), folds={"a": curves})
    write_recipe(tmp_path / "r.json", recipe_of(a_rule))
    recipe = read_recipe(tmp_path / "r.json")
    assert fold_curves_of(recipe) == rule_of(recipe).folds == {"a": curves}
    table = views([("x", 0, "full", 1.0), ("x", 0, "full+flip", 3.0), ("x", 1, "full", -2.0),
                   ("x", 1, "full+flip", 0.0), ("y", 0, "f00", 1.0), ("y", 0, "f01", 5.0),
                   ("y", 1, "f00", 0.0), ("y", 1, "f01", 4.0)])  # fmt: skip
    pooled = pool_views(table, "max", curves)
    assert pooled["x"] == pytest.approx(((2 * 2 + 1) + (-1 * 0.5 - 1)) / 2)
    assert pooled["y"] == pytest.approx(((5 * 2 + 1) + (4 * 0.5 - 1)) / 2)
    # Delivered pictures count as the picture does, frame by frame, before the curve.
    blurred = table.assign(view="blur1:" + table["view"], logit=table["logit"] + 4)
    pooled = pool_views(pd.concat([table, blurred]), "max", curves)
    assert pooled["x"] == pytest.approx((((2 + 2) * 2 + 1) + ((-1 + 2) * 0.5 - 1)) / 2)
    assert pooled["y"] == pytest.approx((((5 + 2) * 2 + 1) + ((4 + 2) * 0.5 - 1)) / 2)
    with pytest.raises(UserError, match="'y' was not predicted at every level"):
        pool_views(pd.concat([table, blurred[blurred["item_id"] == "x"]]), "max", curves)
    recipe.stages[0]["params"] = {"curves": {"a": {"0": {}}}}
    with pytest.raises(UserError, match="fold calibration stage of the recipe is damaged"):
        fold_curves_of(recipe)


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([("v", 0, "f", 1.0), ("v", 0, "f", 1.0)], "item 'v', fold 0: view 'f' is there twice"),
        ([("v", 0, "f", np.inf)], "item 'v', fold 0: the logit is infinite"),
        ([("v", 0, "f", 1.0), ("v", 1, "f", 1.0), ("w", 1, "f", 1.0)], "'w' was not predicted by"),
        ([("v", 0, "f", 1.0), ("v", 1, UNREADABLE, np.nan)], "'v' is readable in one view"),
    ],
)
def test_pool_views_refuses_what_is_not_complete(rows, match):
    with pytest.raises(UserError, match=match):
        pool_views(views(rows))
