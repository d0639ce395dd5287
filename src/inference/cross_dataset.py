"""Predictions of another data set's labelled items: train on A, test on B."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from src import paths
from src.artifacts.files import sha256_json
from src.artifacts.recipes import Recipe
from src.data.items.manifest import Dataset, refuse_missing
from src.ensemble.extra import is_extra
from src.errors import UserError
from src.inference import stored

_OTHER = {"train": "test", "test": "train"}


@dataclass(frozen=True)
class Labelled:
    """Items of which the truth is known."""

    split: str  # `train` or `test`
    table: pd.DataFrame  # their rows of the manifest, sorted by item_id, label int64
    aside: int  # labelled items of the other split, which are not among them
    unlabelled: int  # items of this split whose truth is not known


def labelled_items(dataset: Dataset, split: str | None = None) -> Labelled:
    """Return the labelled items of one split, those of `extra:` left out.

    Args:
        dataset: the data set.
        split: `train` or `test`; None takes the test items where their labels are there, for
            these are what papers score, else the train items.

    Raises:
        UserError: there are none, or files of items are missing.
    """
    train = dataset.train[~dataset.train["item_id"].isin(dataset.extra_ids)]
    known = dataset.test_labels
    test = dataset.test.iloc[:0] if known is None else dataset.test
    truth = None if known is None else known.reindex(test["item_id"]).to_numpy()
    unlabelled = len(dataset.test)
    if truth is not None:
        test = test.assign(label=truth)
        test = test[test["label"].notna()]
        unlabelled -= len(test)
    if split is None:
        split = "test" if len(test) else "train"
    table, rest = (test, train) if split == "test" else (train, test)
    if table.empty:
        way_out = f"; {len(rest)} others are: --split {_OTHER[split]}" if len(rest) else ""
        raise UserError(f"{dataset.root}: no {split} item is labelled{way_out}")
    refuse_missing(dataset)
    table = table.assign(label=table["label"].astype("int64"))
    table = table.sort_values("item_id", kind="stable")
    return Labelled(split, table, len(rest), unlabelled if split == "test" else 0)


def to_predict(dataset: Dataset, table: pd.DataFrame) -> stored.TestItems:
    """Return what `fill` wants to know of rows of a manifest, one split of it."""
    print_of = sha256_json([table["split"].iloc[0], stored.fingerprint_items(dataset, table)])
    return stored.TestItems(
        dataset.root, table["item_id"].tolist(), table["path"].tolist(), print_of
    )


def cross_logits(
    recipe: Recipe,
    folds: Sequence[paths.FoldName],
    other: str,
    items: stored.TestItems,
    *,
    split: str = "train",
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
        split: which of its splits they are.
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
        replace(part, views=_views(recipe, part, other, split))
        for part in stored.needed_parts(recipe, folds)
    ]
    missing = [p for p in parts if stored.stored_predictions(p, items, precision) is None]
    if missing:
        from src.inference import passes  # torch, which stored predictions do not need

        way = passes.Way(device, precision, workers, auto_batch=auto_batch)
        passes.predict_parts(missing, items, way)
    return stored.member_logits(recipe, parts, items), len(missing)


def _views(recipe: Recipe, part: stored.Part, other: str, split: str) -> Path:
    return paths.cross_views(recipe.dataset, recipe.scheme, part.model, part.fold, other, split)
