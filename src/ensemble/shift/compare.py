"""What recipes are worth under each condition, and how far one is ahead of another there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from src.bootstrap import MIN_GROUPS, bootstrap_scores, interval
from src.ensemble.align import Aligned
from src.ensemble.crossfit import Tried, cross_vote
from src.ensemble.predictions import Predictions
from src.ensemble.rule import Votes
from src.ensemble.scales import calibrate_alike
from src.ensemble.shift.conditions import CLEAN, AllConditions, Condition
from src.metrics import Metric, score_of

FloatArray = NDArray[np.float64]
MEAN, WORST = "mean transformed", "worst level"
NOT_CALIBRATED = (
    "other nets predicted these rows, which no curve of a fold's net fits: this is the score of {} "
    "without its fold calibration"
)


@dataclass(frozen=True)
class Worth:
    """What recipes are worth under one condition, each row decided without its own part."""

    name: str  # `clean`, `mean transformed`, `worst level`, a level, or another scheme
    rows: int
    scores: list[float]  # of each recipe, in units of the metric
    interval: tuple[float, float] | None  # 95 % of the last one's, by group; None: too few groups
    # of the last one over the first, more is better; None where there is one alone
    gain: float | None = None
    gain_interval: tuple[float, float] | None = None  # 95 %, paired, by group
    worst: list[str] | None = None  # the level of each, on the line of the worst
    is_level: bool = False  # one of those that the mean and the worst are of
    note: str = ""  # why the recipes are not the true ones here
    # of the last one without its mean over deliveries, which clean rows alone can be scored by
    before_deliveries: bool = False


def compare(
    conditions: AllConditions, recipes: Sequence[Tried], metric: Metric, seed: int
) -> list[Worth]:
    """Score the cross-fitted rules of one recipe, or of two, under every condition.

    Args:
        conditions: where.
        recipes: which; each with rules fitted without each part.
        metric: by which.
        seed: of the bootstrap, whose draws are of groups: one draw for both recipes and for all
            levels, so that differences are paired.

    Returns:
        Clean; the mean over levels, the worst one and each, where there are any; other schemes.
        Rows at levels go through the curves of a recipe's folds, as clean ones do; those by other
        schemes cannot, and the line says so in place of a gain.
    """
    alike = {CLEAN: conditions.clean, **conditions.levels}
    lines = _of_same_rows(alike, recipes, metric, seed)
    bad = ", ".join(recipe.name for recipe in recipes if recipe.curves)
    for name, condition in conditions.schemes.items():
        found = _of_same_rows({name: condition}, recipes, metric, seed)
        if bad:
            note = NOT_CALIBRATED.format(bad)
            found = [replace(line, gain=None, gain_interval=None, note=note) for line in found]
        lines += found
    return lines


def compare_answers(
    rows: Predictions, answers: Sequence[Votes], metric: Metric, seed: int
) -> Worth:
    """Return the line of what recipes answered on the clean rows, (n,) each."""
    return _drawn(rows, [CLEAN], answers, metric, seed).line(0)


def _of_same_rows(
    conditions: Mapping[str, Condition], recipes: Sequence[Tried], metric: Metric, seed: int
) -> list[Worth]:
    """Return the lines of conditions that are of the same items in the same order."""
    seen = [_as_seen(conditions, recipe, seed) for recipe in recipes]
    answers = [
        cross_vote(recipe.rules, rows[name], condition.part, metric)
        for name, condition in conditions.items()
        for recipe, rows in zip(recipes, seen, strict=True)
    ]
    rows = next(iter(conditions.values())).rows
    table = _drawn(rows, list(conditions), answers, metric, seed)
    if len(conditions) == 1:
        return [table.line(0)]
    levels = [replace(table.line(place), is_level=True) for place in range(1, len(conditions))]
    return [table.line(0), table.mean(), table.worst(), *levels]


def _as_seen(
    conditions: Mapping[str, Condition], recipe: Tried, seed: int
) -> Mapping[str, Aligned]:
    """Return the rows of conditions with a recipe's pooling, through its curves where they fit."""
    pool = recipe.pool
    rows = {
        name: one.rows.under(pool) if pool in one.rows.pooled.logits else one.rows
        for name, one in conditions.items()
    }
    if not recipe.curves or CLEAN not in rows:
        return rows
    return calibrate_alike(rows[CLEAN], list(recipe.curves), seed, rows)


def _drawn(
    rows: Predictions, names: list[str], answers: Sequence[Votes], metric: Metric, seed: int
) -> "_Drawn":
    """Score answers, those of a condition together, and draw their scores."""
    shape = len(names), len(answers) // len(names)
    scores = np.array([score_of(metric, rows.label, *each) for each in answers]).reshape(shape)
    draws = None
    if rows.n_groups >= MIN_GROUPS:
        drawn = bootstrap_scores(metric, rows.label, list(answers), rows.group, seed=seed)
        draws = drawn.reshape(len(drawn), *shape)
    return _Drawn(metric, len(rows), names, scores, draws)


@dataclass(frozen=True)
class _Drawn:
    """Scores of conditions, (c, r), and their draws, (b, c, r)."""

    metric: Metric
    rows: int
    names: list[str]
    scores: FloatArray
    draws: FloatArray | None

    def line(self, place: int) -> Worth:
        draws = None if self.draws is None else self.draws[:, place]
        return self._line(self.names[place], self.scores[place], draws)

    def mean(self) -> Worth:
        """Return the line of the mean over all but the first."""
        draws = None if self.draws is None else self.draws[:, 1:].mean(axis=1)
        return self._line(MEAN, self.scores[1:].mean(axis=0), draws)

    def worst(self) -> Worth:
        """Return the line of each recipe's worst but the first; each draw has its own worst."""
        sign = self.metric.sign
        place = (sign * self.scores[1:]).argmin(axis=0)
        draws = None if self.draws is None else sign * (sign * self.draws[:, 1:]).min(axis=1)
        scores = np.take_along_axis(self.scores[1:], place[None], axis=0)[0]
        return self._line(WORST, scores, draws, [self.names[1 + int(p)] for p in place])

    def _line(
        self,
        name: str,
        scores: FloatArray,
        draws: FloatArray | None,
        worst: list[str] | None = None,
    ) -> Worth:
        limits = None if draws is None else interval(draws[:, -1])
        gain, gain_limits = None, None
        if scores.size > 1:
            gain = float(self.metric.sign * (scores[-1] - scores[0]))
            if draws is not None:
                gain_limits = interval(self.metric.sign * (draws[:, -1] - draws[:, 0]))
        return Worth(name, self.rows, scores.tolist(), limits, gain, gain_limits, worst)
