"""Folds of different scale. Oracle: scikit-learn's AUC. Models trained briefly, which have the
fault themselves: tests/training/test_folds_apart.py."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from src import paths
from src.artifacts.folds import write_folds
from src.artifacts.oof import write_oof, write_views
from src.cli.tune import main as tune_command
from src.ensemble.align import align
from src.ensemble.calibration import fit_platt
from src.ensemble.rule import rule_of, vote
from src.ensemble.scales import N_PARTS, calibrate_folds, spread_of
from src.ensemble.tune import tune
from src.ensemble.vote import apply_recipe
from src.errors import UserError
from src.inference import stored
from src.inference.member_logits import member_logits
from src.reporting.evaluated import own_rows, subject_of_recipe
from src.stratify import stratified_group_folds
from tests.ensemble.synthetic import DATA, SCHEME, make_folds, make_oof, oof_path
from tests.records import make_record

pytestmark = pytest.mark.usefixtures("artefact_root")
WORDS = "score on different scales"
BY = np.array([4.0, 0.0, -4.0])  # how far the logits of each fold are moved


def shifted(folds, model, by, seed=0, noise=0.4):
    """Write a good member whose folds' logits are moved by `by`, one a fold."""
    logit = make_oof(folds, model, noise=noise, seed=seed).to_numpy()
    moved = folds.assign(logit=logit + np.asarray(by)[folds["fold"]])
    for fold in sorted(set(folds["fold"])):
        write_oof(oof_path(model, fold), moved[moved["fold"] == fold])
    return moved


def notes(models=None, **kwargs):
    tuned = tune(align(DATA, SCHEME, models), **kwargs)
    assert tuned.notes == tuned.recipe.scores["notes"]
    return [note for note in tuned.notes if "within folds" in note], tuned


def test_the_line_names_the_member_and_both_figures():
    moved = shifted(make_folds(), "a", BY)
    whole = roc_auc_score(moved["label"], moved["logit"])
    parts = [roc_auc_score(part["label"], part["logit"]) for _, part in moved.groupby("fold")]
    (line,), _ = notes(names=["mean@0.5", "mean"])
    assert np.mean(parts) > 0.99 > 0.9 > whole  # folds of equal counts: the plain mean
    assert f"AUC of a {np.mean(parts):.4f} within folds, {whole:.4f} over all" in line
    centres = moved.groupby("fold")["logit"].median()
    assert f"(median logits {' '.join(f'{value:+.2f}' for value in centres)})" in line
    assert WORDS in line
    assert "--models" not in line  # there is no other


def test_what_the_line_says_of_the_ways_out_is_true():
    folds = make_folds(n=120, groups=40)  # too few to calibrate a fold's model
    shifted(folds, "a", BY)
    make_oof(folds, "b", noise=0.6, seed=1)
    (line,), both = notes(names=["mean@0.5", "mean"])
    assert "tune without (--models b)" in line
    shifted(folds, "c", BY, seed=2)
    for name in ("platt-mean", "isotonic-mean", "rank-mean"):  # these do not mend it
        assert f"; {name} " in notes(["a", "c"], names=[name])[0][0]
    none, alone = notes(["b"], names=["mean@0.5", "mean"])
    assert none == []
    scores = [tuned.recipe.scores["cross_fitted"] for tuned in (both, alone)]
    assert scores[1] > scores[0] + 0.02


