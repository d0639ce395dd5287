"""Predicting within `--max-hours`: what is left out where the time does not suffice for all."""

import logging
from collections.abc import Sequence
from pathlib import Path

from src.artifacts.recipes import Recipe
from src.artifacts.runs import read_record
from src.compute.clock import Clock, in_words
from src.compute.request import Compute
from src.errors import UserError
from src.inference.stored import ItemsToPredict, Part
from src.inference.unfinished import Pace, TooSlowError, fitting_parts

LOG = logging.getLogger("rvf")


def fill_in_time(
    missing: Sequence[Part],
    items: ItemsToPredict,
    recipe: Recipe,
    compute: Compute,
    *,
    fit_in_time: bool,
) -> list[Part]:
    """Predict the test items with the checkpoints that have not yet, within the clock's limit.

    Returns those that were left out for want of time (only with `fit_in_time`); otherwise a
    UserError says for what the time would suffice.
    """
    if not missing:
        return []
    from src.inference import passes  # torch, which stored predictions do not need

    clock = compute.clock
    todo, left_out = list(missing), []
    while todo:
        limited = clock.max_hours is not None
        pace = Pace(clock, keep_watching=fit_in_time) if limited else None
        try:
            passes.predict_parts(todo, items, compute, pace)
            break
        except TooSlowError as slow:
            todo = [part for part in todo if part not in slow.finished]
            costs = [_cost(part) for part in todo]
            share = slow.left / slow.needed if slow.needed > 0 else 1.0
            kept = fitting_parts(recipe, todo, costs, sum(costs) * share)
            if not fit_in_time:
                raise _refusal(slow, todo, kept, clock) from None
            dropped = names_of([part for part in todo if part not in kept])
            LOG.info("too slow for --max-hours: %s; goes on without %s", slow, ", ".join(dropped))
            left_out += [part for part in todo if part not in kept]
            todo = kept
    return left_out


UNTIMED = 1.0  # items a second of a refit that nothing was trained of: as slow as any


def names_of(parts: Sequence[Part]) -> list[str]:
    """Return what people call checkpoints."""
    return [f"{part.model} fold {part.fold}" for part in parts]


def _cost(part: Part) -> float:
    """Return what an item costs, in seconds of the machine that trained: a ratio is wanted."""
    record = read_record(Path(part.checkpoint).with_suffix(".json"))
    views = 2 if record["config"]["tta"] == "flip" else 1
    return views / (record["items_per_second"] or UNTIMED)


def _refusal(
    slow: TooSlowError, todo: Sequence[Part], kept: Sequence[Part], clock: Clock
) -> UserError:
    fits = f"{', '.join(names_of(kept))} would fit" if kept else "not even one of them fits"
    return UserError(
        f"predicting with {len(todo)} checkpoints takes about {in_words(slow.needed)} more, and "
        f"{in_words(slow.left)} are left of --max-hours {clock.max_hours:g}; {fits}. "
        "--fit-in-time drops members by weight; more time (--max-hours, or max_hours of the rules) "
        "goes on from here, for what is predicted by now is kept"
    )
