"""What is missing of predictions; within `--max-hours`, what is left out for want of time."""

import logging
from collections.abc import Sequence
from pathlib import Path

from src.artifacts.competition import views_of
from src.artifacts.recipes import Recipe
from src.artifacts.runs import read_record
from src.compute.clock import Clock, in_words
from src.compute.request import Compute
from src.errors import UserError
from src.inference.stored import ItemsToPredict, Part, lacking_levels, stored_predictions
from src.inference.unfinished import Pace, TooSlowError, fitting_parts

LOG = logging.getLogger("rvf")


def missing_parts(
    parts: Sequence[Part], items: ItemsToPredict, compute: Compute, *, overwrite: bool
) -> list[Part]:
    """Return the parts whose predictions are not there, or not as asked for.

    What is there is replaced only once it is predicted again.
    """
    if overwrite:
        for part in parts:
            part.unfinished(items).unlink(missing_ok=True)
        return list(parts)
    wanted = (compute.precision, compute.engine)
    clean = [part for part in parts if part.levels is None]
    delivered = [part for part in parts if part.levels is not None]
    missing = [part for part in clean if stored_predictions(part, items, *wanted) is None]
    return missing + lacking_levels(delivered, items, *wanted)


def fill_in_time(
    missing: Sequence[Part],
    items: ItemsToPredict,
    recipe: Recipe,
    compute: Compute,
    *,
    fit_in_time: bool,
) -> list[Part]:
    """Predict the test items with the checkpoints that have not yet, within the clock's limit.

    What is `missing` of a checkpoint at levels goes with its clean predictions, or is left out with
    them. Returns a part of each checkpoint that was left out for want of time (only with
    `fit_in_time`); otherwise a UserError says for what the time would suffice.
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
            costs = _costs(todo)
            share = slow.left / slow.needed if slow.needed > 0 else 1.0
            room = sum(costs.values()) * share
            kept = fitting_parts(recipe, list(costs), list(costs.values()), room)
            if not fit_in_time:
                raise _refusal(slow, list(costs), kept, clock) from None
            dropped = [part for part in costs if part not in kept]
            without = ", ".join(names_of(dropped))
            LOG.info("too slow for --max-hours: %s; goes on without %s", slow, without)
            left_out += dropped
            todo = [part for part in todo if part.checkpoint in {one.checkpoint for one in kept}]
    return left_out


UNTIMED = 1.0  # items a second of a refit that nothing was trained of: as slow as any


def names_of(parts: Sequence[Part]) -> list[str]:
    """Return what people call checkpoints."""
    return [f"{part.model} fold {part.fold}" for part in parts]


def _costs(todo: Sequence[Part]) -> dict[Part, float]:
    """Return the first part of each checkpoint, and what an item costs with all of its parts.

    In seconds of the machine that trained: ratios are wanted.
    """
    first: dict[Path, Part] = {}
    costs: dict[Part, float] = {}
    for part in todo:
        record = read_record(Path(part.checkpoint).with_suffix(".json"))
        looks = 1 if part.levels is None else len(part.levels.names)
        looks *= views_of(record, one_view=part.one_view)
        one = first.setdefault(part.checkpoint, part)
        costs[one] = costs.get(one, 0.0) + looks / (record["items_per_second"] or UNTIMED)
    return costs


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
