"""Members that have finished different folds. Oracles: loops by hand, scikit-learn's scores."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from src import paths
from src.artifacts.folds import read_folds
from src.artifacts.oof import write_views
from src.artifacts.recipes import read_recipe, write_recipe
from src.cli.evaluate import main as evaluate
from src.cli.tune import main
from src.ensemble.align import align
from src.ensemble.crossfit import fit_rule, judge, make_parts, try_strategy
from src.ensemble.rule import Votes, equal_weights
from src.ensemble.search import STRATEGIES, Search, Strategy
from src.ensemble.strategy import with_best_threshold
from src.ensemble.tune import tune
from src.ensemble.uncertainty import fold_scores
from src.ensemble.vote import apply_recipe
from src.errors import UserError
from src.inference import stored
from src.inference.member_logits import member_logits
from src.metrics import MACRO_F1, sigmoid
from src.reporting.evaluated import own_rows, subject_of_recipe
from src.thresholds import best_threshold
from tests.ensemble.synthetic import DATA, SCHEME, make_folds, make_oof
from tests.records import make_record

pytestmark = pytest.mark.usefixtures("artefact_root")
FOLDS_OF = {"a": [0, 1, 2], "b": [0, 1], "c": [0]}


def ragged(folds_of=FOLDS_OF, n=600, noise=1.0):
    folds = make_folds(n=n, groups=n // 2)
    for seed, (model, some) in enumerate(folds_of.items()):
        make_oof(folds, model, only=some, seed=seed, noise=noise)
    return align(DATA, SCHEME)


def row_mean(aligned, rows=slice(None)):
    return np.nanmean(sigmoid(aligned.logit[rows]), axis=1)


def test_weights_are_learned_where_all_members_meet_and_thresholds_on_all():
    aligned = ragged()
    seen = []

    def spy(label, logits, search):
        seen.append(logits)
        weights = np.array([0.5, 0.3, 0.2])
        return with_best_threshold(label, logits, search, "soft", weights)

    everything = np.ones(len(aligned), dtype=bool)
    weighing = Strategy("soft", 0, spy, "spies", weighs=True)
    rule = fit_rule(weighing, aligned, everything, Search())
    averaging = fit_rule(dataclasses.replace(weighing, weighs=False), aligned, everything, Search())
    assert np.array_equal(seen[0], aligned.logit[aligned.fold == 0])
    assert np.array_equal(seen[1], aligned.logit, equal_nan=True)
    shares = np.where(np.isnan(aligned.logit), 0, np.array([0.5, 0.3, 0.2]))
    prob = np.nansum(sigmoid(aligned.logit) * shares, axis=1) / shares.sum(axis=1)
    assert rule.threshold == averaging.threshold
    assert rule.threshold == pytest.approx(best_threshold(aligned.label, prob)[0], abs=1e-9)


@pytest.mark.parametrize("name", ["mean", "logit-mean", "rank-mean", "majority", "platt-mean"])
def test_what_only_averages_takes_each_member_where_it_is(name):
    aligned = ragged()
    rule = fit_rule(STRATEGIES.get(name), aligned, np.ones(len(aligned), dtype=bool), Search())
    assert np.array_equal(rule.weights, equal_weights(3))
    lone = np.flatnonzero(aligned.fold == 2)
    own = fit_rule(  # curves and thresholds of a member are those of it alone
        STRATEGIES.get(name),
        dataclasses.replace(aligned, logit=aligned.logit[:, :1]),
        np.ones(len(aligned), dtype=bool),
        Search(),
    )
    assert rule.curves[:1] == own.curves
    if name == "majority":
        assert rule.thresholds[0] == own.thresholds[0]
    assert lone.size


def test_parts_are_folds_as_long_as_each_can_be_left_out():
    aligned = ragged()
    assert np.array_equal(make_parts(align(DATA, SCHEME, ["a", "b"]), 0).part, aligned.fold)
    parts = make_parts(aligned, 0)
    assert parts.count == 5
    assert "by group" in parts.note
    assert pd.Series(parts.part).groupby(aligned.group).nunique().max() == 1
    for k in range(5):  # every rest holds the items of all, of both classes
        assert set(aligned.label[(parts.part != k) & aligned.complete]) == {0, 1}


def test_where_a_rule_cannot_decide_the_plain_mean_does():
    """So that a candidate gains or loses by the items that its own members predicted alone."""
    aligned = ragged(noise=1.5)
    parts = make_parts(aligned, 0)
    tried = [try_strategy(n, aligned, parts, Search()) for n in ("mean@0.5", "mean", "stack")]
    plain, mean, stack = tried
    met = aligned.complete
    assert [t.decided for t in tried] == [600, 600, met.sum()]
    assert np.array_equal(stack.votes.pred[~met], mean.votes.pred[~met])
    assert np.array_equal(stack.votes.prob[~met], mean.votes.prob[~met])
    for k, rule in stack.rules.items():
        held = met & (parts.part == k)
        logit = aligned.logit[held] @ rule.weights + rule.intercept
        assert stack.votes.prob[held] == pytest.approx(sigmoid(logit))
    found = judge(tried, aligned, Search(), first=0)
    whole = f1_score(aligned.label, row_mean(aligned) >= 0.5, average="macro")
    assert found[0].cross_fitted == pytest.approx(whole)
    assert plain.votes.prob == pytest.approx(row_mean(aligned))


def test_what_folds_differ_by_is_asked_of_those_with_the_same_members():
    aligned = ragged({"a": [0, 1, 2], "b": [0, 1]})
    votes = Votes(row_mean(aligned), (row_mean(aligned) >= 0.5).astype(np.int64))
    scores, sizes = fold_scores(MACRO_F1, aligned, votes)
    assert np.isnan(scores).tolist() == [False, False, True]
    assert sizes.tolist() == [200, 200, 200]
    assert scores[1] == pytest.approx(
        f1_score(aligned.label[aligned.fold == 1], votes.pred[aligned.fold == 1], average="macro")
    )


def test_what_fewer_members_would_win_is_said():
    tuned = tune(ragged(), names=["mean@0.5", "mean", "greedy"])
    (line,) = [note for note in tuned.notes if note.startswith("weights are learned")]
    assert "on the 200 of 600 items that all 3 members predicted, thresholds on all" in line
    assert "; --models a b would have 400 (folds 0 1)" in line
    assert tuned.recipe.folds == [0, 1, 2]
    assert {m.model: m.folds for m in tuned.recipe.members} == FOLDS_OF
    assert tuned.recipe.scores["rows"] == 600
    assert not any("weights are learned" in note for note in tune(align(DATA, SCHEME, ["a"])).notes)


def test_members_that_never_meet_are_averaged_and_not_weighed():
    aligned = ragged({"a": [0], "b": [1], "c": [2]})
    tuned = tune(aligned)
    assert {c.name for c in tuned.candidates} >= {"mean@0.5", "mean", "rank-mean"}
    assert not any(STRATEGIES.get(c.name).weighs for c in tuned.candidates)
    assert any("no item was predicted by all 3 members" in note for note in tuned.notes)
    with pytest.raises(UserError, match="greedy: no item was predicted by all 3 members"):
        tune(aligned, names=["greedy"])


def test_each_member_predicts_with_all_of_its_own_folds():
    """The recipe of a ragged tuning, its checkpoints and their test predictions."""
    folds_of = {"a": [0, 1, 2], "b": [0]}
    ragged(folds_of)
    rng, ids = np.random.default_rng(0), ["x", "y", "z"]
    items = stored.ItemsToPredict(paths.root(), ids, ids, "manifest")
    said = {}
    for model, some in folds_of.items():
        for fold in some:
            names = (DATA, SCHEME, model, fold)
            weights = paths.checkpoint(*names)
            weights.parent.mkdir(parents=True, exist_ok=True)
            weights.write_bytes(f"{model}{fold}".encode())
            sha = make_record(*names)["checkpoint_sha256"]
            said[model, fold] = rng.normal(size=3)
            table = pd.DataFrame(
                {"item_id": ids, "fold": fold, "view": "full", "logit": said[model, fold]}
            )
            made_from = {"checkpoint_sha256": sha, "manifest_sha256": "manifest"}
            write_views(paths.test_views(*names), table, made_from)
    tuned = tune(align(DATA, SCHEME), names=["mean@0.5", "mean"])
    path = paths.recipe_json(DATA, "tuned")
    write_recipe(path, tuned.recipe)
    recipe = read_recipe(path)
    parts = stored.check_recipe(recipe)
    assert [(p.model, p.fold) for p in parts] == [("a", 0), ("a", 1), ("a", 2), ("b", 0)]
    votes = apply_recipe(recipe, member_logits(recipe, parts, items), 0.5)
    mean = {m: np.mean([said[m, k] for k in some], axis=0) for m, some in folds_of.items()}
    want = (sigmoid(mean["a"]) + sigmoid(mean["b"])) / 2
    assert votes["prob"].to_numpy() == pytest.approx(want)
    assert [(p.model, p.fold) for p in stored.needed_parts(recipe, [1, 2])] == [("a", 1), ("a", 2)]


def test_the_commands_say_who_has_which_folds_and_score_the_recipe_as_it_was_tuned(capsys):
    ragged({"a": [0, 1, 2], "b": [0]})
    assert main(["--data", DATA, "--strategies", "mean@0.5", "mean"]) == 0
    out = capsys.readouterr().out
    assert "a       0 1 2  600" in out
    assert "b       0      200" in out
    make_oof(
        read_folds(paths.folds_csv(DATA, SCHEME)), "b", only=[1], seed=9, noise=9.0
    )  # later, and not of the recipe
    assert evaluate(["--data", DATA, "--recipe", "tuned"]) == 0
    whole = capsys.readouterr().out
    aligned = align(DATA, SCHEME, folds_of={"a": [0, 1, 2], "b": [0]})
    recipe = read_recipe(paths.recipe_json(DATA, "tuned"))
    cut = recipe.stage("threshold")["value"]
    want = f1_score(aligned.label, row_mean(aligned) >= cut, average="macro")
    assert f"{want:.4f} [" in whole
    one = own_rows(subject_of_recipe("tuned", recipe), [1])
    assert np.array_equal(one.pred, sigmoid(aligned.logit[aligned.fold == 1, 0]) >= cut)
