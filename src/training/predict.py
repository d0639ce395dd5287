"""The one way from items to logits: validation, out-of-fold, test and any folder go through it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.data.dataset import EvalBatches, make_loader
from src.data.pixels import PixelSource
from src.models.classifier import Classifier
from src.progress import track
from src.training.device import autocast

VIEWS = {"none": ("full",), "flip": ("full", "full+flip")}


@dataclass(frozen=True)
class Compute:
    """Where and how fast.

    Attributes:
        device: of the models.
        precision: fp32, bf16 or fp16.
        workers: processes that decode; 0 decodes in this one.
        batch_size: items a forward pass.
    """

    device: torch.device
    precision: str = "fp32"
    workers: int = 0
    batch_size: int = 64


def default_workers(n_items: int = 1_000_000) -> int:
    """Return how many processes decode: one core is left to the model, and few items need none."""
    return min(max(0, (os.cpu_count() or 1) - 1), 8, n_items // 2000)


def view_pixels(pixels: Tensor, view: str) -> Tensor:
    """Return a view of uint8 (n, s, s, 3) pixels; `+flip` mirrors left and right."""
    return pixels.flip(2) if view.endswith("+flip") else pixels


def predict_views(
    models: Sequence[Classifier],
    views: Sequence[Sequence[str]],
    source: PixelSource,
    rows: NDArray[np.int64],
    compute: Compute,
    *,
    what: str = "",
) -> tuple[list[NDArray[np.float64]], NDArray[np.bool_]]:
    """Predict items with several models in one pass; each item is decoded once.

    Args:
        models: in any mode; they are put in eval mode.
        views: for each model, the views it takes of an item.
        source: pixels, with every model's canvas.
        rows: row numbers of the items in `source`.
        compute: where and how fast.
        what: shown as progress; empty shows none.

    Returns:
        For each model float64 logits (n_rows, n_views), NaN where an item cannot be decoded, and
        bool (n_rows,) which items could.
    """
    specs = [model.spec for model in models]
    distinct = list(dict.fromkeys(specs))
    batches = EvalBatches(source, distinct)
    size = compute.batch_size
    parts = [rows[start : start + size].tolist() for start in range(0, len(rows), size)]
    loader = make_loader(batches, parts, compute.workers, pin=compute.device.type == "cuda")
    logits = [np.full((len(rows), len(names)), np.nan) for names in views]
    readable = np.zeros(len(rows), bool)
    for model in models:
        model.train().eval()  # some nets (LeViT) cache in eval mode what only train() clears
    done = 0
    with torch.inference_mode(), autocast(compute.device, compute.precision):
        for batch in track(loader, what, total=len(parts), unit="batch") if what else loader:
            place = slice(done, done + len(batch["item"]))
            done = place.stop
            readable[place] = batch["readable"].numpy()
            tensors = {
                k: batch[f"pixels{k}"].to(compute.device, non_blocking=True)
                for k in range(len(distinct))
            }
            for model, names, table in zip(models, views, logits, strict=True):
                pixels = tensors[distinct.index(model.spec)]
                for column, view in enumerate(names):
                    logit = model({"pixels": view_pixels(pixels, view)})["logit"]
                    table[place, column] = logit.float().cpu().double().numpy()
    for table in logits:
        table[~readable] = np.nan
    return logits, readable
