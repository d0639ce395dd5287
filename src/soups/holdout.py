"""Another data set, labelled and seen by nobody: what ingredients and merges are worth there."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.compute.request import Compute
from src.data.folds.overlap import find_overlap
from src.data.items.manifest import Dataset
from src.data.layouts.load import load_dataset
from src.data.pixels.source import Canvas, PixelSource
from src.errors import UserError
from src.inference.predict import predict_views
from src.models.checkpoint import load_checkpoint
from src.seeds import derive_seed

LOG = logging.getLogger("rvf")
ITEMS = 2000


@dataclass(frozen=True)
class Holdout:
    """Labelled items of another data set."""

    name: str  # of the data set
    root: Path  # its folder
    paths: list[str]  # of the items
    label: NDArray[np.int64]  # (m,) 0/1


def read_holdout(
    dataset: Dataset,
    trained: Mapping[str, Collection[str] | None],
    items: int = ITEMS,
    input_root: Path | None = None,
) -> Holdout:
    """Draw labelled images of a data set, but for copies and relatives of training items.

    Those are equal files, look-alikes and items of their videos; only what is drawn is opened.

    Args:
        dataset: another one.
        trained: ids of what was trained on, by data set (`lineage.trained_sets`).
        items: how many to draw at most.
        input_root: folder of data sets, instead of `input/`.

    Raises:
        UserError: it is one of the trained ones, or nothing of both classes is left.
    """
    known = {name: _loaded(name, input_root) for name in trained}
    if any(one is not None and one.root == dataset.root for one in known.values()):
        raise UserError(f"--holdout {dataset.name}: that is what the models were trained on")
    table = dataset.train[~dataset.train["item_id"].isin(dataset.extra_ids)]
    table = table[(table["kind"] == "image").to_numpy()]
    rng = np.random.default_rng(derive_seed("holdout", dataset.name))
    rows = np.sort(rng.permutation(len(table))[:items])
    kept = table.iloc[rows]
    for name, other in known.items():
        if other is not None:
            kept = _unseen(dataset, kept, other, trained[name])
    label = kept["label"].to_numpy(np.int64)
    if len(np.unique(label)) < 2:
        raise UserError(
            f"--holdout {dataset.name}: wants labelled images of both classes that are no copies "
            f"of what was trained on; {len(kept)} of {len(rows)} are left"
        )
    return Holdout(dataset.name, dataset.root, kept["path"].tolist(), label)


def _loaded(name: str, input_root: Path | None) -> Dataset | None:
    try:
        return load_dataset(name, input_root)
    except UserError as error:
        LOG.warning("WARNING copies of items of %s are not looked for: %s", name, error)
        return None


def _unseen(
    dataset: Dataset, drawn: pd.DataFrame, trained: Dataset, ids: Collection[str] | None
) -> pd.DataFrame:
    """Return the rows that nothing trained on is akin to; says how many others there are."""
    place = dataset.items.index.get_indexer(drawn.index)
    part = replace(dataset, items=drawn, stamps=[dataset.stamps[row] for row in place])
    found = find_overlap(trained, ids, part, drawn, "")  # no scheme: files are opened
    if found.seen.any():
        LOG.info(
            "--holdout %s: %d of %d items were seen in training on %s, left out (%s)",
            dataset.name, int(found.seen.sum()), len(drawn), trained.name, found.counts,
        )  # fmt: skip
    return drawn[~found.seen]


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
    loaded = [load_checkpoint(file, compute.chip) for file in files]
    canvases = [Canvas.of(model.spec) for model, _ in loaded]
    source = PixelSource(holdout.root, holdout.paths, canvases)
    looked = predict_views(
        [model for model, _ in loaded], [views for _, views in loaded], source,
        np.arange(len(holdout.paths)), compute, what=holdout.name,
    )  # fmt: skip
    pooled = iter([table.mean(1) for table in looked.logits])
    return [np.mean([next(pooled) for _ in each], axis=0) for each in checkpoints], looked.there
