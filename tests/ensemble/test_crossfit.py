import dataclasses

import numpy as np
import pytest

from src.ensemble.align import align
from src.ensemble.crossfit import cross_rules, cross_vote, make_parts
from src.ensemble.rule import Rule
from src.ensemble.search import STRATEGIES, Search, Strategy
from src.metrics import sigmoid
from src.thresholds import best_threshold
from tests.ensemble.synthetic import DATA, SCHEME, make_folds, make_oof


def cross_fit(strategy, aligned, part, search):
    return cross_vote(cross_rules(strategy, aligned, part, search), aligned, part)


@pytest.fixture
def aligned(artefact_root):
    folds = make_folds()
    make_oof(folds, "a", seed=1)
    make_oof(folds, "b", seed=2)
    return align(DATA, SCHEME)


def test_every_item_is_decided_by_a_rule_that_did_not_see_its_part(aligned):
    seen = []

    def spy(label, logits, search):
        seen.append({tuple(row) for row in logits})
        return Rule("soft", np.full(2, 0.5), np.full(2, 0.5), 0.1 * len(seen))

    votes = cross_fit(Strategy("soft", 0, spy, "spies"), aligned, aligned.fold, Search())
    prob = sigmoid(aligned.logit).mean(axis=1)
    assert len(seen) == 3
    for fold, rows in enumerate(seen):
        held = aligned.fold == fold
        assert not rows & {tuple(row) for row in aligned.logit[held]}
        assert len(rows) == (~held).sum()
        assert np.array_equal(votes.pred[held], prob[held] >= 0.1 * (fold + 1))
    assert np.array_equal(votes.prob, prob)


def test_cross_fitted_mean_is_what_a_loop_over_folds_gives(aligned):
    prob = sigmoid(aligned.logit).mean(axis=1)
    want = np.empty(prob.size)
    for fold in range(3):
        held = aligned.fold == fold
        want[held] = prob[held] >= best_threshold(aligned.label[~held], prob[~held])[0]
    got = cross_fit(STRATEGIES.get("mean"), aligned, aligned.fold, Search())
    assert np.array_equal(got.pred, want)


def test_several_folds_are_the_parts(aligned):
    parts = make_parts(aligned, 0)
    assert np.array_equal(parts.part, aligned.fold)
    assert parts.count == 3


def one_fold(groups, n=60):
    folds = make_folds(n=n, groups=groups)
    make_oof(folds, only=[0])
    return align(DATA, SCHEME)


@pytest.mark.parametrize(("groups", "want"), [(60, 5), (18, 3), (12, 2), (9, 0)])
def test_one_fold_is_parted_by_group_as_far_as_groups_go(artefact_root, groups, want):
    aligned = one_fold(groups)
    parts = make_parts(aligned, 0)
    assert parts.count == want
    if not want:
        assert parts.part is None
        assert "too few to cross-fit; train more folds" in parts.note
        return
    for group in np.unique(aligned.group):
        assert np.unique(parts.part[aligned.group == group]).size == 1
    for k in range(want):
        assert set(aligned.label[parts.part != k]) == {0, 1}


def test_groups_that_hold_both_classes_are_no_problem(artefact_root):
    aligned = one_fold(12)
    mixed = np.arange(aligned.label.size) % 2
    aligned = dataclasses.replace(aligned, label=mixed)
    parts = make_parts(aligned, 0)
    assert parts.count == 4
