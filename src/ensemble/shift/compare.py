"""What recipes are worth under each condition, and how far one is ahead of another there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from src.bootstrap import MIN_GROUPS, bootstrap_scores, interval
from src.ensemble.crossfit import Tried, cross_vote
from src.ensemble.rule import Votes
from src.ensemble.shift.conditions import CLEAN, AllConditions, Condition
from src.metrics import Metric, score_of

FloatArray = NDArray[np.float64]
MEAN, WORST = "mean transformed", "worst level"


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
    """
    alike = {CLEAN: conditions.clean, **conditions.levels}
    lines = _of_same_rows(alike, recipes, metric, seed)
    for name, condition in conditions.schemes.items():
        lines += _of_same_rows({name: condition}, recipes, metric, seed)
    return lines


def answers_under(condition: Condition, recipe: Tried, metric: Metric) -> Votes:
    """Decide the rows of a condition, (n,), each by the rule that was fitted without its part."""
    rows = condition.rows
    if recipe.pool in rows.pooled.logits:
        rows = rows.under(recipe.pool)
    return cross_vote(recipe.rules, rows, condition.part, metric)


def _of_same_rows(
    conditions: Mapping[str, Condition], recipes: Sequence[Tried], metric: Metric, seed: int
) -> list[Worth]:
    """Return the lines of conditions that are of the same items in the same order."""
    rows = next(iter(conditions.values())).rows
    answers = [
        answers_under(condition, recipe, metric)
        for condition in conditions.values()
        for recipe in recipes
    ]
    shape = len(conditions), len(recipes)
    scores = np.array([score_of(metric, rows.label, *each) for each in answers]).reshape(shape)
    draws = None
    if rows.n_groups >= MIN_GROUPS:
        drawn = bootstrap_scores(metric, rows.label, answers, rows.group, seed=seed)
        draws = drawn.reshape(len(drawn), *shape)
    table = _Drawn(metric, len(rows), list(conditions), scores, draws)
    if len(conditions) == 1:
        return [table.line(0)]
    levels = [replace(table.line(place), is_level=True) for place in range(1, len(conditions))]
    return [table.line(0), table.mean(), table.worst(), *levels]


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
