"""A comparison: ways to train side by side as written down, and their scores here and elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass

from src import paths
from src.artifacts.runs import read_run
from src.config import ModelConfig, check_stem, config_file, model_names, read_model
from src.errors import UserError
from src.reporting.card_table import mean_of
from src.reporting.charts import LINE, new_figure, save_figure, shown
from src.reporting.scorecard import Card, Score
from src.strict_yaml import STRICT, EachOnce, Int, Keys, Plain, Word
from src.strict_yaml import read_model as read_checked

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FloatArray = NDArray[np.float64]
METRICS = ("macro_f1", "auc", "ap", "eer", "hter", "accuracy", "recall_real", "recall_fake")
PLOTTED = {"macro_f1": "macro-F1", "auc": "AUC"}
ITEM = "item"


@checked_dataclass(frozen=True, config=STRICT)
class RowKeys(Keys):
    """A row as written down: a model with other settings, or a merge."""

    model: Word | None = None  # the model that it changes, or is; None takes the file's
    set: dict[str, Any] | None = None  # keys of the config to other values
    weights: Path | None = None  # to start from; None leaves it to the comparison
    merge: Word | None = None  # a merge by name or file; it takes no other key


@checked_dataclass(frozen=True, config=STRICT)
class ComparisonKeys(Keys):
    """A comparison as written down."""

    rows: Annotated[dict[Plain, RowKeys], Field(min_length=1)]  # the ways to train, by name
    about: str | None = None  # what it is for
    data: Word | None = None  # data set to train on; None leaves it to the command
    scheme: Word | None = None  # fold scheme; None takes the only one, or the default
    folds: Annotated[tuple[Int, ...], EachOnce] | None = None  # to train; none stands for all
    model: Word | None = None  # of rows that name none
    weights: Path | None = None  # to start from, where a row names none
    # data sets to score on as well
    out_of_domain: Annotated[tuple[Word, ...], EachOnce] | None = None


@dataclass(frozen=True)
class Row:
    """One way to come by a model."""

    name: str  # of the row
    model: str  # what it makes, the name under which its artefacts lie
    parent: str = ""  # the model that it changes, or is; "" for a merge
    # dotted keys of the config to other values
    changes: Mapping[str, Any] = field(default_factory=dict)
    weights: Path | None = None  # to start from; None leaves it to the comparison
    merge: Path | None = None  # the file of a merge; None where something is trained

    def config(self) -> ModelConfig:
        """Return the config that a row trains."""
        return read_model(self.parent, dict(self.changes))


@dataclass(frozen=True)
class Comparison:
    """A file of rows."""

    name: str  # of the file
    path: Path  # of the file
    rows: tuple[Row, ...]  # in its order
    given: ComparisonKeys  # what else it says


def read_comparison(path: Path) -> Comparison:
    """Read a comparison.

    Raises:
        UserError: not readable, a key that is unknown (with the nearest known one) or stands
            twice, a value of a wrong kind, no row, a row whose config is refused, two rows of
            one model, a row whose model's name was given to something else before.
    """
    check_stem(path)
    given = read_checked(path, ComparisonKeys, "`rows`, the ways to train: NAME: {set: ...}")
    rows = [_row(name, keys, given.model, path) for name, keys in given.rows.items()]
    for place, row in enumerate(rows):
        for other in rows[:place]:
            if row.model == other.model:
                raise UserError(f"{path}: rows {other.name} and {row.name} are both {row.model}")
    return Comparison(path.stem, path, tuple(rows), given)


def _row(name: str, keys: RowKeys, model: str | None, path: Path) -> Row:
    try:
        if keys.merge is not None:
            if keys != RowKeys(merge=keys.merge):
                raise UserError("a merge takes no other key; they go into its own file")
            merge = config_file("merges", keys.merge)
            return Row(name, merge.stem, merge=merge)
        parent, changes = keys.model or model, keys.set or {}
        if parent is None:
            raise UserError("which model? give the row, or the file, a `model: NAME`")
        own = f"{path.stem}_{name}" if changes else parent
        row = Row(name, own, parent, changes, keys.weights)
        _check_config(row)
    except UserError as error:
        raise UserError(f"{path}: row {name}: {error}") from None
    return row


def _check_config(row: Row) -> None:
    wanted = row.config()
    if row.changes and row.model in model_names() and read_model(row.model) != wanted:
        raise UserError(
            f"there is a model {row.model} of other settings (the row was changed since?):"
            " give the row another name"
        )


@dataclass(frozen=True)
class TrainingCost:
    """What a row cost; over several folds the sum, epochs and share their mean."""

    parameters: int  # of the net
    share: float | None  # of them that was trained, in the stage that trains most; None for a merge
    epochs: float  # of all stages
    seconds: float  # of these epochs, or of the merge; computing cached features is not among them
    device: str  # on which, with its threads


@dataclass(frozen=True)
class Result:
    """A row's scores, or why it has none."""

    row: str  # name
    model: str  # the model that it made
    training: TrainingCost | None = None  # its cost
    threshold: str = ""  # in words
    notes: list[str] = field(default_factory=list)  # what its scores stand on
    # data set -> cards of its levels, the one trained on first
    cards: Mapping[str, Sequence[Card]] = field(default_factory=dict)
    failure: str = ""  # why there are none

    def card(self, data: str, level: str) -> Card | None:
        """Return the card of a data set at a level, if there is one."""
        return next((card for card in self.cards.get(data, ()) if card.level == level), None)

    def score(self, data: str, level: str, metric: str) -> Score | None:
        """Return a score, if there is one."""
        card = self.card(data, level)
        return None if card is None else card.scores[metric]

    def mean(self, others: Sequence[str], level: str, metric: str) -> float:
        """Return the mean of a metric over other data sets where it is defined, else NaN."""
        return mean_of(self.score(data, level, metric) for data in others)


