"""What a choice looked at: every merge that was tried, with its scores, for people to look at."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.merging.recipe import MergeRecipe
from src.metrics import auc, log_loss, sigmoid
from src.thresholds import best_threshold
from src.training.merge_plan import Selection
from src.training.merge_record import in_words

FloatArray = NDArray[np.float64]
SCORES = ["macro_f1", "auc", "log_loss"]


def sweep_axis(selection: Selection) -> str | None:
    """Return the parameter that a search moved along, where it is the only one and a number."""
    if len(selection.space) != 1:
        return None
    ((name, space),) = selection.space.items()
    choices = space.values  # noqa: PD011 - no table
    words = any(isinstance(value, bool | str) for value in choices)
    return None if space.each == "model" or space.knots > 1 or words else name


def tried_table(
    label: NDArray[np.int64],
    tried: Sequence[tuple[MergeRecipe, FloatArray]],
    selection: Selection,
) -> pd.DataFrame:
    """Return a row a merge: on all held-out rows, those that the choice is made on.

    Args:
        label: (n,) 0/1.
        tried: merges and their (n,) logits.
        selection: how they were chosen; along one parameter, rows are sorted by it, else by score.

    Returns:
        `merge` in words, the swept parameter, macro-F1 at the best threshold, AUC, log loss.
    """
    axis, rows = sweep_axis(selection), []
    for recipe, logit in tried:
        row: dict[str, object] = {"merge": in_words(recipe)}
        if axis is not None:
            if axis not in recipe.parameters:
                continue  # an ingredient, looked at alone
            row[axis] = recipe.parameters[axis]
        row["macro_f1"] = best_threshold(label, sigmoid(logit))[1]
        row["auc"], row["log_loss"] = auc(label, logit), log_loss(label, logit)
        rows.append(row)
    table = pd.DataFrame(rows)
    by = axis or selection.metric
    return table.sort_values(
        by, ascending=axis is not None or by == "log_loss", kind="stable", ignore_index=True
    )
