"""Scores by kind and domain, against scikit-learn on each part alone."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from src.ensemble.align import align
from src.ensemble.rule import Votes
from src.ensemble.tune import break_down, tune
from tests.ensemble.synthetic import DATA, SCHEME, make_folds, make_oof


@pytest.fixture
def aligned(artefact_root):
    folds = make_folds()
    make_oof(folds, "a")
    aligned = align(DATA, SCHEME)
    domain = np.random.default_rng(0).choice(["dfdc", "cifake", ""], aligned.label.size)
    return dataclasses.replace(aligned, domain=domain.astype(object))


def votes_of(aligned, threshold=0.4):
    prob = np.random.default_rng(1).random(aligned.label.size).round(2)
    return Votes(prob, (prob >= threshold).astype(np.int64))


def test_equals_scikit_learn_on_each_part(aligned):
    votes = votes_of(aligned)
    found = break_down(aligned, votes)
    assert list(found) == ["domain"]  # one kind says nothing new
    assert [part["value"] for part in found["domain"]] == ["", "cifake", "dfdc"]
    assert sum(part["n"] for part in found["domain"]) == aligned.label.size
    for part in found["domain"]:
        here = aligned.domain == part["value"]
        label, pred = aligned.label[here], votes.pred[here]
        real, fake = f1_score(label, pred, average=None)
        assert (part["n"], part["fakes"]) == (here.sum(), label.sum())
        assert part["f1_real"] == pytest.approx(real)
        assert part["f1_fake"] == pytest.approx(fake)
        assert part["macro_f1"] == pytest.approx((real + fake) / 2)
        assert part["auc"] == pytest.approx(roc_auc_score(label, votes.prob[here]))


def test_a_domain_of_one_class_has_no_score_of_the_other(aligned):
    domain = np.where(aligned.label == 1, "fakes", "reals").astype(object)
    fakes, reals = break_down(dataclasses.replace(aligned, domain=domain), votes_of(aligned))[
        "domain"
    ]
    assert fakes["value"] == "fakes"
    assert fakes["fakes"] == fakes["n"]
    assert 0 < fakes["f1_fake"] < 1
    assert 0 < reals["f1_real"] < 1
    assert [fakes[key] for key in ("macro_f1", "f1_real", "auc")] == [None] * 3
    assert [reals[key] for key in ("macro_f1", "f1_fake", "auc")] == [None] * 3


def test_nothing_cross_fitted_scores_nothing(aligned):
    assert break_down(aligned, None) == {}


def test_it_stands_in_the_recipe_and_adds_up_to_the_cross_fitted_decisions(aligned):
    tuned = tune(aligned, names=["mean"])
    parts = tuned.recipe.scores["breakdown"]["domain"]
    assert len(parts) == 3
    assert min(part["macro_f1"] for part in parts) < tuned.recipe.scores["cross_fitted"]
    assert max(part["macro_f1"] for part in parts) > tuned.recipe.scores["cross_fitted"]
