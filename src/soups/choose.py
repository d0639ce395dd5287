"""A merge chosen on held-out rows: on all of them, and on either half for a score that counts.

What a choice looked at: every merge that was tried, with its scores, for people to look at.
"""

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.artifacts.oof import read_oof
from src.artifacts.runs import check_oof
from src.ensemble.predictions import fit_threshold
from src.errors import UserError
from src.merging.recipe import MergeRecipe
from src.metrics import auc, log_loss
from src.soups.bench import Bench, FloatArray, plain
from src.soups.ingredients import Ingredient
from src.soups.plan import Selection
from src.soups.record import in_words
from src.soups.select import Choice, Chooser
from src.soups.table import CROSS_FITTED, TooFewGroupsError, halves_of
from src.training.job import Job

LOG = logging.getLogger("rvf")


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
        row["macro_f1"] = fit_threshold(label, logit)[1]
        row["auc"], row["log_loss"] = auc(label, logit), log_loss(label, logit)
        rows.append(row)
    table = pd.DataFrame(rows)
    by = axis or selection.metric
    return table.sort_values(
        by, ascending=axis is not None or by == "log_loss", kind="stable", ignore_index=True
    )


def choose(
    selection: Selection, recipe: MergeRecipe, ingredients: dict[str, Ingredient], bench: Bench
) -> tuple[Choice, pd.DataFrame, pd.DataFrame]:
    """Choose a merge on all held-out rows, and on either half.

    Args:
        selection: how.
        recipe: with what is to be chosen left open.
        ingredients: by name.
        bench: where merges are tried.

    Returns:
        What all rows chose; the logits of what either half chose (`CROSS_FITTED`, sorted by
        item_id); what was looked at (`tried_table`).

    Raises:
        UserError: too few groups to choose on one half and score on the other.
    """
    job = bench.job
    try:
        half = halves_of(bench.labels, bench.groups)
    except TooFewGroupsError:
        raise UserError(
            f"{job.model} fold {job.fold}: the held-out rows have too few groups to choose on one "
            "half and score on the other; merge without `select` or `search`"
        ) from None
    chooser = Chooser(bench, recipe, selection)
    for name, one in ingredients.items():
        logit = own_logits(job, one)
        if logit is not None:
            chooser.know(plain("uniform", [name]), logit)
    by_half = [chooser.choose(half == k) for k in (0, 1)]
    chosen = chooser.choose(np.ones(len(half), bool))
    logits = [chooser.logits(choice.recipe) for choice in by_half]
    ids = job.table["item_id"].to_numpy()[job.held_rows]
    table = pd.DataFrame({"item_id": ids, "half": half, "logit_0": logits[0], "logit_1": logits[1]})
    LOG.info(
        "%s: %s; its score is that of what either half chose, in the table",
        _how(selection), in_words(chosen.recipe),
    )  # fmt: skip
    ordered = table[CROSS_FITTED].sort_values("item_id", kind="stable")
    return chosen, ordered, tried_table(bench.labels, chooser.tried, selection)


def _how(selection: Selection) -> str:
    """Return what decided; weights that are learned follow the log loss, whatever the metric."""
    if selection.how == "learned":
        return "weights learned by gradient"
    return f"chosen by {selection.how} ({selection.metric})"


def own_logits(job: Job, one: Ingredient) -> FloatArray | None:
    """Return an ingredient's out-of-fold logits, where they are there and of these weights.

    Args:
        job: whose held-out rows they must be of.
        one: the ingredient.

    Returns:
        (n,) in the order of the held-out rows, pooled over views, frames and people as the run
        pooled them; None where they must be predicted.
    """
    run = one.record or {}
    if (run.get("dataset"), run.get("scheme"), run.get("fold")) != (
        job.dataset, job.scheme, job.fold,
    ) or isinstance(job.fold, str):  # fmt: skip
        return None
    if run.get("checkpoint_sha256") != one.sha256:
        return None
    try:
        oof = read_oof(check_oof(run), job.table, job.fold)
    except UserError:  # gone, damaged or of another run: predicted here
        return None
    ids = job.table["item_id"].to_numpy()[job.held_rows]
    return oof.set_index("item_id")["logit"].loc[ids].to_numpy(np.float64)