def test_calibrated_folds_are_offered_and_the_gain_is_shown(capsys):
    """Through the commands: what tune takes, evaluate scores and prediction carries out."""
    folds = make_folds(n=900, groups=300)
    shifted(folds, "a", BY, noise=1.0)
    make_oof(folds, "b", noise=1.5, seed=1)
    assert tune_command(["--data", DATA, "--strategies", "mean@0.5", "mean"]) == 0
    said = capsys.readouterr().out
    assert "mean of calibrated folds" in said
    assert "stands at `of calibrated folds`" in said
    tuned = tune(align(DATA, SCHEME), names=["mean@0.5", "mean"])
    scores = {c.name: c for c in tuned.candidates}
    plain, mended = scores["mean"], scores["mean of calibrated folds"]
    assert tuned.chosen == "mean@0.5 of calibrated folds"
    assert scores[tuned.chosen].gain > 0.1 > 3 * scores[tuned.chosen].gain_se
    assert mended.cross_fitted > plain.cross_fitted + 0.1
    recipe = tuned.recipe
    assert list(rule_of(recipe).folds) == ["a"]  # b, whose folds are alike, is left as it is
    aligned = align(DATA, SCHEME)
    through = aligned.through(aligned.models, rule_of(recipe).folds)
    pred = vote(rule_of(recipe), through.logit).pred
    want = f1_score(aligned.label, pred, average="macro")
    assert want > mended.cross_fitted - 0.02
    scored = own_rows(subject_of_recipe("tuned", recipe))
    assert np.array_equal(scored.pred, pred)
    check_predictions(recipe)
    with pytest.raises(UserError, match="knows nothing of fold all: predict without --refit"):
        stored.needed_parts(recipe, [paths.ALL])


def check_predictions(recipe):
    """Test items of which each fold's model says what it said of the train items come out alike."""
    rng = np.random.default_rng(5)
    ids = [f"t{i:03d}" for i in range(300)]
    truth = rng.integers(0, 2, 300)
    items = stored.ItemsToPredict(paths.root(), ids, ids, "manifest")
    for model, by, noise in (("a", BY, 1.0), ("b", 0 * BY, 1.5)):
        for fold in range(3):
            names = (DATA, SCHEME, model, fold)
            paths.checkpoint(*names).parent.mkdir(parents=True, exist_ok=True)
            paths.checkpoint(*names).write_bytes(f"{model}{fold}".encode())
            sha = make_record(*names)["checkpoint_sha256"]
            logit = truth * 2 - 1 + by[fold] + noise * rng.normal(size=300)
            views = {"item_id": ids, "fold": fold, "view": "full", "logit": logit}
            made_from = {"checkpoint_sha256": sha, "manifest_sha256": "manifest"}
            write_views(paths.test_views(*names), pd.DataFrame(views), made_from)
    again = tune(align(DATA, SCHEME), names=["mean@0.5", "mean"]).recipe  # of these checkpoints
    assert again.stages == recipe.stages
    parts = stored.check_recipe(again)
    votes = apply_recipe(again, member_logits(again, parts, items), 0.5)
    assert f1_score(truth, votes["pred"], average="macro") > 0.9


def test_no_label_has_a_say_in_its_own_calibrated_logit():
    folds = make_folds(n=300, groups=150)
    shifted(folds, "a", BY)
    aligned = align(DATA, SCHEME)
    before, curves = calibrate_folds(aligned, ["a"], 0)
    assert set(curves["a"]) == {"0", "1", "2"}
    for fold in range(3):
        rows = np.flatnonzero(aligned.fold == fold)
        label, score, group = aligned.label[rows], aligned.logit[rows, 0], aligned.group[rows]
        part = stratified_group_folds(label, group, N_PARTS, 0)
        for k in range(N_PARTS):
            curve = fit_platt(label[part != k], score[part != k])
            found = before.logit[rows[part == k], 0]
            moved = np.unique((found - curve.logit(score[part == k])).round(9))
            assert moved.size == 1  # the shares of fakes are made equal, no more
        whole = curves["a"][str(fold)].logit(score)
        assert np.corrcoef(whole, before.logit[rows, 0])[0, 1] > 0.99
    few = dataclasses.replace(aligned, group=np.zeros_like(aligned.group))
    assert calibrate_folds(few, ["a"], 0)[1] == {}


