"""`predict_ensemble.py --max-hours`: predict what fits into the time, or say what does.

`predict_ensemble.py --prior`: another share of fakes in the test items.
"""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src.artifacts.recipes import Recipe
from src.artifacts.runs import read_record
from src.compute.clock import Clock, in_words
from src.compute.request import Compute
from src.ensemble.align import oof_of
from src.ensemble.prior import correct
from src.ensemble.rule import rule_of, stages_of
from src.errors import UserError
from src.inference.stored import Part, TestItems
from src.inference.unfinished import Pace, TooSlowError, fitting_parts

LEFT_OUT = (
    "they did not fit into --max-hours; the others' weights were scaled up, the threshold is the "
    "one tuned for all"
)


def fill_in_time(
    missing: Sequence[Part],
    items: TestItems,
    recipe: Recipe,
    arguments: Namespace,
    clock: Clock,
) -> list[Part]:
    """Predict the items with the checkpoints that have not yet.

    Returns those that were left out for want of time (only with `--fit-in-time`).

    Raises:
        UserError: the time does not suffice; says for what it would.
    """
    if not missing:
        return []
    from src.inference import passes  # torch, which stored predictions do not need

    compute = Compute.of(arguments, clock=clock)
    todo, left_out, fit = list(missing), [], arguments.fit_in_time
    while todo:
        pace = None if clock.max_hours is None else Pace(clock, keep_watching=fit)
        try:
            passes.predict_parts(todo, items, compute, pace)
            break
        except TooSlowError as slow:
            todo = [part for part in todo if part not in slow.finished]
            costs = [_cost(part) for part in todo]
            share = slow.left / slow.needed if slow.needed > 0 else 1.0
            kept = fitting_parts(recipe, todo, costs, sum(costs) * share)
            if not fit:
                fits = ", ".join(names_of(kept))
                fits = f"{fits} would fit" if kept else "not even one of them fits"
                raise UserError(
                    f"predicting with {len(todo)} checkpoints takes about {in_words(slow.needed)} "
                    f"more, and {in_words(slow.left)} are left of --max-hours "
                    f"{clock.max_hours:g}; {fits}. --fit-in-time drops members by weight; a larger "
                    "--max-hours goes on from here, for what is predicted by now is kept"
                ) from None
            dropped = [part for part in todo if part not in kept]
            print(
                f"too slow for --max-hours: {slow}; goes on without {', '.join(names_of(dropped))}"
            )
            todo, left_out = kept, left_out + dropped
    return left_out


def names_of(parts: Sequence[Part]) -> list[str]:
    """Return checkpoints as people call them."""
    return [f"{part.model} fold {part.fold}" for part in parts]


def _cost(part: Part) -> float:
    """Return what an item costs, in seconds of the machine that trained: a ratio is wanted."""
    record = read_record(Path(part.checkpoint).with_suffix(".json"))
    views = 2 if record["config"]["tta"] == "flip" else 1
    return views / record["items_per_second"]


WARNING = (
    "it assumes that real and fake pictures look like the training ones and only their shares "
    "differ; new kinds of fakes break that"
)


def shift_recipe(
    recipe: Recipe, logits: dict[str, pd.Series], prior: str | float
) -> tuple[Recipe, dict[str, Any]]:
    """Move a recipe's threshold to the test items' share of fakes, and say so.

    Args:
        recipe: as tuned.
        logits: model -> logits of the test items, NaN where unreadable.
        prior: `em`, `bbse` or a share.

    Returns:
        The moved recipe, and what the sidecar says of it.

    Raises:
        UserError: see `src.ensemble.prior.correct`.
    """
    rule = rule_of(recipe)
    tuned = oof_of(recipe)
    readable = pd.DataFrame(logits).dropna()
    columns = [
        readable[m.model].to_numpy() if m.model in readable else np.full(len(readable), np.nan)
        for m in recipe.members
    ]
    shift = correct(rule, tuned.label, tuned.logit, np.stack(columns, axis=1), prior)
    moved = replace(recipe, stages=stages_of(shift.rule, [m.model for m in recipe.members]))
    print(
        f"prior ({shift.method}): {shift.test:.1%} fake among the test items, {shift.train:.1%} "
        f"among the out-of-fold rows; threshold {rule.threshold:.4f} -> {shift.rule.threshold:.4f}"
    )
    print(f"WARNING {WARNING}")
    return moved, {
        "method": shift.method,
        "train_share": shift.train,
        "test_share": shift.test,
        "threshold": shift.rule.threshold,
        "tuned_threshold": rule.threshold,
        "assumes": WARNING,
    }
