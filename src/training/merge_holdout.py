"""Another data set, labelled and seen by nobody: what ingredients and merges are worth there."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.data.manifest import Dataset
from src.data.pixels import Canvas, PixelSource
from src.data.scan import scan_items
from src.data.sources import read_bytes
from src.errors import UserError
from src.seeds import derive_seed
from src.training.checkpoint import load_checkpoint
from src.training.predict import Compute, predict_views

LOG = logging.getLogger("rvf")
ITEMS = 2000


@dataclass(frozen=True)
class Holdout:
    """Labelled items of another data set.

    Attributes:
        name: of the data set.
        root: its folder.
        paths: of the items.
        label: (m,) 0/1.
    """

    name: str
    root: Path
    paths: list[str]
    label: NDArray[np.int64]


def read_holdout(dataset: Dataset, trained: Dataset, items: int = ITEMS) -> Holdout:
    """Draw labelled images of a data set, but for those that are equal to a training file.

    Args:
        dataset: another one.
        trained: what the ingredients were trained on.
        items: how many to draw at most.

    Raises:
        UserError: it is the same data set, or nothing of both classes is left.
    """
    if dataset.root == trained.root:
        raise UserError(f"--holdout {dataset.name}: that is what the models were trained on")
    table = dataset.train
    table = table[(table["kind"] == "image").to_numpy()]
    rng = np.random.default_rng(derive_seed("holdout", dataset.name))
    rows = np.sort(rng.permutation(len(table))[:items])
    drawn = table.iloc[rows]
    scan = scan_items(trained)
    known = set(scan.loc[(scan["split"] == "train").to_numpy(), "sha256"])
    equal = np.array([
        hashlib.sha256(read_bytes(dataset.root, path)).hexdigest() in known
        for path in drawn["path"]
    ], bool)  # fmt: skip
    if equal.any():
        LOG.info(
            "--holdout %s: %d of %d items are equal files of %s, left out",
            dataset.name, int(equal.sum()), len(equal), trained.name,
        )  # fmt: skip
    kept = drawn[~equal]
    label = kept["label"].to_numpy(np.int64)
    if len(np.unique(label)) < 2:
        raise UserError(f"--holdout {dataset.name}: wants labelled images of both classes")
    return Holdout(dataset.name, dataset.root, kept["path"].tolist(), label)


def predict_holdout(
    holdout: Holdout, checkpoints: Sequence[Sequence[Path]], compute: Compute
) -> tuple[list[NDArray[np.float64]], NDArray[np.bool_]]:
    """Predict the items with several models in one pass.

    Args:
        holdout: the items.
        checkpoints: a list a model, of its folds, whose mean logit counts.
        compute: where and how fast.

    Returns:
        (m,) logits a model, and (m,) which items could be decoded.
    """
    files = [file for each in checkpoints for file in each]
    loaded = [load_checkpoint(file, compute.device) for file in files]
    canvases = [Canvas.of(model.spec) for model, _ in loaded]
    source = PixelSource(holdout.root, holdout.paths, canvases)
    logits, readable = predict_views(
        [model for model, _ in loaded], [views for _, views in loaded], source,
        np.arange(len(holdout.paths)), compute, what=holdout.name,
    )  # fmt: skip
    pooled = iter([table.mean(1) for table in logits])
    return [np.mean([next(pooled) for _ in each], axis=0) for each in checkpoints], readable
