"""Scenarios: a fold each, of which `lodo` makes a domain that was not trained on, and their mean.

Papers on face anti-spoofing print them side by side (OCI->M, OMI->C ..), and the plain mean.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.bootstrap import interval
from src.ensemble.predictions import Decided
from src.metrics import NAN, metric_named
from src.reporting.card_table import cell
from src.reporting.charts import new_figure, save_figure, shown
from src.reporting.paired import Difference, of_draws, same_items, sentence
from src.reporting.scorecard import Card, Score, score_rows

SHOWN = ("hter", "hter_test_eer", "auc", "tnr@fnr=1%")
LEGEND = """hter: at the EER cut of the other domains' out-of-fold predictions.
hter_test_eer: at the EER cut of the scored domain itself, as FLIP prints it: flattering.
tnr@fnr=1%: what papers with real = positive (FLIP) call TPR@FPR=1%.
mean: plain, over scenarios, +- their standard deviation; intervals: 95 %, by group."""
MEAN = "mean of scenarios"


class Scenario(NamedTuple):
    """One fold's scores."""

    name: str  # the domain it holds out, or `fold k`
    cards: list[Card]  # of its levels

    def card(self, level: str) -> Card | None:
        """Return the card of a level, if there is one."""
        return next((card for card in self.cards if card.level == level), None)


Named = Mapping[str, Sequence[Scenario]]  # row -> its scenarios, the same ones in each


class Mean(NamedTuple):
    """The plain mean of a metric over scenarios."""

    value: float  # NaN where no scenario defines it
    spread: float  # standard deviation (n - 1) between scenarios; NaN of one alone
    low: float  # of the 95 % interval: the luck of each scenario's groups; NaN where one has none
    high: float
    told: int  # scenarios that define it


def scenarios_of(levels: Mapping[str, Decided], names: Mapping[int, str]) -> list[Scenario]:
    """Return the scores of every fold.

    Args:
        levels: level -> decided rows of all the folds.
        names: fold -> its name.
    """
    found = []
    for fold, name in names.items():
        cards = []
        for level, rows in levels.items():
            held = rows.fold == fold
            if held.any():
                # A seed of its own: the draws of two scenarios have nothing to do with each other.
                cards.append(score_rows(rows.take(held), level, "fold", name, seed=fold))
        found.append(Scenario(name, cards))
    return found


def mean_over(cards: Sequence[Card], metric: str) -> Mean:
    """Return the mean of a metric over the cards of several scenarios."""
    told = [card for card in cards if not math.isnan(card.scores[metric].value)]
    values = np.array([card.scores[metric].value for card in told])
    if not told:
        return Mean(NAN, NAN, NAN, NAN, 0)
    low, high = NAN, NAN
    if all(metric in card.draws for card in told):
        drawn = np.mean(_drawn(told, metric), axis=0)
        drawn = drawn[np.isfinite(drawn)]
        low, high = interval(drawn) if drawn.size else (NAN, NAN)
    spread = float(values.std(ddof=1)) if len(values) > 1 else NAN
    return Mean(float(values.mean()), spread, low, high, len(told))


def _drawn(cards: Sequence[Card], metric: str) -> NDArray[np.float64]:
    """Return (scenarios, draws): as many as each has, of which large ones have fewer."""
    fewest = min(len(card.draws[metric]) for card in cards)
    return np.stack([card.draws[metric][:fewest] for card in cards])


def mean_difference(one: Sequence[Card], other: Sequence[Card], metric: str) -> Difference | None:
    """Return by how much the mean of one exceeds that of another; None where items differ.

    Over the scenarios in which both are told, by the paired bootstrap of whole groups.
    """
    pairs = list(zip(one, other, strict=True))
    if not all(same_items(a, b) for a, b in pairs):
        return None
    pairs = [
        (a, b)
        for a, b in pairs
        if not math.isnan(a.scores[metric].value) and not math.isnan(b.scores[metric].value)
    ]
    if not pairs:
        return None
    value = float(np.mean([a.scores[metric].value - b.scores[metric].value for a, b in pairs]))
    how = "bootstrap by group, of scenarios as they are"
    if not all(metric in card.draws for pair in pairs for card in pair):
        few = "a scenario has too few groups for an interval"
        return Difference(metric, value, NAN, NAN, NAN, how, few)
    first, second = (list(side) for side in zip(*pairs, strict=True))
    drawn = np.mean(_drawn(first, metric) - _drawn(second, metric), axis=0)
    return of_draws(metric, value, drawn, how)


