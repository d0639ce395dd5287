"""Ways to train side by side: what each cost, and its scores here and elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src import paths
from src.artifacts.runs import read_run
from src.config import parse_model
from src.models.classifier import measure
from src.reporting.card_table import mean_of
from src.reporting.charts import LINE, new_figure, save_figure, shown
from src.reporting.scenarios import MEAN, SHOWN, Scenario, mean_over
from src.reporting.scorecard import Card, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FloatArray = NDArray[np.float64]
METRICS = (
    *("macro_f1", "auc", "ap", "eer", "hter", "hter_test_eer", "tnr@fnr=1%"),
    *("accuracy", "recall_real", "recall_fake"),
)
PLOTTED = {"macro_f1": "macro-F1", "auc": "AUC"}
ITEM = "item"


@dataclass(frozen=True)
class TrainingCost:
    """What a row cost; over several folds the sum, epochs and share their mean."""

    parameters: int  # of the net
    gmacs: float  # multiply-accumulates of one image, in 10^9, as `python -m src models` counts
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
    # of the data set trained on, fold by fold, where each holds out a domain
    scenarios: Sequence[Scenario] = ()

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
        measure(parse_model(first["config"], model))[1] / 1e9,
        share if share else None,
        float(np.mean([len(record["history"]) for record in records])),
        float(sum(record["seconds"] for record in records)),
        f"{first['device']}, {first['threads']} thread{'s' * (first['threads'] != 1)}",
    )


def cost_lines(results: Sequence[Result]) -> list[list[str]]:
    """Return what every row cost, as lines of a table."""
    lines = [["row", "model", "trained", "of parameters", "GMACs", "epochs", "seconds", "device"]]
    for result in results:
        cost = result.training
        if cost is None:
            lines.append([result.row, result.model, "failed", *[""] * 5])
            continue
        share = "merged" if cost.share is None else f"{cost.share:.2%}"
        lines.append(
            [result.row, result.model, share, f"{cost.parameters:,}", f"{cost.gmacs:.3g}",
             f"{cost.epochs:g}", f"{cost.seconds:.1f}", cost.device]
        )  # fmt: skip
    return lines


def comparison_table(results: Sequence[Result], dataset: str) -> pd.DataFrame:
    """Return a line a row, data set and level; a row without scores has one line with the reason.

    Where a row has scenarios, they follow with their mean, at each level; where it has several
    other data sets, their plain means, as `mean of B, C`.

    Args:
        results: the rows.
        dataset: the one trained on.

    Returns:
        `row, model, trained_share, parameters, gmacs, epochs, seconds, device, threshold, data,
        domain, scenario, level, items, reals, fakes, groups`, each of `METRICS` with `_low` and
        `_high`, those that are shown of scenarios with `_sd` (between them) too, `note`.
    """
    lines = []
    for result in results:
        own = _of_row(result)
        for data, cards in result.cards.items():
            domain = "in" if data == dataset else "out"
            where = {"data": data, "domain": domain}
            lines += [own | where | _of_card(card, result) for card in cards]
            if data == dataset:
                lines += [own | where | line for line in _of_scenarios(result)]
        others = [data for data in result.cards if data != dataset]
        if len(others) > 1:
            where = {"data": f"mean of {', '.join(others)}", "domain": "out"}
            lines += [own | where | means for means in _means(result, others)]
        if not result.cards:
            lines.append(own | {"note": result.failure})
    scores = [metric + end for metric in METRICS for end in ("", "_low", "_high")]
    spreads = [f"{metric}_sd" for metric in SHOWN]
    counted = ["level", "items", "reals", "fakes", "groups"]
    of_card = ["data", "domain", "scenario", *counted, *scores, *spreads, "note"]
    columns = [*_of_row(Result("", "")), *of_card]
    return pd.DataFrame(lines, columns=columns)


def _of_scenarios(result: Result) -> list[dict[str, object]]:
    """Return a record a scenario and level, and of each level that of their mean."""
    cards = [(one.name, card) for one in result.scenarios for card in one.cards]
    lines = [{"scenario": name} | _of_card(card, result) for name, card in cards]
    for level in dict.fromkeys(card.level for _, card in cards):
        own = [card for _, card in cards if card.level == level]
        line: dict[str, object] = {"scenario": MEAN, "level": level}
        for metric in METRICS:
            mean = mean_over(own, metric)
            found = {"": mean.value, "_low": mean.low, "_high": mean.high}
            if metric in SHOWN:
                found["_sd"] = mean.spread
            line |= {metric + end: value for end, value in found.items()}
        lines.append(line)
    return lines


def _means(result: Result, others: Sequence[str]) -> list[dict[str, object]]:
    """Return the mean over other data sets of every metric, a record a level that they have."""
    levels = dict.fromkeys(card.level for data in others for card in result.cards[data])
    lines: list[dict[str, object]] = [{"level": level} for level in levels]
    for line, level in zip(lines, levels, strict=True):
        line |= {metric: result.mean(others, level, metric) for metric in METRICS}
    return lines


def _of_row(result: Result) -> dict[str, object]:
    cost = result.training
    names = ("trained_share", "parameters", "gmacs", "epochs", "seconds", "device")
    costs: Sequence[float | str | None] = [*[None] * 5, ""]
    if cost is not None:
        costs = [cost.share, cost.parameters, cost.gmacs, cost.epochs, cost.seconds, cost.device]
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
