"""The fast folds are scikit-learn's, fold by fold."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from src.stratify import stratified_group_folds


def sklearns(labels, groups, n_folds, seed):
    folds = np.full(len(labels), -1)
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer members of a class than folds
        for fold, (_, held_out) in enumerate(splitter.split(labels, labels, groups)):
            folds[held_out] = fold
    return folds


@settings(max_examples=60)
@given(st.data())
def test_the_same_folds_as_sklearn(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n_folds = data.draw(st.integers(2, 7))
    n = data.draw(st.integers(2 * n_folds, 150))
    n_groups = data.draw(st.integers(n_folds, n))
    share = data.draw(st.sampled_from([0.1, 0.5, 0.84]))
    labels = (rng.random(n) < share).astype(np.int64)
    labels[:2] = 0, 1
    labels = np.append(labels, np.repeat([0, 1], n_folds))
    groups = np.append(rng.integers(0, n_groups, n), np.arange(2 * n_folds) % n_folds)
    if len(np.unique(groups)) < n_folds:
        return
    seed = data.draw(st.integers(0, 1000))
    found = stratified_group_folds(labels, groups, n_folds, seed)
    np.testing.assert_array_equal(found, sklearns(labels, groups, n_folds, seed))


@pytest.mark.parametrize("sizes", ["one each", "uneven", "one huge"])
@pytest.mark.parametrize("n_folds", [2, 5, 10])
def test_the_same_folds_on_common_shapes(sizes, n_folds):
    rng = np.random.default_rng(n_folds)
    n = 600
    labels = (rng.random(n) < 0.3).astype(np.int64)
    groups = {
        "one each": rng.permutation(n),
        "uneven": rng.choice(n // 5, n, p=rng.dirichlet(np.full(n // 5, 0.3))),
        "one huge": np.where(rng.random(n) < 0.4, 0, rng.integers(0, n // 4, n)),
    }[sizes]
    found = stratified_group_folds(labels, groups, n_folds, 42)
    np.testing.assert_array_equal(found, sklearns(labels, groups, n_folds, 42))
