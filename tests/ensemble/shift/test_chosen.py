"""A recipe chosen under shift, against what its stored rules give when counted by hand."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from src import bootstrap, paths
from src.artifacts.recipes import read_recipe, write_recipe
from src.cli.tune_report import verdict_under
from src.ensemble.align import align
from src.ensemble.crossfitted import part_rules
from src.ensemble.rule import deliveries_of, vote
from src.ensemble.search import Search
from src.ensemble.shift.chosen import choose, same_share
from src.ensemble.shift.conditions import ROBUSTNESS, read_conditions
from src.ensemble.shift.delivered import seen_by
from src.ensemble.shift.few import FOUR
from src.ensemble.tune import tune
from src.metrics import metric_named
from src.reporting.evaluated import subject_of_recipe
from tests.ensemble.shift.synthetic import LEVELS, make_member, make_other_scheme, write_clean
from tests.ensemble.synthetic import DATA, SCHEME, make_folds

OTHER = "clusters4_s42"
pytestmark = pytest.mark.usefixtures("artefact_root")


def chosen(names=("mean",), metric="macro_f1", words=(ROBUSTNESS,), under=(ROBUSTNESS,)):
    search = Search(metric=metric_named(metric))
    aligned = align(DATA, SCHEME)
    conditions = read_conditions(aligned, words, seed=search.seed)

    def tune_on(rows, parts=None, own=search):
        return tune(rows, names=names, search=own, by_fold=False, parts=parts)

    return choose(conditions, under, 0.5, tune_on(aligned), tune_on, search), conditions


def kept(recipe):
    write_recipe(paths.recipe_json(DATA, "shifted"), recipe)
    return read_recipe(paths.recipe_json(DATA, "shifted"))


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch):
    monkeypatch.setattr(bootstrap, "REPLICATES", 200)


@pytest.mark.parametrize(("metric", "only"), [("macro_f1", (0, 1, 2)), ("auc", (0,))])
def test_scores_are_those_of_the_stored_rules_on_what_they_did_not_see(only, metric):
    folds = make_folds(n=360, groups=120)
    for seed, model in enumerate("ab"):
        make_member(folds, model, only=only, seed=seed)
    other = make_other_scheme(folds, OTHER, 4)
    for seed, model in enumerate("ab"):
        make_member(other, model, only=(2,), scheme=OTHER, levels={}, seed=seed + 5)
    names = ("mean",) if metric == "macro_f1" else ("log-loss-weights",)
    out, conditions = chosen(names, metric, (ROBUSTNESS, "clusters"))
    lines = {line.name: line for line in out.lines}
    assert list(lines) == ["clean", "mean transformed", "worst level", *LEVELS, OTHER]
    recipes = [kept(out.clean.recipe), kept(out.tuned.recipe)]
    scores = {}
    for name, (rows, part) in conditions.all.items():
        scores[name] = []
        for recipe in recipes:
            prob, pred = np.empty(len(rows)), np.empty(len(rows), dtype=np.int64)
            for k, rule in part_rules(recipe, align(DATA, SCHEME)).rules.items():
                here = part == k
                prob[here], pred[here] = vote(rule, rows.logit[here])
            score = f1_score(rows.label, pred, average="macro")
            scores[name].append(score if metric == "macro_f1" else roc_auc_score(rows.label, prob))
        assert lines[name].scores == pytest.approx(scores[name], abs=1e-9)
    levels = np.array([scores[level] for level in LEVELS])
    assert lines["mean transformed"].scores == pytest.approx(levels.mean(axis=0), abs=1e-9)
    assert lines["worst level"].scores == pytest.approx(levels.min(axis=0), abs=1e-9)
    mean = lines["mean transformed"]
    assert mean.gain == pytest.approx(mean.scores[1] - mean.scores[0])
    assert mean.gain_interval[0] <= mean.gain <= mean.gain_interval[1]
    if metric == "macro_f1":  # every level moves logits down, so the mixture's threshold is lower
        assert mean.gain_interval[0] > 0
        assert lines["clean"].gain < 0
        cuts = [recipe.stage("threshold")["value"] for recipe in recipes]
        assert cuts[1] < cuts[0]


def test_the_recipe_says_what_it_was_chosen_on_and_is_scored_as_any_other():
    folds = make_folds(n=480, groups=160)
    for seed, model in enumerate("ab"):
        make_member(folds, model, seed=seed)
    out, _ = chosen()
    recipe = kept(out.tuned.recipe)
    said = recipe.search["under"]
    assert said["conditions"] == ["robustness"]
    assert (said["levels"], said["seed"], said["clean_share"]) == ([*LEVELS], 42, 0.5)
    assert said["rows"] == {"clean": 3 * 480, "robustness": 3 * 480}
    assert recipe.scores["rows"] == 480
    subject = subject_of_recipe("shifted", recipe)
    assert subject.crossfitted is not None
    score = f1_score(subject.crossfitted.label, subject.crossfitted.pred, average="macro")
    assert score == pytest.approx(recipe.scores["cross_fitted"], abs=1e-12)
    line = recipe.scores["under"]["lines"][0]
    assert line["scores"][1] == recipe.scores["cross_fitted"]
    low, high = recipe.scores["threshold_interval"]
    assert low <= recipe.stage("threshold")["value"] <= high
    again, _ = chosen()
    assert again.tuned.recipe == out.tuned.recipe


@pytest.mark.parametrize(("own_noise", "taken"), [(1.5, True), (0.0, False)])
def test_a_few_deliveries_have_to_earn_their_place_on_the_items_as_they_are(own_noise, taken):
    folds = make_folds(n=900, groups=300)
    levels = dict.fromkeys(FOUR, (-0.5, 1.0))
    logits = {
        model: make_member(folds, model, levels=levels, noise=1.5, own_noise=own_noise, seed=seed)
        for seed, model in enumerate("ab")
    }
    if taken:  # what is as it is errs by itself too
        rng = np.random.default_rng(9)
        for model in "ab":
            noisy = logits[model]["clean"] + rng.normal(size=len(folds)) * 2.0
            for fold in (0, 1, 2):
                write_clean(folds, (DATA, SCHEME, model, fold), noisy)
            logits[model]["clean"] = noisy
    out, _ = chosen()
    plain, looked = out.looks
    assert (looked.name, looked.over, looked.taken) == ("mean of 4 deliveries", plain.name, taken)
    recipe = kept(out.tuned.recipe)
    rows = align(DATA, SCHEME)
    first, second = out.lines[:2]
    if not taken:
        assert deliveries_of(recipe) is None
        assert (first.before_deliveries, second.before_deliveries) == (False, False)
        return
    assert [(line.name, line.before_deliveries) for line in out.lines[:2]] == [
        ("clean", False), ("clean", True),
    ]  # fmt: skip
    assert first.scores == [second.scores[0], looked.cross_fitted]
    said = f"on these, with that mean as it predicts, {first.gain:+.4f}."
    assert said in verdict_under(out)
    assert deliveries_of(recipe) == (FOUR, 42)
    means = seen_by(recipe, rows).logit
    for column, model in enumerate("ab"):
        every = np.mean([logits[model][level] for level in ("clean", *FOUR)], axis=0)
        wanted = dict(zip(folds["item_id"], every, strict=True))
        np.testing.assert_allclose(means[:, column], [wanted[i] for i in rows.item_id])
    subject = subject_of_recipe("shifted", recipe)
    score = f1_score(subject.crossfitted.label, subject.crossfitted.pred, average="macro")
    assert score == pytest.approx(recipe.scores["cross_fitted"], abs=1e-12)
    assert score == pytest.approx(looked.cross_fitted, abs=1e-12)
    before = vote(out.mixed.winner.rule, rows.logit).pred.sum()
    assert vote(out.tuned.winner.rule, means).pred.sum() == before  # as many are called fake


def test_a_threshold_calls_as_many_fake_as_are_asked_for():
    rng = np.random.default_rng(0)
    for n in (1, 2, 17):
        prob = rng.random(n)
        for count in range(n + 1):
            assert (prob >= same_share(prob, count)).sum() == count