def training_of(
    dataset: str, scheme: str, model: str, folds: Sequence[paths.FoldName]
) -> TrainingCost:
    """Return what the runs of a model cost, as their records say.

    Raises:
        UserError: a record is missing or damaged.
    """
    records = [read_run(dataset, scheme, model, fold) for fold in folds]
    first = records[0]
    shares = [
        max([record["trainable"], *(stage["trainable"] for stage in record["stages"])])
        / record["parameters"]
        for record in records
    ]
    share = float(np.mean(shares))
    return TrainingCost(
        first["parameters"],
        share if share else None,
        float(np.mean([len(record["history"]) for record in records])),
        float(sum(record["seconds"] for record in records)),
        f"{first['device']}, {first['threads']} thread{'s' * (first['threads'] != 1)}",
    )


def comparison_table(results: Sequence[Result], dataset: str) -> pd.DataFrame:
    """Return a line a row, data set and level; a row without scores has one line with the reason.

    Where a row has several other data sets, their plain means follow, as `mean of B, C`.

    Args:
        results: the rows.
        dataset: the one trained on.

    Returns:
        `row, model, trained_share, parameters, epochs, seconds, device, threshold, data, domain,
        level, items, reals, fakes, groups`, each of `METRICS` with `_low` and `_high`, `note`.
    """
    lines = []
    for result in results:
        own = _of_row(result)
        for data, cards in result.cards.items():
            domain = "in" if data == dataset else "out"
            where = {"data": data, "domain": domain}
            lines += [own | where | _of_card(card, result) for card in cards]
        others = [data for data in result.cards if data != dataset]
        if len(others) > 1:
            where = {"data": f"mean of {', '.join(others)}", "domain": "out"}
            lines += [own | where | means for means in _means(result, others)]
        if not result.cards:
            lines.append(own | {"note": result.failure})
    scores = [metric + end for metric in METRICS for end in ("", "_low", "_high")]
    of_card = ["data", "domain", "level", "items", "reals", "fakes", "groups", *scores, "note"]
    columns = [*_of_row(Result("", "")), *of_card]
    return pd.DataFrame(lines, columns=columns)


