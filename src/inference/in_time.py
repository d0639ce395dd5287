"""Whether a prediction ends in time, measured on its first batches; and what to do without."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from src.artifacts.recipes import Recipe
from src.compute.clock import Clock, in_words
from src.ensemble.extra import is_extra
from src.inference.stored import Part

LOG = logging.getLogger("rvf")
WARM_UP = 2  # batches not measured: loader processes start, kernels are chosen
MEASURED = 4  # batches before the first verdict
MEASURED_SECONDS = 5.0  # and at least so long, unless the pass is shorter
LONG_SECONDS = 30.0  # after which one measured batch is enough
VOTING_SECONDS = 10.0  # kept back for reading, voting and writing
SAFETY = 1.05


class TooSlowError(Exception):
    """A prediction would not end in time.

    Args:
        needed: seconds from now.
        left: seconds there are.

    Attributes:
        finished: checkpoints whose predictions were written before.
    """

    def __init__(self, needed: float, left: float) -> None:
        super().__init__(f"needs {in_words(needed)}, {in_words(left)} left")
        self.needed, self.left = needed, left
        self.finished: list[Part] = []


class Pace:
    """Measures a pass over the items and raises `TooSlowError` where it would not end in time.

    Called after every batch (`passes.predict_parts`). Says once what the whole will take; the first
    verdict holds, unless `keep_watching`.

    Args:
        clock: the limit.
        keep_watching: raise later too, where the pass becomes slower than it began.
        now: a clock, in seconds.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        keep_watching: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock, self.keep_watching, self.now = clock, keep_watching, now
        self.batches = 0
        self.first = (0, 0.0)  # items and time when the warm-up was over
        self.said = False

    def __call__(self, done: int, total: int) -> None:
        """Take note of `done` items of `total`."""
        self.batches += 1
        if done >= total:
            return  # too late for any verdict
        if self.batches <= WARM_UP:
            self.first = (done, self.now())
            return
        items, seconds = done - self.first[0], self.now() - self.first[1]
        few = self.batches < WARM_UP + MEASURED or seconds < MEASURED_SECONDS
        if not self.said and few and seconds < LONG_SECONDS:
            return
        needed = SAFETY * (total - done) * seconds / items
        left = self.clock.left() - VOTING_SECONDS
        if needed > left and (self.keep_watching or not self.said):
            raise TooSlowError(needed, max(0.0, left))
        if not self.said:
            self.said = True
            LOG.info(
                "%.1f items/s: the rest takes about %s, of --max-hours %s are left",
                items / seconds, in_words(needed), in_words(max(0.0, left)),
            )  # fmt: skip


def fitting_parts(
    recipe: Recipe, missing: Sequence[Part], costs: Sequence[float], room: float
) -> list[Part]:
    """Return the checkpoints that are still predicted with, where not all fit into the time.

    Members of the lowest weight go first (of equal ones, the one that takes longer), each with
    all its missing folds; of the last one that is left, folds go from the last one on. Folds that
    were predicted before cost nothing and stay.

    Args:
        recipe: the members' weights.
        missing: checkpoints without predictions yet.
        costs: what each takes, in any unit.
        room: what there is of that unit.
    """
    weights = {member.model: member.weight for member in recipe.members}
    cost = dict(zip(missing, costs, strict=True))
    kept = list(missing)
    whole = {
        model: sum(c for part, c in cost.items() if part.model == model)
        for model in dict.fromkeys(part.model for part in missing)
    }
    members = sorted(whole, key=lambda model: (abs(weights[model]), -whole[model]))
    for model in members[:-1]:
        if sum(cost[part] for part in kept) <= room:
            return kept
        kept = [part for part in kept if part.model != model]
    while kept and sum(cost[part] for part in kept) > room:
        kept.pop()
    return kept


def without(recipe: Recipe, parts: Sequence[Part]) -> Recipe:
    """Return the recipe in which members without any checkpoint among `parts` weigh nothing.

    Extra members, which have no checkpoints, stay. The coefficients of a stack are scaled up, for
    they are not brought to sum 1 when it votes.
    """
    models = {part.model for part in parts}
    kept = [
        member.model in models or is_extra(recipe.dataset, recipe.scheme, member.model)
        for member in recipe.members
    ]
    whole = sum(abs(member.weight) for member in recipe.members)
    rest = sum(abs(m.weight) for m, stays in zip(recipe.members, kept, strict=True) if stays)
    scale = 1.0
    if recipe.is_stack and rest > 0:
        scale = whole / rest
    members = [
        replace(member, weight=member.weight * scale if stays else 0.0)
        for member, stays in zip(recipe.members, kept, strict=True)
    ]
    return replace(recipe, members=members)
