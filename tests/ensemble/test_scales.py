"""Folds of different scale. Oracle: scikit-learn's AUC. Models trained briefly, which have the
fault themselves: tests/training/test_folds_apart.py."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from src import paths
from src.artifacts.folds import write_folds
from src.artifacts.oof import write_oof
from src.ensemble.align import align
from src.ensemble.scales import apart, auc_within
from src.ensemble.tune import tune
from tests.ensemble.synthetic import DATA, SCHEME, make_folds, make_oof, oof_path

pytestmark = pytest.mark.usefixtures("artefact_root")
WORDS = "score on different scales"


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
    moved = shifted(make_folds(), "a", (4.0, 0.0, -4.0))
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
    folds = make_folds()
    shifted(folds, "a", (4.0, 0.0, -4.0))
    make_oof(folds, "b", noise=0.6, seed=1)
    (line,), both = notes(names=["mean@0.5", "mean"])
    assert "tune without (--models b)" in line
    shifted(folds, "c", (4.0, 0.0, -4.0), seed=2)
    for name in ("platt-mean", "isotonic-mean", "rank-mean"):  # these do not mend it
        assert f"; {name} " in notes(["a", "c"], names=[name])[0][0]
    none, alone = notes(["b"], names=["mean@0.5", "mean"])
    assert none == []
    scores = [tuned.recipe.scores["cross_fitted"] for tuned in (both, alone)]
    assert scores[1] > scores[0] + 0.02


def test_held_out_domains_have_words_of_their_own():
    folds = make_folds()
    paths.folds_csv(DATA, SCHEME).unlink()
    folds = folds.assign(domain=folds["fold"].map({0: "x", 1: "y", 2: "z"}))
    write_folds(paths.folds_csv(DATA, SCHEME), folds)
    shifted(folds, "a", (4.0, 0.0, -4.0))
    (line,), tuned = notes(names=["mean@0.5"])
    assert "the held-out domains are scored on different scales" in line
    assert "epochs" not in line
    assert len(tuned.recipe.scores["breakdown"]["domain"]) == 3  # the table that it speaks of


def test_folds_of_one_scale_are_let_alone():
    """Also the smallest, whose AUCs differ by luck, and copies that lie in one group."""
    alarms = rounds = 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        for n, copies in ((12, 1), (24, 3), (60, 1), (200, 4)):
            group = np.arange(n) // copies
            label = (group % 2).astype(np.int64)
            fold = group // 2 % min(5, n // copies // 4)
            signal = rng.normal(size=n // copies + 1)[group]  # copies look alike
            score = label * rng.choice([0.0, 1.0, 3.0]) + signal + 0.1 * rng.normal(size=n)
            alarms += apart(label, score, fold, group, 42) is not None
            rounds += 1
    assert alarms <= rounds // 100


def test_folds_without_both_classes_do_not_count():
    label, score = np.array([0, 1, 1, 1]), np.array([0.0, 1.0, -1.0, -2.0])
    assert auc_within(label, score, np.array([0, 0, 1, 1])) == 1.0
    assert np.isnan(auc_within(label, score, np.array([0, 1, 1, 1])))
    assert apart(label, score, np.array([0, 1, 1, 1]), np.arange(4), 0) is None
    label, score = np.arange(40) % 2, np.arange(40.0)
    assert apart(label, score, np.zeros(40, int), np.arange(40), 0) is None  # one fold
