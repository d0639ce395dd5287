"""What predicts under the rules of a competition, on members whose worth is known."""

import numpy as np
import pandas as pd
import pytest

from src import paths
from src.artifacts.competition import read_rules
from src.artifacts.files import sha256_file, write_csv
from src.artifacts.oof import write_views
from src.ensemble.align import align, oof_of
from src.ensemble.offers import ACROSS, ENSEMBLE, ONE, REFIT, WITHIN, kind_of
from src.ensemble.search import Search
from src.ensemble.stand_ins import chosen_elsewhere, one_view
from src.ensemble.tune import tune
from src.ensemble.under_rules import under_rules
from src.errors import UserError
from src.metrics import macro_f1
from tests.ensemble.synthetic import DATA, SCHEME, make_folds, make_oof
from tests.records import make_record

pytestmark = pytest.mark.usefixtures("artefact_root")
SINGLE = {"single_model": True}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Leave out the interval of the threshold, which takes most of the time."""
    monkeypatch.setattr("src.ensemble.tune._threshold_interval", lambda *_: None)


def ingredient(model, **more):
    return {"name": model or "start", "model": model or None, "chosen": False, **more}


def merged(*models, **more):
    return {"ingredients": [ingredient(model) for model in models], "chosen": None, **more}


def member(folds, name, noise=1.0, seed=0, only=(0, 1, 2), **record):
    """Write predictions and records of a member."""
    make_oof(folds, name, noise=noise, seed=seed, only=only)
    for fold in only:
        make_record(DATA, SCHEME, name, fold, **record)


def ladder(rows):
    return tune(rows, names=["best-member", "mean"] if len(rows.models) > 1 else ["mean"])


def ruled(rules, items=None):
    aligned = align(DATA, SCHEME)
    read = read_rules(rules, "rules")
    return under_rules(aligned, ladder(aligned), read, ladder, Search(), items=items)


def runs_of(offer):
    return [(member.model, fold) for member, fold in offer.tuned.recipe.runs()]


def offer_of(found, kind):
    return next(offer for offer in found.offers if offer.kind == kind)


@pytest.mark.parametrize(
    ("merged_from", "kind"),
    [
        (None, ONE),
        (merged("", "a"), WITHIN),  # from the start to a
        (merged("a", "a"), WITHIN),
        (merged("a", "b"), ACROSS),
        ({"ingredients": [ingredient("soup", ingredients=[ingredient("a")])]}, WITHIN),
        (
            {"ingredients": [ingredient("soup", ingredients=[ingredient("a"), ingredient("b")])]},
            ACROSS,
        ),
    ],
)
def test_what_kind_a_member_is(merged_from, kind):
    make_record(DATA, SCHEME, "m", 1, merged_from=merged_from)
    assert kind_of(DATA, SCHEME, "m", [0, 1]) == kind
    assert kind_of(DATA, SCHEME, "x", [0, 1]) == "from elsewhere"


def test_a_soup_that_beats_the_models_by_more_than_luck_predicts_alone():
    folds = make_folds(n=600, groups=200)
    member(folds, "a", 1.6)
    member(folds, "b", 1.6, seed=1)
    member(folds, "soup", 0.9, seed=2, merged_from=merged("a", "b"))
    found = ruled(SINGLE)
    assert found.chosen.kind == ACROSS
    assert runs_of(found.chosen) == [("soup", 0)]
    recipe = found.tuned().recipe
    assert recipe.ships == ACROSS
    assert recipe.rules == SINGLE
    assert [one.model for one in recipe.members] == ["soup"]
    assert recipe.members[0].oof_sha256.keys() == {"0", "1", "2"}  # what it was tuned on
    assert [each["kind"] for each in recipe.scores["kinds"]] == [
        ONE, REFIT, WITHIN, ACROSS, ENSEMBLE,
    ]  # fmt: skip
    assert "9 files" in offer_of(found, ENSEMBLE).broken[0] or found.price.cost < 0.05
    assert "merge makes one" in offer_of(found, WITHIN).lacking


def test_of_equal_kinds_the_simplest_stands():
    folds = make_folds()
    member(folds, "a", seed=1)
    member(folds, "soup", seed=2, noise=1.0, merged_from=merged("a", "a"))
    found = ruled(SINGLE)
    soup = offer_of(found, WITHIN).score
    assert soup.over == ONE
    assert (found.chosen.kind == WITHIN) == (soup.gain > soup.gain_se)
    refit = offer_of(found, REFIT)
    assert refit.lacking == "not trained: train_folds.py --model a --fold all"
    assert refit.score.cross_fitted == offer_of(found, ONE).score.cross_fitted


def test_a_refit_takes_the_place_of_its_own_folds():
    folds = make_folds()
    member(folds, "a")
    member(folds, "b", 3.0, seed=1)
    make_record(DATA, SCHEME, "b", paths.ALL)
    assert ruled(SINGLE).chosen.kind == ONE  # a refit of the worse model is none of the better one
    refit = make_record(DATA, SCHEME, "a", paths.ALL, checkpoint_sha256="5" * 64)
    found = ruled(SINGLE)
    offer = offer_of(found, REFIT)
    assert offer.fits
    assert runs_of(offer) == [("a", paths.ALL)]
    recipe = offer.tuned.recipe
    assert recipe.members[0].checkpoint_sha256[paths.ALL] == refit["checkpoint_sha256"]
    assert found.chosen is offer
    assert found.chosen.score == offer_of(found, ONE).score
    make_record(DATA, SCHEME, "a", paths.ALL, config_sha256="of another config")
    paths.run_record(DATA, SCHEME, "b", paths.ALL).unlink()
    found = ruled(SINGLE)
    assert offer_of(found, REFIT).lacking.startswith("not trained")
    assert found.chosen.kind == ONE


def test_the_fold_that_predicts():
    folds = make_folds(n=600, groups=200)
    member(folds, "a", noise=1.5)
    assert runs_of(ruled(SINGLE).chosen) == [("a", 0)]
    assert "differ by chance alone" in ruled(SINGLE).chosen.note
    make_oof(folds, "a", noise=0.5, only=[2])
    make_record(DATA, SCHEME, "a", 2)
    best = ruled(SINGLE).chosen
    assert runs_of(best) == [("a", 2)]
    assert best.note.startswith("fold 2 is clearly the best")


def test_members_that_break_a_rule_alone_are_passed_over():
    folds = make_folds()
    member(folds, "large", 0.5, parameters=4_000_000)
    member(folds, "small", 1.2, seed=1, parameters=1_000_000)
    assert runs_of(ruled(SINGLE).chosen) == [("large", 0)]
    found = ruled({"max_params": 2e6})
    assert runs_of(found.chosen) == [("small", 0), ("small", 1)]  # as many as there is room for
    assert found.chosen.note.startswith("2 of its 3 folds, as many as the rules let predict")
    assert runs_of(ruled({"max_params": 1e6}).chosen) == [("small", 0)]
    assert runs_of(ruled({"max_params": 3e6}).chosen) == [("small", k) for k in range(3)]


def test_nothing_obeys():
    folds = make_folds()
    member(folds, "a", parameters=3_000_000)
    member(folds, "b", 1.5, seed=1, parameters=2_000_000)
    found = ruled({"max_params": 1e6})
    assert found.chosen is None
    with pytest.raises(UserError) as error:
        found.tuned()
    said = str(error.value)
    score = offer_of(found, ONE).score.cross_fitted
    assert "nothing that is trained obeys the rules (max_params: 1e6)" in said
    assert f"one model (a, fold 0, macro_f1 {score:.4f}" in said
    assert "breaks max_params (3.0 M parameters)" in said


def means_of(names):
    """Return the predictions of alike members, and their mean as tuned without rules."""
    folds = make_folds()
    for seed, name in enumerate(names):
        member(folds, name, 1.5, seed=seed)
    aligned = align(DATA, SCHEME)
    return aligned, tune(aligned, names=["mean"])


def test_rules_that_the_ensemble_obeys_change_nothing():
    aligned, free = means_of("abc")
    found = under_rules(aligned, free, read_rules({"max_files": 9}, ""), ladder, Search())
    assert found.chosen.kind == ENSEMBLE
    assert found.chosen.tuned.recipe.members == free.recipe.members
    assert found.price.cost == 0
    three = under_rules(aligned, free, read_rules({"max_files": 3}, ""), ladder, Search())
    together = offer_of(three, ENSEMBLE)
    assert runs_of(together) == [("a", 0), ("b", 0), ("c", 0)]
    two = under_rules(aligned, free, read_rules({"max_files": 2}, ""), ladder, Search())
    assert len(runs_of(offer_of(two, ENSEMBLE))) <= 2
    assert offer_of(two, ENSEMBLE).fits


def test_hours_are_of_the_test_items_at_a_third_of_a_step_of_training():
    folds = make_folds()
    member(folds, "a", items_per_second=5.0)
    offer = ruled(SINGLE, items=54_000).chosen
    assert offer.load.hours == pytest.approx(1.0)
    assert ruled({"max_hours": 0.5}, items=54_000).chosen is None


def test_the_price_is_paired():
    aligned, free = means_of("abcd")
    found = under_rules(aligned, free, read_rules(SINGLE, ""), ladder, Search())
    both = [each.winner.votes.pred for each in (free, found.chosen.tuned)]
    scores = [macro_f1(aligned.label, pred) for pred in both]
    assert found.price.cost == pytest.approx(scores[0] - scores[1])
    low, high = found.price.interval
    assert low < found.price.cost < high


def two_views(folds, name, seed):
    """Write a member whose logits are means with those of mirror images; returns plain ones."""
    rng = np.random.default_rng(seed)
    plain = make_oof(folds, name, seed=seed)
    mirror = plain + rng.normal(size=len(plain))
    mean = folds.assign(logit=((plain + mirror) / 2).loc[folds["item_id"]].to_numpy())
    for fold in range(3):
        part = mean[mean["fold"] == fold]
        ids = part["item_id"].tolist()
        write_csv(paths.oof_csv(DATA, SCHEME, name, fold),
                  part[["item_id", "fold", "label", "logit"]].sort_values("item_id"))  # fmt: skip
        views = pd.concat([
            pd.DataFrame(
                {"item_id": ids, "fold": fold, "view": view, "logit": logit.loc[ids].to_numpy()}
            )
            for view, logit in (("full", plain), ("full+flip", mirror))
        ])  # fmt: skip
        write_views(paths.oof_views(DATA, SCHEME, name, fold), views, {"pool": "mean_prob"})
        record = make_record(DATA, SCHEME, name, fold)
        make_record(DATA, SCHEME, name, fold, config=record["config"] | {"tta": "flip"})
    return plain


def test_one_view_is_scored_by_the_logits_of_one_view():
    folds = make_folds()
    plain = two_views(folds, "a", 0)
    member(folds, "b", 3.0, seed=5)
    aligned = align(DATA, SCHEME)
    seen = one_view(aligned)
    np.testing.assert_array_equal(seen.logit[:, 0], plain.loc[seen.item_id])
    np.testing.assert_array_equal(seen.logit[:, 1], aligned.logit[:, 1])
    found = ruled({"tta": False, "single_model": True})
    assert found.chosen.load.views == 1
    recipe = found.tuned().recipe
    assert recipe.one_view
    (column,) = oof_of(recipe).logit.T
    np.testing.assert_array_equal(column, plain.loc[seen.item_id])
    own = tune(seen, names=["best-member"])
    assert recipe.scores["cross_fitted"] == pytest.approx(
        macro_f1(seen.label, own.winner.votes.pred)
    )
    paths.oof_views(DATA, SCHEME, "a", 1).unlink()
    with pytest.raises(UserError, match=r"fold_1\.views\.parquet is not there"):
        ruled({"tta": False})


def test_a_merge_that_these_rows_chose_is_scored_as_other_rows_chose_it():
    folds = make_folds()
    member(folds, "a", 1.5)
    member(folds, "soup", 0.1, seed=1)  # as it looks on the rows that chose it
    honest = np.random.default_rng(3).normal(size=len(folds))
    table = folds.assign(half=np.arange(len(folds)) // 3 % 2, logit_0=honest, logit_1=-honest)
    for fold in range(3):
        part = table[table["fold"] == fold].sort_values("item_id")
        file = paths.cross_fitted_csv(DATA, SCHEME, "soup", fold)
        write_csv(file, part[["item_id", "half", "logit_0", "logit_1"]])
        chosen = merged("a", "b", chosen={"x": 1}, cross_fitted_sha256=sha256_file(file))
        make_record(DATA, SCHEME, "soup", fold, merged_from=chosen, selection="best")
    aligned = align(DATA, SCHEME)
    seen, names = chosen_elsewhere(aligned, one_view=False)
    assert names == ["soup"]
    wanted = table.set_index("item_id").loc[seen.item_id]
    expected = np.where(wanted["half"] == 1, wanted["logit_0"], wanted["logit_1"])
    np.testing.assert_array_equal(seen.logit[:, 1], expected)
    found = ruled(SINGLE)
    assert offer_of(found, ACROSS).score.cross_fitted < 0.7  # its own logits are perfect
    assert found.chosen.kind == ONE


def test_members_of_different_folds_are_told_apart_where_all_predicted():
    folds = make_folds(n=600, groups=300)
    member(folds, "a", noise=2.0)
    member(folds, "b", seed=1, only=(0,))
    aligned = align(DATA, SCHEME)
    found = under_rules(aligned, ladder(aligned), read_rules(SINGLE, ""), ladder, Search())
    assert found.note == "compared on the 200 items that all members predicted"
    one = offer_of(found, ONE)
    assert [(m.model, m.folds) for m in one.tuned.recipe.members] == [("b", [0])]
    assert one.tuned.recipe.folds == [0]


def test_what_is_chosen_on_shared_items_is_fitted_on_all_of_its_own():
    folds = make_folds(n=600, groups=300)
    member(folds, "a", noise=2.0, only=(0, 1))
    member(folds, "b", noise=2.0, seed=1, only=(0,))
    member(folds, "c", noise=0.8, seed=2)
    found = ruled(SINGLE)
    assert offer_of(found, ONE).score.cross_fitted != found.own.score.cross_fitted
    recipe = found.tuned().recipe
    alone = tune(align(DATA, SCHEME, ["c"]), names=["mean"]).recipe
    assert recipe.folds == [0, 1, 2]
    assert recipe.scores["rows"] == 600
    assert recipe.scores["cross_fitted"] == pytest.approx(alone.scores["cross_fitted"])
    assert recipe.stages == alone.stages
    assert "compared on the 200 items that all members predicted; c, fold" in found.note
    assert "is fitted on all 600 of its own" in found.note
    assert found.price.interval is not None


@pytest.mark.parametrize(
    ("rules", "runs"),
    [
        (SINGLE, {("c", 1), ("c", 2)}),
        ({"max_files": 2}, {("c", 1), ("c", 2)}),
        ({"max_params": 1.5e6}, {("a", 0)}),  # c is too large
        ({"max_files": 4}, {("a", 0), ("b", 0), ("c", 1), ("c", 2)}),  # nothing is forbidden
    ],
)
def test_members_that_share_no_items_are_not_compared(rules, runs):
    folds = make_folds(n=600, groups=300)
    member(folds, "a", noise=2.0, only=(0,), parameters=1_000_000)
    member(folds, "b", noise=0.5, seed=1, only=(0,), parameters=2_000_000)
    member(folds, "c", noise=1.0, seed=2, only=(1, 2), parameters=2_000_000)
    found = ruled(rules)
    assert {*runs_of(found.chosen)} <= runs
    assert "nothing compares them on the same ones" in found.note
    assert found.price is None
    recipe = found.tuned().recipe
    assert recipe.scores["rows"] == (600 if len(runs) == 4 else 200 if ("a", 0) in runs else 400)
    if "max_files" in rules:
        assert {*runs_of(found.chosen)} == runs