def test_a_fold_with_more_fakes_gets_no_higher_logits_for_it():
    """Else the share of fakes of a fold, which a test item has none of, would look like skill."""
    rng, n = np.random.default_rng(0), 4000
    make_oof(make_folds(n=240), "a")
    like = align(DATA, SCHEME)
    fold = np.arange(n) % 2
    label = (rng.random(n) < np.where(fold == 0, 0.2, 0.8)).astype(np.int64)
    blank = np.full(n, "", dtype=object)
    rows = dataclasses.replace(
        like, item_id=blank, label=label, group=np.arange(n), fold=fold, domain=blank, kind=blank,
        logit=(label + 2.0 * rng.normal(size=n) + 3.0 * fold)[:, None],
        oof_sha256={"a": {"0": "", "1": ""}},
    )  # fmt: skip
    mended, curves = calibrate_folds(rows, ["a"], 0)
    within = spread_of(label, rows.logit[:, 0], fold, rows.group).within
    assert roc_auc_score(label, mended.logit[:, 0]) == pytest.approx(within, abs=0.01)
    slopes = [curve.slope for curve in curves["a"].values()]
    gap = curves["a"]["1"].intercept - curves["a"]["0"].intercept
    assert gap == pytest.approx(-3.0 * np.mean(slopes), abs=0.2)  # the move, and nothing of shares


def test_folds_of_clusters_hold_other_kinds_and_get_no_curve_each():
    shifted(make_folds(n=900, groups=300), "a", BY)
    aligned = align(DATA, SCHEME)
    by_group = tune(aligned, names=["mean@0.5", "mean"])
    assert any("calibrated folds" in one.name for one in by_group.candidates)
    by_cluster = tune(dataclasses.replace(aligned, scheme="clusters20_s42"), names=["mean"])
    assert not any("calibrated folds" in one.name for one in by_cluster.candidates)
    assert any("the held-out clusters are scored on different" in one for one in by_cluster.notes)


def test_held_out_domains_have_words_of_their_own():
    folds = make_folds()
    paths.folds_csv(DATA, SCHEME).unlink()
    folds = folds.assign(domain=folds["fold"].map({0: "x", 1: "y", 2: "z"}))
    write_folds(paths.folds_csv(DATA, SCHEME), folds)
    shifted(folds, "a", BY)
    (line,), tuned = notes(names=["mean@0.5"])
    assert "the held-out domains are scored on different scales" in line
    assert "epochs" not in line
    assert len(tuned.recipe.scores["breakdown"]["domain"]) == 3  # the table that it speaks of


def test_folds_of_one_scale_are_let_alone():
    """Also the smallest, whose AUCs differ by luck, and copies that lie in one group."""
    offers = alarms = rounds = 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        for n, copies in ((12, 1), (24, 3), (60, 1), (200, 4)):
            group = np.arange(n) // copies
            label = (group % 2).astype(np.int64)
            fold = group // 2 % min(5, n // copies // 4)
            signal = rng.normal(size=n // copies + 1)[group]  # copies look alike
            score = label * rng.choice([0.0, 1.0, 3.0]) + signal + 0.1 * rng.normal(size=n)
            spread = spread_of(label, score, fold, group)
            offers += spread.is_real
            alarms += spread.is_clear
            rounds += 1
    assert offers <= rounds / 12
    assert alarms <= rounds / 100


def test_the_error_of_the_spread_is_that_of_other_draws():
    """Of many data sets of two folds that lie apart, items alone and in groups of three."""
    for copies in (1, 3):
        found = []
        for seed in range(200):
            rng = np.random.default_rng(seed)
            group = np.arange(600) // copies
            label = (group % 2).astype(np.int64)
            fold = group // 2 % 2
            own = rng.normal(size=600)[group] if copies > 1 else rng.normal(size=600)
            found.append(spread_of(label, 1.5 * label + own + 1.5 * fold, fold, group))
        spread = np.std([one.within - one.whole for one in found])
        assert np.mean([one.error for one in found]) == pytest.approx(spread, rel=0.2)


def test_folds_without_both_classes_do_not_count():
    label, score = np.array([0, 1, 1, 1]), np.array([0.0, 1.0, -1.0, -2.0])
    spread = spread_of(label, score, np.array([0, 0, 1, 1]), np.arange(4))
    assert (spread.within, spread.whole) == (1.0, roc_auc_score(label, score))
    none = spread_of(label, score, np.array([0, 1, 1, 1]), np.arange(4))
    assert np.isnan(none.within)
    assert not none.is_real
    one = spread_of(np.arange(40) % 2, np.arange(40.0), np.zeros(40, int), np.arange(40))
    assert one.error == 0
    assert not one.is_real
