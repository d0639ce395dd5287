import dataclasses
import json

import numpy as np
import pytest

from src import paths
from src.artifacts.recipes import check_recipe_fresh, read_recipe, write_recipe
from src.ensemble.align import align
from src.ensemble.rule import rule_of, vote
from src.ensemble.search import Search, ladder
from src.ensemble.tune import n_trials, tune
from src.errors import UserError
from src.metrics import macro_f1
from tests.ensemble.synthetic import DATA, SCHEME, make_folds, make_oof, oof_path

pytestmark = pytest.mark.usefixtures("artefact_root")
QUICK = Search(trials=15, seed=0)


def toy(models=2, n=240, groups=80, only=None, **oof):
    folds = make_folds(n=n, groups=groups)
    for i in range(models):
        make_oof(folds, "abc"[i], seed=i, only=only, **oof)
    return align(DATA, SCHEME)


def names(tuned):
    return [candidate.name for candidate in tuned.candidates]


def test_the_recipe_reproduces_its_own_score():
    aligned = toy(3, shift=1.0)
    for voting in ("soft", "hard"):
        tuned = tune(aligned, voting=voting, search=QUICK)
        path = paths.recipe_json(DATA, voting)
        write_recipe(path, tuned.recipe)
        recipe = read_recipe(path)
        assert recipe == dataclasses.replace(
            tuned.recipe, scores=json.loads(json.dumps(tuned.recipe.scores))
        )
        assert recipe.stage("voting") == {"rule": voting}
        pred = vote(rule_of(recipe), aligned.logit).pred
        assert macro_f1(aligned.label, pred) == recipe.scores["in_sample"]
        check_recipe_fresh(recipe)


def test_a_shifted_mean_gets_its_threshold():
    tuned = tune(toy(1, n=900, groups=300, shift=2.0), names=["mean@0.5", "mean"])
    assert (names(tuned), tuned.chosen) == (["mean@0.5", "mean"], "mean")
    mean = tuned.candidates[1]
    assert mean.taken
    assert mean.gain > mean.gain_se > 0
    assert mean.over == "mean@0.5"
    scores = tuned.recipe.scores
    assert scores["incumbent"] == tuned.candidates[0].cross_fitted < scores["cross_fitted"]
    assert scores["interval"][0] < scores["cross_fitted"] < scores["interval"][1]
    assert (scores["rows"], scores["groups"]) == (900, 300)
    assert tuned.recipe.search == {
        "strategy": "mean", "sampler": None, "trials": 0, "seed": 42, "parts": "fold"
    }  # fmt: skip


def test_nothing_to_gain_keeps_the_incumbent():
    aligned = dataclasses.replace(toy(2, noise=0.5, n=600, groups=200), selected_on=["b"])
    tuned = tune(aligned, search=QUICK)
    assert tuned.chosen == "mean@0.5"
    assert tuned.candidates[0].in_sample == tuned.candidates[0].cross_fitted
    assert tuned.recipe.scores["selected_on"] == ["b"]
    for candidate in tuned.candidates[1:]:
        assert candidate.over == "mean@0.5"
        assert candidate.gain <= candidate.gain_se
        assert not candidate.taken
    assert tuned.recipe.stage("threshold") == {"value": 0.5}
    assert [m.weight for m in tuned.recipe.members] == [0.5, 0.5]


def test_a_noise_member_is_weighted_down():
    folds = make_folds(n=900, groups=300)
    make_oof(folds, "a", noise=1.0)
    make_oof(folds, "b", noise=9.0, seed=1)
    tuned = tune(align(DATA, SCHEME), search=QUICK)
    weights = {member.model: member.weight for member in tuned.recipe.members}
    assert weights["a"] > 0.7 * sum(weights.values())
    only = tune(align(DATA, SCHEME), names=["tpe"], search=QUICK)
    assert only.recipe.search == {
        "strategy": "tpe", "sampler": "TPESampler", "trials": 15, "seed": 0, "parts": "fold"
    }  # fmt: skip


def test_hard_voting_shows_the_plain_mean_but_writes_hard_voting():
    tuned = tune(toy(3), voting="hard", search=QUICK)
    assert names(tuned) == ["mean@0.5", "majority@0.5", "majority", "weighted-majority"]
    assert tuned.recipe.stage("voting") == {"rule": "hard"}
    assert tuned.candidates[0].over is None
    assert not tuned.candidates[0].taken
    assert any("mean@0.5 is shown for comparison" in note for note in tuned.notes)


def test_one_fold_is_cross_fitted_inside():
    tuned = tune(toy(2, n=300, groups=150, only=[1]), search=QUICK)
    assert tuned.recipe.folds == [1]
    assert "5 parts of fold 1 by group" in tuned.notes[0]
    assert tuned.candidates[1].cross_fitted is not None


def test_the_interval_says_what_is_taken_for_granted_of_the_folds():
    folds = make_folds(n=900, groups=300)

    def scores_and_note(only):
        make_oof(folds, "a", only=only, shift=2.0)
        tuned = tune(align(DATA, SCHEME), names=["mean@0.5", "mean"])
        (note,) = (note for note in tuned.notes if "taken for granted" in note)
        assert tuned.recipe.scores["interval"] == tuned.candidates[1].interval
        return tuned.recipe.scores, note

    one, note = scores_and_note([1])
    assert note.startswith("one fold of one net: how much folds differ cannot be seen yet")
    assert f"{one['folds_se']:.4f}" in note
    assert "train more folds" in note
    all_three, note = scores_and_note([0, 2])
    assert "67% of it taken for granted and the rest seen in 3 folds" in note
    for scores in (one, all_three):
        low, high = scores["interval"]
        assert high - low > 3.9 * (scores["rows_se"] ** 2 + scores["folds_se"] ** 2) ** 0.5


