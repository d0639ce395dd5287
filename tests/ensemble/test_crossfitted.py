"""A recipe keeps the rules of its cross-fitted score, and they give it again."""

from dataclasses import replace

import numpy as np
import pytest

from src import paths
from src.artifacts.files import read_json, write_json
from src.artifacts.recipes import read_recipe, write_recipe
from src.ensemble.align import align, oof_of
from src.ensemble.crossfitted import REST, part_rules
from src.ensemble.search import Search
from src.ensemble.tune import tune
from src.errors import UserError
from src.metrics import metric_named, score_of
from tests.ensemble.synthetic import DATA, SCHEME, make_folds, make_oof

pytestmark = pytest.mark.usefixtures("artefact_root")


@pytest.mark.parametrize(
    ("only", "names", "metric"),
    [
        (None, ["mean"], "macro_f1"),
        (None, ["greedy"], "mcc"),
        ([1], ["platt-mean"], "macro_f1"),
        ([1], ["best-member"], "log_loss"),
        (None, ["stack-free"], "auc"),
    ],
)
def test_the_kept_rules_give_the_cross_fitted_score(only, names, metric):
    folds = make_folds()
    for seed, name in enumerate(("a", "b", "c")):
        make_oof(folds, name, only=only, shift=0.5 * seed, noise=1.5, seed=seed)
    search = Search(metric=metric_named(metric))
    path = paths.recipe_json(DATA, "tuned")
    write_recipe(path, tune(align(DATA, SCHEME), names=names, search=search).recipe)
    recipe = read_recipe(path)
    rows = oof_of(recipe)
    found = part_rules(recipe, rows)
    assert found is not None
    decided = found.decide(rows)
    score = score_of(search.metric, decided.label, decided.prob, decided.pred)
    assert score == pytest.approx(recipe.scores["cross_fitted"], abs=1e-12)
    assert decided.item_id.tolist() == rows.item_id.tolist()


def test_rows_of_a_fold_that_was_finished_later_are_decided_by_the_recipe_itself():
    folds = make_folds()
    make_oof(folds, "a", shift=1.0)
    aligned = align(DATA, SCHEME)
    early = replace(aligned.take(aligned.fold < 2), folds=[0, 1])
    recipe = tune(early, names=["mean"]).recipe
    found = part_rules(recipe, aligned)
    assert found is not None
    assert {int(k): set(aligned.fold[found.part == k]) for k in np.unique(found.part)} == {
        REST: {2}, 0: {0}, 1: {1},
    }  # fmt: skip
    late = found.decide(aligned).threshold[aligned.fold == 2]
    assert set(late) == {recipe.stage("threshold")["value"]}


def test_without_enough_groups_there_are_none():
    make_oof(make_folds(n=27, groups=9), "a", only=[0])  # two groups of fakes, one of reals
    recipe = tune(align(DATA, SCHEME), names=["mean"]).recipe
    assert recipe.crossfit == {}
    assert part_rules(recipe, oof_of(recipe)) is None


def test_rules_of_other_members_are_refused():
    make_oof(make_folds(), "a")
    path = paths.recipe_json(DATA, "tuned")
    write_recipe(path, tune(align(DATA, SCHEME), names=["mean"]).recipe)
    record = read_json(path, schema=1, what="recipe", sealed=True)
    record["crossfit"]["0"]["weights"] = {"b": 1.0}
    write_json(path, record, seal=True)
    with pytest.raises(UserError, match="is of other members"):
        read_recipe(path)
