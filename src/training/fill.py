"""Predictions of the test items: which are missing, and one pass that fills them in.

This module loads torch only when there is something to predict, so that another recipe over the
same predictions votes in seconds.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from src import paths
from src.artifacts.files import read_json, sha256_file
from src.artifacts.oof import UNREADABLE, VIEW_COLUMNS, read_views, write_views
from src.artifacts.recipes import Recipe
from src.errors import UserError


@dataclass(frozen=True)
class Part:
    """The test predictions of one checkpoint.

    Attributes:
        model: name of the member.
        fold: the fold its checkpoint held out.
        checkpoint: the weights.
        checkpoint_sha256: of that file, as its run record says.
        views: where its predictions lie or will lie.
    """

    model: str
    fold: int
    checkpoint: Path
    checkpoint_sha256: str
    views: Path


@dataclass(frozen=True)
class TestItems:
    """The items to predict.

    Attributes:
        root: folder of the data set.
        item_ids: ids, sorted.
        paths: manifest paths, in the same order.
        manifest_sha256: fingerprint of the data set they belong to.
    """

    __test__ = False  # not a pytest class

    root: Path
    item_ids: list[str]
    paths: list[str]
    manifest_sha256: str


def needed_parts(recipe: Recipe) -> list[Part]:
    """Return the checkpoints that a recipe's members of weight > 0 need.

    Raises:
        UserError: a run is not finished, or its checkpoint is gone.
    """
    parts = []
    for member in recipe.members:
        for fold in recipe.folds if member.weight > 0 else []:
            names = (recipe.dataset, recipe.scheme, member.model, fold)
            weights, done = paths.checkpoint(*names), paths.run_record(*names)
            for file in (weights, done):
                if not file.is_file():
                    raise UserError(
                        f"{file} is not there, and the recipe predicts with it; train it: python "
                        f"train_folds.py --model {member.model} --fold {fold} --data "
                        f"{recipe.dataset} --overwrite, or tune without that member (--models)"
                    )
            sha = str(read_json(done, schema=1, what="run record").get("checkpoint_sha256"))
            parts.append(Part(member.model, fold, weights, sha, paths.test_views(*names)))
    return parts


def stored_predictions(
    part: Part, items: TestItems, precision: str = "auto"
) -> pd.DataFrame | None:
    """Return a checkpoint's predictions if they are complete and of these weights and items.

    Args:
        part: the checkpoint.
        items: the items.
        precision: as `--precision`; other than `auto`, predictions of another one do not count.
    """
    if not part.views.is_file():
        return None
    try:
        views, metadata = read_views(part.views)
    except UserError:
        return None  # damaged: predicted again
    if metadata.get("checkpoint_sha256") != part.checkpoint_sha256:
        return None
    if metadata.get("manifest_sha256") != items.manifest_sha256:
        return None
    if precision not in ("auto", metadata.get("precision")):
        return None
    return views if set(views["item_id"]) == set(items.item_ids) else None


def predict_parts(
    parts: list[Part], items: TestItems, device: str, precision: str, workers: int | None
) -> None:
    """Predict the test items with several checkpoints in one pass and store the views.

    Each item is decoded once, whatever the number of checkpoints.

    Args:
        parts: the checkpoints.
        items: the items.
        device: as `--device`.
        precision: as `--precision`.
        workers: loader processes; None chooses.
    """
    from src.data.pixels import Canvas, PixelSource
    from src.training.checkpoint import load_checkpoint
    from src.training.device import choose_device, inference_precision
    from src.training.predict import Compute, default_workers, predict_views

    for part in parts:
        if sha256_file(part.checkpoint) != part.checkpoint_sha256:
            raise UserError(
                f"{part.checkpoint}: not the file that its run record speaks of; train fold "
                f"{part.fold} of {part.model} again (--overwrite)"
            )
    chip = choose_device(device)
    loaded = [load_checkpoint(part.checkpoint, chip) for part in parts]
    models = [model for model, _ in loaded]
    source = PixelSource(items.root, items.paths, [Canvas.of(model.spec) for model in models])
    compute = Compute(
        chip,
        inference_precision(chip, precision),
        default_workers(len(items.paths)) if workers is None else workers,
    )
    rows = np.arange(len(items.paths))
    logits, readable = predict_views(
        models, [views for _, views in loaded], source, rows, compute, what="predicting"
    )
    broken = ""
    for part, (_, names), table in zip(parts, loaded, logits, strict=True):
        bad = readable & ~np.isfinite(table).all(1)
        if bad.any():
            broken = f"{part.model} fold {part.fold}: the logit of {items.item_ids[bad.argmax()]!r}"
            continue
        views = view_rows(items.item_ids, part.fold, names, table, readable)
        metadata = {
            "checkpoint_sha256": part.checkpoint_sha256,
            "manifest_sha256": items.manifest_sha256,
            "precision": compute.precision,
        }
        write_views(part.views, views, metadata)
    if broken:
        raise UserError(f"{broken} is not finite; predict again with --precision fp32")


def view_rows(
    ids: list[str],
    fold: int,
    names: list[str],
    logits: np.ndarray,
    readable: np.ndarray,
) -> pd.DataFrame:
    """Return view-level predictions as a table; an unreadable item has one row and no logit.

    Args:
        ids: item ids (n,).
        fold: the fold model that made them.
        names: views, the columns of `logits`.
        logits: float64 (n, n_views).
        readable: bool (n,).
    """
    seen = np.asarray(ids, dtype=object)[readable]
    table = pd.DataFrame(
        {
            "item_id": np.repeat(seen, len(names)),
            "fold": fold,
            "view": np.tile(np.asarray(names, dtype=object), len(seen)),
            "logit": logits[readable].reshape(-1),
        }
    )
    lost = pd.DataFrame(
        {
            "item_id": np.asarray(ids, dtype=object)[~readable],
            "fold": fold,
            "view": UNREADABLE,
            "logit": np.nan,
        }
    )
    return pd.concat([table, lost], ignore_index=True)[VIEW_COLUMNS] if len(lost) else table
