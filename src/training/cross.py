"""Predictions of another data set's labelled items: train on A, test on B."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from src import paths
from src.artifacts.files import sha256_json
from src.artifacts.recipes import Recipe
from src.data.manifest import Dataset
from src.ensemble.extra import is_extra
from src.errors import UserError
from src.training import fill


def labelled_items(dataset: Dataset) -> tuple[pd.DataFrame, fill.TestItems]:
    """Return the train items of a data set, its `extra:` ones left out, to be predicted.

    Returns:
        Their rows of the manifest, sorted by item_id, and what `fill` wants to know of them.

    Raises:
        UserError: see `Dataset.require_train`.
    """
    table = dataset.require_train()
    table = table[~table["item_id"].isin(dataset.extra_ids)].sort_values("item_id", kind="stable")
    stamp = dict(zip(dataset.items.index, dataset.stamps, strict=True))
    stamps = [str(stamp[row]) for row in table.index]
    marks = fill.cropped_marks(dataset.root, table["path"])
    print_of = sha256_json([dataset.sha256, "train", stamps, *marks])
    items = fill.TestItems(
        dataset.root, table["item_id"].tolist(), table["path"].tolist(), print_of
    )
    return table, items


def cross_logits(
    recipe: Recipe,
    folds: Sequence[paths.FoldName],
    other: str,
    items: fill.TestItems,
    *,
    device: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    auto_batch: bool = False,
) -> tuple[dict[str, pd.Series], int]:
    """Predict items of another data set with a recipe's checkpoints, as far as it is not done.

    Args:
        recipe: its members of some weight predict.
        folds: the fold models; an item's logit is the mean of theirs.
        other: name of the data set that the items are of.
        items: the items.
        device, precision, workers, auto_batch: as the flags.

    Returns:
        Member -> logits by item_id, NaN where an item is unreadable; and how many checkpoints
        had to predict.

    Raises:
        UserError: a checkpoint is missing, or a member came from elsewhere (`tune.py --extra`).
    """
    for member in recipe.members:
        if member.weight and is_extra(recipe.dataset, recipe.scheme, member.model):
            raise UserError(
                f"the member {member.model!r} came from elsewhere (tune.py --extra): it has no "
                f"checkpoint that could predict {other}; tune a recipe without it (--models)"
            )
    parts = [
        replace(part, views=_views(recipe, part, other))
        for part in fill.needed_parts(recipe, folds)
    ]
    missing = [p for p in parts if fill.stored_predictions(p, items, precision) is None]
    if missing:
        fill.predict_parts(missing, items, device, precision, workers, auto_batch=auto_batch)
    return fill.member_logits(recipe, parts, items), len(missing)


def _views(recipe: Recipe, part: fill.Part, other: str) -> Path:
    return paths.cross_views(recipe.dataset, recipe.scheme, part.model, part.fold, other)
