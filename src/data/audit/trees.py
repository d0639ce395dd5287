"""Small trees on the fields of files, scored on groups that they have not seen, put into words.

A small model that tells two sets of items apart, scored on groups that it has not seen.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.data.audit.fields import NONE, Field
from src.metrics import auc

DEPTH = 3
FOLDS = 5
MOST_WORDS = 12  # values of a field of words that a tree may ask for
Labels = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Splits = Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]


SPLITS = 5
ROUNDS = 400  # of the bootstrap


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
    splitter = StratifiedGroupKFold(SPLITS, shuffle=True, random_state=seed)
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


class Column(NamedTuple):
    """What a tree may ask: a field's number, or whether its word is `value`."""

    field: Field
    value: str | None


def fewest_in_leaf(count: int) -> int:
    """Return how many of `count` items a leaf, or a word of its own, must hold."""
    return max(5, count // 100)


def make_splits(label: Labels, group: Labels, seed: int) -> Splits:
    """Part items into folds of whole groups; none where a class has fewer than two groups."""
    from sklearn.model_selection import StratifiedGroupKFold

    n_folds = min(FOLDS, *(len(np.unique(group[label == k])) for k in (0, 1)))
    if n_folds < 2:
        return []
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    split = splitter.split(label, label, group)
    return [(seen, held) for seen, held in split if len(np.unique(label[seen])) == 2]


def make_columns(table: pd.DataFrame, fields: Sequence[Field]) -> tuple[FloatArray, list[Column]]:
    """Return what a tree is given, (n, columns) float64; a field that never varies has none.

    Of a field of words each of the commonest values is a column; labels are not looked at.
    """
    least, values, columns = fewest_in_leaf(len(table)), [], []
    for field in fields:
        column = table[field.name]
        if len(column.unique()) < 2:
            continue
        if not field.words:
            values.append(column.to_numpy(np.float64))
            columns.append(Column(field, None))
            continue
        counts = column.value_counts().head(MOST_WORDS)
        for word in counts.index[counts >= least]:
            values.append((column == word).to_numpy(np.float64))
            columns.append(Column(field, str(word)))
    matrix = np.stack(values, axis=1) if values else np.empty((len(table), 0))
    return matrix, columns


def cross_fit_tree(matrix: FloatArray, label: Labels, splits: Splits, depth: int) -> FloatArray:
    """Return P(fake) of each item by a tree that has not seen its group; classes weigh the same."""
    prob = np.full(len(label), 0.5)
    for seen, held in splits:
        if matrix.shape[1]:
            tree = fit_tree(matrix[seen], label[seen], depth)
            prob[held] = tree.predict_proba(matrix[held])[:, 1]
    return prob


def cross_fit_field(table: pd.DataFrame, field: Field, label: Labels, splits: Splits) -> FloatArray:
    """Return P(fake) of each item by one field alone, learnt on other groups."""
    if not field.words:
        values = table[field.name].to_numpy(np.float64)[:, None]
        return cross_fit_tree(values, label, splits, 2)
    words = table[field.name].to_numpy(str)
    prob = np.full(len(label), 0.5)
    for seen, held in splits:
        shares = shares_of_words(words[seen], label[seen])
        prob[held] = shares.reindex(words[held]).fillna(0.5)
    return prob


def fit_tree(matrix: FloatArray, label: Labels, depth: int) -> Any:  # noqa: ANN401 - scikit-learn
    """Fit a tree to whole columns."""
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(
        max_depth=depth,
        min_samples_leaf=fewest_in_leaf(len(label)),
        class_weight="balanced",
        random_state=0,
    )
    return tree.fit(matrix, label)


def shares_of_words(words: NDArray[np.str_], label: Labels) -> pd.Series:
    """Return word -> share of fakes, classes weighing the same, rare words drawn to 0.5."""
    counts = pd.crosstab(words, label).reindex(columns=[0, 1], fill_value=0)
    rates = counts / np.maximum(1, np.bincount(label, minlength=2))
    pull = fewest_in_leaf(len(label)) / len(label)
    return (rates[1] + pull / 2) / (rates[0] + rates[1] + pull)


def auc_and_spread(
    label: Labels, prob: FloatArray, group: Labels, rng: np.random.Generator
) -> tuple[float, tuple[float, float]]:
    """Return an AUC and its 95 % interval, by drawing whole groups again and again."""

    return auc(label, prob), interval(label, prob, group, rng)


def rule_of_field(
    table: pd.DataFrame, field: Field, label: Labels
) -> tuple[str, NDArray[np.bool_]]:
    """Return in words where one field speaks for a fake, "" where nowhere, and the items there."""
    if field.words:
        words = table[field.name].to_numpy(str)
        shares = shares_of_words(words, label)
        fake = [str(word) for word in shares.index[shares > 0.5]]
        chosen = np.isin(words, fake)
        fake.sort(key=lambda word: -int((words == word).sum()))
        if not fake or chosen.all():
            return "", np.zeros(len(label), bool)
        return f"{field.name} {_any_of(fake)}", chosen
    values = table[field.name].to_numpy(np.float64)
    tree = fit_tree(values[:, None], label, 2)
    chosen = tree.predict_proba(values[:, None])[:, 1] > 0.5
    if not chosen.any() or chosen.all():
        return "", np.zeros(len(label), bool)
    return " or ".join(_bands(field, values, chosen)), chosen


def _bands(field: Field, values: FloatArray, chosen: NDArray[np.bool_]) -> list[str]:
    """Return the bands of values of the chosen items, each in words, low to high."""
    distinct = np.unique(values)
    own = np.isin(distinct, values[chosen])
    edges = np.flatnonzero(np.diff(own.astype(int))) + 1
    bands = [run for run in np.split(np.arange(len(distinct)), edges) if own[run[0]]]
    return [
        words_of_band(
            field,
            float(distinct[run[0]]) if run[0] and distinct[run[0] - 1] != NONE else None,
            float(distinct[run[-1] + 1]) if run[-1] + 1 < len(distinct) else None,
            distinct[run],
        )
        for run in bands
    ]


def words_of_band(field: Field, low: float | None, after: float | None, inside: FloatArray) -> str:
    """Return a band of values in words.

    Args:
        field: whose values.
        low: the least value of the band; None where it has no lower end.
        after: the least value above the band; None where it has no upper end.
        inside: the distinct values in it.
    """
    if field.absent and inside[0] == NONE:
        if inside[-1] == NONE:
            return field.absent
        return f"({words_of_band(field, None, after, inside[1:])} or {field.absent})"
    if field.yes:
        return field.name if inside[-1] == 1 else f"no {field.name}"
    if low is not None and after is not None and inside[0] == inside[-1]:
        return f"{field.name} = {number(low)}"
    if after is None:
        return f"{field.name} >= {number(inside[0])}"
    if low is None:
        return f"{field.name} < {number(after)}"
    return f"{number(low)} <= {field.name} < {number(after)}"


def rules_of_tree(tree: Any, columns: Sequence[Column], matrix: FloatArray) -> list[str]:  # noqa: ANN401
    """Return where a tree speaks for a fake, in words, the largest part first."""
    found: list[tuple[int, str]] = []
    nodes = tree.tree_

    def is_fake(node: int) -> bool | None:
        """Tell what all leaves below a node say; None where they differ."""
        left, right = int(nodes.children_left[node]), int(nodes.children_right[node])
        if left < 0:
            return bool(nodes.value[node][0][1] > nodes.value[node][0][0])
        below = is_fake(left), is_fake(right)
        return below[0] if below[0] == below[1] else None

    def walk(node: int, rows: NDArray[np.bool_], said: dict[tuple[int, bool], str]) -> None:
        verdict = is_fake(node)
        if verdict is not None:
            if verdict and said:
                found.append((int(rows.sum()), " and ".join(said.values())))
            return
        place = int(nodes.feature[node])
        values = matrix[:, place]
        left = values <= nodes.threshold[node]
        for is_left, child in ((True, nodes.children_left), (False, nodes.children_right)):
            words = _question(columns[place], values, left, is_left=is_left)
            side = left if is_left else ~left
            # A later question about the same field is the narrower one.
            walk(int(child[node]), rows & side, {**said, (place, is_left): words})

    walk(0, np.ones(len(matrix), bool), {})
    return [words for _, words in sorted(found, key=lambda pair: -pair[0])]


def _question(column: Column, values: FloatArray, left: NDArray[np.bool_], *, is_left: bool) -> str:
    field = column.field
    if column.value is not None:
        return f"{field.name} is {'not ' if is_left else ''}{column.value or 'empty'}"
    inside = np.unique(values[left == is_left])
    if is_left:
        return words_of_band(field, None, float(values[~left].min()), inside)
    return words_of_band(field, float(inside[0]), None, inside)


def _any_of(words: list[str]) -> str:
    shown = [word or "(empty)" for word in words[:4]]
    more = f" or {len(words) - 4} others" if len(words) > 4 else ""
    return "is " + " or ".join(shown) + more


def number(value: float) -> str:
    """Return a number for people: whole ones in full, others to four digits."""
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1e4 else f"{value:.4g}"
