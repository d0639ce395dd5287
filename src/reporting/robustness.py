"""The robustness card: held-out items as they are, and as each of many levels delivers them.

Thresholds are those of the clean items: nothing is chosen at a level.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.artifacts.oof import WHOLE_LEVEL, is_treatment
from src.bootstrap import MIN_GROUPS, bootstrap_scores, interval, resamples
from src.ensemble.crossfitted import cross_threshold
from src.ensemble.predictions import Decided
from src.ensemble.rule import deliveries_of
from src.ensemble.shift.delivered import read_delivered
from src.metrics import METRICS, Metric, metric_named, score_of
from src.reporting.charts import LINE, new_figure, save_figure, shown
from src.reporting.evaluated import Subject, honest_rows, rows_as
from src.reporting.scorecard import Score

FloatArray = NDArray[np.float64]
CLEAN_ROW, MEAN_ROW = "clean", "mean of levels"
FLIPS, FPR = "flips", "fpr_on_reals"
ROUNDS = 500  # of the bootstrap of a share or an AUC


@dataclass(frozen=True)
class LevelRow:
    """What a subject scores at a level."""

    level: str  # its name, `CLEAN_ROW` or `MEAN_ROW`
    scores: dict[str, Score]  # `auc`, the metric, `FPR` and `FLIPS`, as far as they are told


@dataclass(frozen=True)
class RobustnessCard:
    """A subject under every level."""

    name: str  # of the model or recipe
    metric: str  # what decisions are scored by; that of the recipe
    threshold: str  # in words
    items: int
    reals: int
    groups: int
    rows: list[LevelRow]  # the clean one, the levels, their mean
    hard_reals: list[LevelRow]  # of treatments of real pictures, no deliveries
    worst: str  # the level of the lowest AUC
    notes: list[str]


def score_levels(subject: Subject, levels: Sequence[str], seed: int) -> RobustnessCard:
    """Score a subject at some levels, of which its members' predictions are stored.

    Intervals are 95 %, by group, with the same draws at all levels; what is decided is decided at
    the thresholds of the clean rows, cross-fitted where there are groups enough.

    Raises:
        UserError: see `read_delivered`.
    """
    subject, notes = _with_threshold(subject, seed)
    delivered = read_delivered(subject.aligned, levels, seed, one_view=subject.recipe.one_view)
    if deliveries_of(subject.recipe):
        notes.append(
            "clean items are decided by the mean over deliveries, those at a level by that level "
            "alone: how a delivered item looks when it is delivered again is not known"
        )
    clean = honest_rows(subject)
    decided = {CLEAN_ROW: clean} | {
        level: rows_as(subject, delivered.at(level)) for level in levels
    }
    metric = metric_named(subject.metric)
    metric = metric if metric.decides else METRICS.get("macro_f1")
    if clean.n_groups < MIN_GROUPS:
        notes.append(f"no interval: {clean.n_groups} groups are fewer than {MIN_GROUPS}")
    untouched = [CLEAN_ROW, *(level for level in levels if level == WHOLE_LEVEL)]
    sent = [level for level in levels if not is_treatment(level) and level != WHOLE_LEVEL]
    treated = [level for level in levels if is_treatment(level)]
    shown_rows = {name: decided[name] for name in (*untouched, *sent)}
    tables = _scores(shown_rows, len(untouched), metric, seed)
    rows = [LevelRow(name, scores) for name, scores in tables.items()]
    hard = []
    if treated:
        real = clean.label == 0
        part = {name: decided[name].take(real) for name in (*untouched, *treated)}
        hard = [
            LevelRow(name, scores)
            for name, scores in _real_scores(part, untouched[-1], seed).items()
        ]
    worst = min(sent, key=lambda name: tables[name]["auc"].value, default="")
    counts = len(clean), int((clean.label == 0).sum()), clean.n_groups
    words = subject.cuts or subject.threshold
    notes += subject.notes
    return RobustnessCard(subject.name, metric.name, words, *counts, rows, hard, worst, notes)


def _with_threshold(subject: Subject, seed: int) -> tuple[Subject, list[str]]:
    """Return a subject with a threshold: a model without a recipe takes its best, cross-fitted."""
    if subject.fitted or subject.is_recipe:
        return subject, []
    parts = cross_threshold(subject.aligned, seed)
    if parts is None:
        return subject, ["too few groups to cross-fit a threshold: decided at 0.5"]
    decided = parts.decide(subject.aligned)
    crossfitted = replace(decided, logit=subject.aligned.logit[:, 0])
    words = f"{parts.words()}, the best for macro_f1 on other clean rows (no recipe is of this "
    words += "model alone)"
    return replace(subject, crossfitted=crossfitted, cuts=words, parts=parts), []


def _scores(
    decided: Mapping[str, Decided], aside: int, metric: Metric, seed: int
) -> dict[str, dict[str, Score]]:
    """Return scores by level, and of the mean over all but the first ones, which are `aside`.

    Nothing was done to those; verdicts are held to the last of them.
    """
    names, rows = list(decided), next(iter(decided.values()))
    answers = [(one.prob, one.pred) for one in decided.values()]
    found: dict[str, dict[str, Score]] = {name: {} for name in names}
    mean: dict[str, Score] = {}
    wanted = {"auc": METRICS.get("auc"), metric.name: metric, FPR: METRICS.get("bpcer")}
    for key, one in wanted.items():
        values = np.array([score_of(one, rows.label, *answer) for answer in answers])
        draws = None
        if rows.n_groups >= MIN_GROUPS:
            count = None if one.decides else ROUNDS
            draws = bootstrap_scores(
                one, rows.label, answers, rows.group, seed=seed, replicates=count
            )
        _fill(found, mean, aside, key, values, draws)
    held_to = decided[names[aside - 1]].pred
    changed = np.array([one.pred != held_to for one in decided.values()], np.float64)
    _fill(found, mean, aside, FLIPS, changed.mean(1), _shares(rows, changed, seed))
    return found | ({MEAN_ROW: mean} if len(names) > aside else {})


def _fill(
    found: dict[str, dict[str, Score]],
    mean: dict[str, Score],
    aside: int,
    key: str,
    values: FloatArray,
    draws: FloatArray | None,
) -> None:
    """Enter values (k,) of the rows and draws (b, k) of a score; the mean over all but `aside`."""
    for place, scores in enumerate(found.values()):
        limits = (np.nan, np.nan) if draws is None else interval(draws[:, place])
        scores[key] = Score(float(values[place]), *limits)
    if len(values) > aside:
        limits = (np.nan, np.nan) if draws is None else interval(draws[:, aside:].mean(1))
        mean[key] = Score(float(values[aside:].mean()), *limits)


def _real_scores(
    decided: Mapping[str, Decided], held_to: str, seed: int
) -> dict[str, dict[str, Score]]:
    """Return the share of real pictures called fake, and of flips, by treatment."""
    rows = next(iter(decided.values()))
    called = np.array([one.pred for one in decided.values()], np.float64)
    before = decided[held_to].pred
    changed = np.array([one.pred != before for one in decided.values()], np.float64)
    found: dict[str, dict[str, Score]] = {name: {} for name in decided}
    for key, table in ((FPR, called), (FLIPS, changed)):
        _fill(found, {}, len(decided), key, table.mean(1), _shares(rows, table, seed))
    return found


def _shares(rows: Decided, table: FloatArray, seed: int) -> FloatArray | None:
    """Return (b, k) means of (k, n) values on resampled groups; None for too few groups."""
    if rows.n_groups < MIN_GROUPS:
        return None
    draws = resamples(rows.label, rows.group, seed=seed, replicates=ROUNDS)
    return np.stack([table @ copies / copies.sum() for copies in draws])


def table_of(card: RobustnessCard) -> list[list[str]]:
    """Return the card as cells: a line a level, a column a score."""
    keys = ["auc", card.metric, FPR, FLIPS]
    hard = [replace(row, level=f"reals, {row.level}") for row in card.hard_reals]
    return [
        ["level", *keys],
        *([r.level, *(_cell(r.scores.get(key)) for key in keys)] for r in (*card.rows, *hard)),
    ]


def _cell(score: Score | None) -> str:
    if score is None:
        return ""
    limits = "" if np.isnan(score.low) else f" [{score.low:.3f}, {score.high:.3f}]"
    return f"{score.value:.4f}{limits}"


def records(card: RobustnessCard, head: Mapping[str, Any]) -> pd.DataFrame:
    """Return a row a level and score."""
    rows = [("items", row) for row in card.rows] + [("reals", row) for row in card.hard_reals]
    return pd.DataFrame([
        {**head, "name": card.name, "level": row.level, "of": of, "score": key,
         "value": score.value, "low": score.low, "high": score.high, "threshold": card.threshold}
        for of, row in rows
        for key, score in row.scores.items()
    ])  # fmt: skip


def draw_card(card: RobustnessCard, title: str, path: Path) -> Path:
    """Draw each level's scores with their intervals, the clean ones as lines; returns `path`."""
    names = [row.level for row in card.rows]
    figure = new_figure(12, 0.32 * len(names) + 1.8)
    keys = ["auc", card.metric, FPR, FLIPS]
    panels = figure.subplots(1, len(keys), sharey=True)
    place = np.arange(len(names))[::-1]
    for panel, key in zip(panels, keys, strict=True):
        scores = [row.scores[key] for row in card.rows]
        value = np.array([one.value for one in scores])
        low, high = (np.array([getattr(one, side) for one in scores]) for side in ("low", "high"))
        panel.hlines(place, low, high, color="tab:blue", alpha=0.5, linewidth=3)
        panel.plot(value, place, "o", color="tab:blue", markersize=5)
        panel.axvline(value[0], **LINE)
        panel.set(title=key)
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(place, labels=[shown(name, 24) for name in names])
    figure.suptitle(shown(title, 110), fontsize=10)
    return save_figure(figure, path)
