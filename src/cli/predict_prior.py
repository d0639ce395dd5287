"""`predict_ensemble.py --prior`: another share of fakes in the test items."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from src.artifacts.recipes import Recipe
from src.ensemble.prior import correct
from src.ensemble.stages import rule_of, stages_of
from src.ensemble.tuned_rows import oof_of

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
    label, tuned = oof_of(recipe)
    readable = pd.DataFrame(logits).dropna()
    columns = [
        readable[m.model].to_numpy() if m.model in readable else np.full(len(readable), np.nan)
        for m in recipe.members
    ]
    shift = correct(rule, label, tuned, np.stack(columns, axis=1), prior)
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
