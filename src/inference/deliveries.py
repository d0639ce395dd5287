"""Predictions of pictures as they are delivered: what is missing of rows is filled in, once."""

import logging
from collections.abc import Mapping, Sequence
from itertools import groupby

import pandas as pd

from src import paths
from src.artifacts.oof import UNREADABLE, Levels, read_views
from src.artifacts.runs import check_checkpoint, read_run
from src.compute.request import Compute
from src.data.items.manifest import Dataset
from src.errors import UserError
from src.inference.passes import predict_parts
from src.inference.stored import ItemsToPredict, Part, fingerprint_items, lacking_levels

LOG = logging.getLogger("rvf")


def deliver_held_out(
    dataset: Dataset,
    scheme: str,
    table: pd.DataFrame,
    runs: Mapping[str, Sequence[int]],
    levels: Levels,
    compute: Compute,
) -> int:
    """Predict the held-out rows of runs as levels deliver them; what is there is kept.

    Each row is decoded once for all levels and all models of its fold.

    Args:
        dataset, scheme, table: the items, and the fold file that says which fold holds them out.
        runs: model -> its folds.
        levels: their names and the seed of their draws.
        compute: where and how fast.

    Returns:
        How many pictures models looked at: rows, times levels, times models.

    Raises:
        UserError: a run's files are not those of its record; see `predict_parts`.
    """
    place = dataset.items.set_index("item_id")["path"]
    looked = 0
    for fold in sorted({fold for folds in runs.values() for fold in folds}):
        held = table.loc[table["fold"] == fold].sort_values("item_id")
        rows = dataset.items[dataset.items["item_id"].isin(set(held["item_id"]))]
        ids = held["item_id"].tolist()
        items = ItemsToPredict(
            dataset.root, ids, place.loc[ids].tolist(), fingerprint_items(dataset, rows)
        )
        parts = []
        for model, folds in runs.items():
            if fold in folds:
                names = (dataset.name, scheme, model)
                record = read_run(*names, fold)
                views = paths.delivered_views(*names, levels.seed, fold)
                weights, sha = check_checkpoint(record), record["checkpoint_sha256"]
                parts.append(Part(model, fold, weights, sha, views, levels=levels))
        looked += deliver(parts, items, compute)
        _check_readable(parts, items)
    return looked


def _check_readable(parts: Sequence[Part], items: ItemsToPredict) -> None:
    """Raise a UserError for an item that was trained on and cannot be decoded any more."""
    for part in parts:
        views = read_views(part.views)[0]
        lost = views.loc[views["view"] == UNREADABLE, "item_id"]
        if len(lost):
            item = str(lost.iloc[0])
            path = items.root / items.paths[items.item_ids.index(item)]
            raise UserError(
                f"{path}: cannot be decoded ({len(lost)} such held-out items); it was readable "
                "when the folds were made: put the file back, then the same command"
            )


def deliver(parts: Sequence[Part], items: ItemsToPredict, compute: Compute) -> int:
    """Predict items at the levels of each part that its stored predictions lack.

    Returns:
        How many pictures were looked at.

    Raises:
        UserError: see `predict_parts`.
    """
    lacking = lacking_levels(parts, items, compute.precision, compute.engine)
    return predict_levels(lacking, items, compute)


def predict_levels(lacking: Sequence[Part], items: ItemsToPredict, compute: Compute) -> int:
    """Predict items at all levels of each part, whatever is stored; returns as `deliver`."""
    looked = 0
    for levels, same in groupby(sorted(lacking, key=lambda p: str(p.levels)), lambda p: p.levels):
        alike = list(same)
        assert levels is not None
        LOG.info(
            "delivered pictures: %d rows at %d levels, %d checkpoints",
            len(items.paths), len(levels.names), len(alike),
        )  # fmt: skip
        predict_parts(alike, items, compute)
        looked += len(alike) * len(levels.names) * len(items.paths)
    return looked