def _means(result: Result, others: Sequence[str]) -> list[dict[str, object]]:
    """Return the mean over other data sets of every metric, a record a level that they have."""
    levels = dict.fromkeys(card.level for data in others for card in result.cards[data])
    lines: list[dict[str, object]] = [{"level": level} for level in levels]
    for line, level in zip(lines, levels, strict=True):
        line |= {metric: result.mean(others, level, metric) for metric in METRICS}
    return lines


def _of_row(result: Result) -> dict[str, object]:
    cost = result.training
    costs = [None] * 4 + [""]
    if cost is not None:
        costs = [cost.share, cost.parameters, cost.epochs, cost.seconds, cost.device]
    names = ("trained_share", "parameters", "epochs", "seconds", "device")
    own: dict[str, object] = {"row": result.row, "model": result.model}
    return own | dict(zip(names, costs, strict=True)) | {"threshold": result.threshold}


def _of_card(card: Card, result: Result) -> dict[str, object]:
    counted = ("level", "items", "reals", "fakes", "groups")
    found: dict[str, object] = {key: getattr(card, key) for key in counted}
    for metric in METRICS:
        score = card.scores[metric]
        found |= {metric: score.value, f"{metric}_low": score.low, f"{metric}_high": score.high}
    reasons = [f"{m}: {card.scores[m].why}" for m in METRICS if card.scores[m].why]
    return found | {"note": "; ".join([*result.notes, *card.notes, *reasons])}


def plot_comparison(
    results: Sequence[Result], dataset: str, others: Sequence[str], path: Path
) -> Path | None:
    """Draw the mean out-of-domain score of each row over its in-domain score, at item level.

    Returns:
        `path`; None where no row has both scores, and nothing is drawn.
    """
    points = {metric: _points(results, dataset, others, metric) for metric in PLOTTED}
    if not any(points.values()):
        return None
    figure = new_figure(6.5 * len(points), 6.0)
    for number, (metric, found) in enumerate(points.items(), 1):
        axes = figure.add_subplot(1, len(points), number)
        if found:
            _scatter(axes, found)
        axes.set(title=PLOTTED[metric], xlabel=f"in-domain: {shown(dataset)}, out-of-fold")
        what = f"mean of {len(others)} data sets" if len(others) > 1 else shown(others[0])
        axes.set_ylabel(f"out-of-domain: {what}")
    return save_figure(figure, path)


def _points(
    results: Sequence[Result], dataset: str, others: Sequence[str], metric: str
) -> list[tuple[str, Score, float]]:
    found = []
    for result in results:
        own, other = result.score(dataset, ITEM, metric), result.mean(others, ITEM, metric)
        if own is not None and not np.isnan([own.value, other]).any():
            found.append((result.row, own, other))
    return found


def _scatter(axes: "Axes", found: Sequence[tuple[str, Score, float]]) -> None:
    """Draw a labelled point a row, with the interval of its in-domain score, and the diagonal."""
    for _, own, other in found:
        if not np.isnan(own.low):
            axes.plot([own.low, own.high], [other, other], color="grey", linewidth=0.8)
        axes.plot(own.value, other, "o", color="black", markersize=5)
    axes.margins(0.12)
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    both = [min(left, low), max(right, high)]
    axes.plot(both, both, **LINE)
    axes.set(xlim=(left, right), ylim=(low, high))
    heights = _apart(np.array([other for *_, other in found]), (high - low) / 28)
    for (row, own, other), height in zip(found, heights, strict=True):
        side = -1 if own.value > (left + right) / 2 else 1  # towards the middle: there is room
        place = (own.value + side * 0.03 * (right - left), height)
        axes.annotate(
            shown(row, 28), (own.value, other), place, fontsize=8, va="center",
            ha="left" if side > 0 else "right",
            arrowprops={"arrowstyle": "-", "color": "grey", "linewidth": 0.5},
        )  # fmt: skip


def _apart(values: FloatArray, gap: float) -> FloatArray:
    """Return heights of labels above values, in their order, at least `gap` from each other."""
    heights = values + gap / 2
    for before, here in pairwise(np.argsort(heights, kind="stable")):
        heights[here] = max(heights[here], heights[before] + gap)
    return heights
