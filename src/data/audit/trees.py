"""Small models that tell two sets of items apart, scored on groups that they have not seen."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src import bootstrap
from src.bootstrap import resamples
from src.data.audit.fields import NONE, Field
from src.metrics import area, rank, roc_of
from src.stratify import stratified_group_folds

DEPTH = 3
FOLDS = 5
MOST_WORDS = 12  # values of a field of words that a tree may ask for
ROUNDS = 400  # of the bootstrap
STAGES = 100  # of the boosting
Labels = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Splits = Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]
Fit = Callable[[FloatArray, Labels], Any]  # values and labels -> a model of scikit-learn


def make_splits(label: Labels, group: Labels, seed: int) -> Splits:
    """Part items into folds of whole groups; none where a class has fewer than two groups."""
    n_folds = min(FOLDS, *(len(np.unique(group[label == k])) for k in (0, 1)))
    if n_folds < 2:
        return []
    fold = stratified_group_folds(label, group, n_folds, seed)
    split = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(n_folds)]
    return [(seen, held) for seen, held in split if len(np.unique(label[seen])) == 2]


def cross_fit(
    fit: Fit, matrix: FloatArray, label: Labels, splits: Splits
) -> tuple[FloatArray, list[Any]]:
    """Return P(1) of each item by a model that has not seen its group; and the models."""
    prob, models = np.full(len(label), 0.5), []
    for seen, held in splits:
        models.append(fit(matrix[seen], label[seen]))
        prob[held] = models[-1].predict_proba(matrix[held])[:, 1]
    return prob, models


def fit_tree(matrix: FloatArray, label: Labels, depth: int = DEPTH) -> Any:  # noqa: ANN401
    """Fit a tree to whole columns; classes weigh the same."""
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(
        max_depth=depth,
        min_samples_leaf=fewest_in_leaf(len(label)),
        class_weight="balanced",
        random_state=0,
    )
    return tree.fit(matrix, label)


def fit_boosted(traits: FloatArray, label: Labels, seed: int) -> Any:  # noqa: ANN401
    """Fit gradient boosting to traits, NaN where one is not known."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=STAGES, learning_rate=0.1, max_leaf_nodes=15, min_samples_leaf=20,
        l2_regularization=1.0, early_stopping=cast(str, False), random_state=seed,
    )  # fmt: skip
    return model.fit(traits, label)


def interval(
    label: Labels, prob: FloatArray, group: Labels, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the 95 % interval of an AUC, by drawing whole groups again and again."""
    ranking = rank(label, prob)
    draws = resamples(label, group, seed=rng, replicates=ROUNDS)
    return bootstrap.interval(np.array([area(roc_of(ranking, copies)) for copies in draws]))


class Column(NamedTuple):
    """What a tree may ask: a field's number, or whether its word is `value`."""

    field: Field
    value: str | None


def fewest_in_leaf(count: int) -> int:
    """Return how many of `count` items a leaf, or a word of its own, must hold."""
    return max(5, count // 100)


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


def cross_fit_field(table: pd.DataFrame, field: Field, label: Labels, splits: Splits) -> FloatArray:
    """Return P(fake) of each item by one field alone, learnt on other groups."""
    if not field.words:
        values = table[field.name].to_numpy(np.float64)[:, None]
        return cross_fit(partial(fit_tree, depth=2), values, label, splits)[0]
    words = table[field.name].to_numpy(str)
    prob = np.full(len(label), 0.5)
    for seen, held in splits:
        shares = shares_of_words(words[seen], label[seen])
        prob[held] = shares.reindex(words[held]).fillna(0.5)
    return prob


def shares_of_words(words: NDArray[np.str_], label: Labels) -> pd.Series:
    """Return word -> share of fakes, classes weighing the same, rare words drawn to 0.5."""
    names, place = np.unique(words, return_inverse=True)
    real, fake = (
        np.bincount(place[label == k], minlength=len(names)) / max(1, (label == k).sum())
        for k in (0, 1)
    )
    pull = fewest_in_leaf(len(label)) / len(label)
    return pd.Series((fake + pull / 2) / (real + fake + pull), names)


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

    `low` is its least value, `after` the least value above it, None where it has no such end;
    `inside` are the distinct values in it.
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
