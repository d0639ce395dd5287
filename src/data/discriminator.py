"""A small model that tells two sets of items apart, scored on groups that it has not seen."""

from typing import cast

import numpy as np
from numpy.typing import NDArray

from src.metrics import auc

FOLDS = 5
ROUNDS = 400  # of the bootstrap
FloatArray = NDArray[np.float64]


def cross_fit(
    traits: FloatArray,
    is_test: NDArray[np.int64],
    group: NDArray[np.int64],
    seed: int,
    shuffle: np.random.Generator | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Return P(test) by models of the other folds, and what shuffling each trait costs in AUC."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedGroupKFold

    prob = np.full(len(is_test), np.nan)
    drops: list[FloatArray] = []
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for seen, held in splitter.split(traits, is_test, group):
        model = HistGradientBoostingClassifier(
            max_iter=100, learning_rate=0.1, max_leaf_nodes=15, min_samples_leaf=20,
            l2_regularization=1.0, early_stopping=cast(str, False), random_state=seed,
        )  # fmt: skip
        model.fit(traits[seen], is_test[seen])
        prob[held] = model.predict_proba(traits[held])[:, 1]
        if shuffle is not None and len(np.unique(is_test[held])) == 2:
            whole = auc(is_test[held], prob[held])
            drops.append(np.array([
                whole - auc(is_test[held], _shuffled(model, traits[held], column, shuffle))
                for column in range(traits.shape[1])
            ]))  # fmt: skip
    return prob, np.mean(drops, axis=0) if drops else np.zeros(traits.shape[1])


def _shuffled(
    model: object, traits: FloatArray, column: int, rng: np.random.Generator
) -> FloatArray:
    mixed = traits.copy()
    mixed[:, column] = rng.permutation(mixed[:, column])
    return model.predict_proba(mixed)[:, 1]  # type: ignore[attr-defined]


def alone(is_test: NDArray[np.int64], trait: FloatArray) -> float:
    """Return the AUC of one trait, either way round."""
    area = auc(is_test, trait)
    return max(area, 1 - area)


def interval(
    is_test: NDArray[np.int64], prob: FloatArray, group: NDArray[np.int64], rng: np.random.Generator
) -> tuple[float, float]:
    """Return the 95 % interval of an AUC, by drawing whole groups again and again."""
    codes = np.unique(group, return_inverse=True)[1]
    place = np.unique(prob, return_inverse=True)[1]
    n, levels = int(codes.max()) + 1, int(place.max()) + 1
    areas = []
    for _ in range(ROUNDS):
        weight = np.bincount(rng.integers(0, n, n), minlength=n)[codes]
        test = np.bincount(place, weight * is_test, levels)
        train = np.bincount(place, weight, levels) - test
        if test.any() and train.any():
            below = np.cumsum(train) - train / 2  # an equal one counts half
            areas.append((test @ below) / (test.sum() * train.sum()))
    low, high = np.quantile(areas, [0.025, 0.975])
    return float(low), float(high)