def test_a_perfect_score_does_not_pass_for_certainty():
    tuned = tune(toy(1, noise=0.01), names=["mean@0.5"])
    assert tuned.recipe.scores["interval"] == (1.0, 1.0)
    assert any("fewer than 3 of 80 groups may have gone unseen" in note for note in tuned.notes)


def test_below_ten_groups_there_is_no_interval_and_the_incumbent_stays():
    tuned = tune(toy(1, n=90, groups=9, shift=3.0))
    assert tuned.chosen == "mean@0.5"
    assert tuned.candidates[1].cross_fitted > tuned.candidates[0].cross_fitted
    assert all(c.interval is None and c.gain_se is None for c in tuned.candidates)
    assert tuned.recipe.scores["interval"] is None
    assert any("9 groups are fewer than 10" in note for note in tuned.notes)


def test_too_few_groups_to_cross_fit_keeps_the_incumbent_and_says_so():
    tuned = tune(toy(1, n=90, groups=9, only=[0], shift=3.0))
    assert tuned.chosen == "mean@0.5"
    assert all(c.cross_fitted is None for c in tuned.candidates)
    assert tuned.candidates[1].in_sample > tuned.candidates[0].in_sample
    assert "too few to cross-fit" in tuned.notes[0]
    write_recipe(paths.recipe_json(DATA, "r"), tuned.recipe)


def test_trials_are_counted_before_they_run():
    aligned = toy(2)
    calls = []
    tune(aligned, search=Search(7, 0, lambda: calls.append(1)))
    assert len(calls) == n_trials(aligned, ladder(2), Search(7, 0)) == 2 * 7 * 4
    assert n_trials(aligned, ladder(2), Search()) == (100 + 300) * 4
    assert n_trials(align(DATA, SCHEME, ["a"]), ladder(1), Search(7, 0)) == 0


def test_thresholds_by_kind_search_nothing_again():
    aligned = toy(2, n=1800, groups=600)
    kind = np.where(np.arange(1800) % 2, "video", "image").astype(object)
    calls = []
    search = Search(7, 0, lambda: calls.append(1))
    tuned = tune(dataclasses.replace(aligned, kind=kind), names=["tpe"], search=search)
    names = [c.name for c in tuned.candidates if "calibrated" not in c.name]
    assert names == ["mean@0.5", "tpe", "tpe by kind"]
    assert len(calls) == n_trials(aligned, ["tpe"], search) == 7 * 4


def test_naming_the_members_in_another_order_changes_nothing():
    toy(3)
    first = tune(align(DATA, SCHEME, ["a", "b", "c"]), search=QUICK).recipe
    assert tune(align(DATA, SCHEME, ["c", "a", "b"]), search=QUICK).recipe == first


def test_order_of_rows_changes_nothing():
    aligned = toy(2, shift=1.0)
    order = np.random.default_rng(0).permutation(aligned.label.size)
    mixed = dataclasses.replace(
        aligned,
        **{key: getattr(aligned, key)[order] for key in ("label", "group", "fold", "logit")},
    )
    first, second = (tune(a, search=QUICK) for a in (aligned, mixed))
    assert second.candidates == first.candidates
    assert second.recipe == first.recipe


def test_videos_get_their_own_threshold_only_where_it_pays():
    folds = make_folds(n=1800, groups=600)
    make_oof(folds)
    aligned = align(DATA, SCHEME, ["a"])
    kind = np.where(np.arange(1800) % 2, "video", "image").astype(object)
    plain = tune(dataclasses.replace(aligned, kind=kind), search=QUICK)
    assert plain.candidates[-1].name == f"{plain.candidates[-1].over} by kind"
    assert "by" not in plain.recipe.stage("threshold")
    logits = aligned.logit + 3.0 * (kind == "video")[:, None]
    shifted = dataclasses.replace(aligned, kind=kind, logit=logits)
    tuned = tune(shifted, search=QUICK)
    assert tuned.chosen.endswith(" by kind")
    stage = tuned.recipe.stage("threshold")
    assert stage["by"] == "kind"
    assert stage["values"]["video"] > stage["values"]["image"] + 0.3
    pred = vote(rule_of(tuned.recipe), logits, kind).pred
    assert macro_f1(aligned.label, pred) == tuned.recipe.scores["in_sample"]


@pytest.mark.parametrize("path", [lambda: oof_path("b", 2), lambda: paths.folds_csv(DATA, SCHEME)])
def test_a_recipe_is_refused_once_its_files_change(path):
    recipe = tune(toy(2), search=QUICK).recipe
    check_recipe_fresh(recipe)
    content = path().read_bytes()
    path().write_bytes(content.replace(b"0", b"1", 1))
    with pytest.raises(UserError, match=f"{path().name} has changed since.*run tune.py again"):
        check_recipe_fresh(recipe)
    path().unlink()
    with pytest.raises(UserError, match=f"{path().name} is gone since.*run tune.py again"):
        check_recipe_fresh(recipe)