def _cards(scenarios: Sequence[Scenario], level: str) -> list[Card]:
    return [card for one in scenarios if (card := one.card(level)) is not None]


def scenario_tables(named: Named, level: str) -> list[list[list[str]]]:
    """Return a table a metric: a line a row, a column a scenario and their mean."""
    with_some = {name: one for name, one in named.items() if _cards(one, level)}
    if not with_some:
        return []
    first = next(iter(with_some.values()))
    cards = [one.card(level) for one in first]
    counts = ["" if c is None else f"{c.items} ({c.reals} real, {c.fakes} fake)" for c in cards]
    tables = []
    for metric in SHOWN:
        lines = [[metric, *(one.name for one in first), "mean"], [f"{level} level", *counts, ""]]
        for name, scenarios in with_some.items():
            found = [one.card(level) for one in scenarios]
            cells = ["" if card is None else cell(card.scores[metric]) for card in found]
            lines.append([name, *cells, mean_cell(_cards(scenarios, level), metric)])
        tables.append(lines)
    return tables


def held_against(named: Named, base: str, level: str) -> list[str]:
    """Say of each row and metric which mean over scenarios is better, its own or that of `base`."""
    own, texts = _cards(named[base], level), []
    for name, scenarios in named.items():
        cards = _cards(scenarios, level)
        if name == base or not own or len(cards) != len(own):
            continue
        for metric in SHOWN:
            found = mean_difference(own, cards, metric)
            if found is not None:
                text = sentence(base, name, found, metric_named(metric))
                texts.append(f"mean of {len(own)} scenarios: {text}")
    return texts


def mean_cell(cards: Sequence[Card], metric: str) -> str:
    """Return the mean over scenarios as text: value, spread, interval, and of how many it is."""
    mean = mean_over(cards, metric)
    text = cell(Score(mean.value, mean.low, mean.high))
    if not math.isnan(mean.spread):
        head, _, tail = text.partition(" ")
        text = f"{head} +- {mean.spread:.4f} {tail}".rstrip()
    return text + (f" (of {mean.told})" if 0 < mean.told < len(cards) else "")


def plot_scenarios(named: Named, level: str, title: str, path: Path) -> Path:
    """Draw each metric of each row: a small mark a scenario, the mean with its interval large."""
    figure = new_figure(4.5 * len(SHOWN), 1.6 + 0.4 * len(named))
    figure.suptitle(shown(title, 120))
    panels = figure.subplots(1, len(SHOWN), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, SHOWN, strict=True):
        for place, scenarios in enumerate(named.values()):
            cards = [(one.name, card) for one in scenarios if (card := one.card(level))]
            for number, (name, card) in enumerate(cards):
                # One colour a scenario, named once for all rows.
                label = shown(name, 24) if place == 0 else None
                value = card.scores[metric].value
                axes.plot(value, place, "o", color=f"C{number}", markersize=4, label=label)
            mean = mean_over(_cards(scenarios, level), metric)
            axes.plot([mean.low, mean.high], [place, place], color="black", linewidth=0.8)
            axes.plot(mean.value, place, "D", color="black", markersize=6, zorder=3)
        better = "more" if metric_named(metric).higher else "less"
        axes.set(title=f"{metric} ({better} is better)")
        axes.grid(axis="x", linewidth=0.3)
    panels[0].set_yticks(range(len(named)), [shown(name, 28) for name in named])
    panels[0].invert_yaxis()
    panels[-1].legend(fontsize=7)
    return save_figure(figure, path)
