"""The one way from items to logits: validation, out-of-fold, test and any folder go through it."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.compute.device import inference_precision
from src.compute.memory import advised
from src.compute.pieces import Pieces
from src.compute.request import Compute
from src.data.batches.loader import EvalBatches, make_loader
from src.data.pixels.source import PixelSource
from src.inference.engines import Eager, Engine
from src.models.classifier import Classifier
from src.progress import track

VIEWS = {"none": ("full",), "flip": ("full", "full+flip")}


def view_pixels(pixels: Tensor, view: str) -> Tensor:
    """Return a view of uint8 (n, s, s, 3) pixels; `+flip` mirrors left and right."""
    return pixels.flip(2) if view.endswith("+flip") else pixels


WAYS_OUT = (
    "--auto-batch finds how many fit; --precision bf16 (on older cards fp16) needs half, "
    "--device cpu another memory"
)


def predict_views(
    models: Sequence[Classifier | Engine],
    views: Sequence[Sequence[str]],
    source: PixelSource,
    rows: NDArray[np.int64],
    compute: Compute,
    *,
    what: str = "",
    on_batch: Callable[[int], None] | None = None,
    begin: Callable[[NDArray[np.float64], NDArray[np.bool_]], int] | None = None,
    cut: NDArray[np.bool_] | None = None,
) -> tuple[list[NDArray[np.float64]], NDArray[np.bool_]]:
    """Predict items with several models in one pass; each item is decoded once.

    Args:
        models: models, in any mode, which `compute.precision` runs eagerly; or engines that say
            themselves how they compute.
        views: for each model, the views it takes of an item.
        source: pixels, with every model's canvas.
        rows: rows of `source` (`FrameNumbers.eval_rows`; of images the items' own numbers).
        compute: where and how fast.
        what: shown as progress; empty shows none.
        on_batch: told after every batch how many items are done; may raise to end the pass.
        begin: given the empty table (n_rows, all views side by side) and `readable`, fills in the
            rows that were predicted before and returns how many.
        cut: (n_rows,), filled in place: which rows are of a clip that was read only in part.

    Returns:
        For each model float64 logits (n_rows, n_views), NaN where an item cannot be decoded (or a
        clip has no such frame), and bool (n_rows,) which rows could.

    Raises:
        UserError: memory ran out; says what to do.
    """
    chip, size = compute.chip, compute.batch_size
    source.find_faces()
    precision = inference_precision(chip, compute.precision)
    engines = [
        Eager(model, chip, precision) if isinstance(model, Classifier) else model
        for model in models
    ]
    distinct = list(dict.fromkeys(engine.spec for engine in engines))
    pieces = Pieces(size, shrinks=compute.auto_batch, device=chip)
    looks = [(number, view) for number, names in enumerate(views) for view in names]
    table = np.full((len(rows), len(looks)), np.nan)
    readable = np.zeros(len(rows), bool)
    done = 0 if begin is None else begin(table, readable)
    parts = parts_of(source, rows[done:], size)
    loader = make_loader(
        EvalBatches(source, distinct), parts, compute.processes(len(rows)), pin=chip.type == "cuda"
    )
    largest = max((spec.image_size for spec in distinct), default=0)
    with torch.inference_mode(), advised(chip, pieces.size, largest, WAYS_OUT):
        for batch in track(loader, what, total=len(parts), unit="batch") if what else loader:
            place = slice(done, done + len(batch["item"]))
            done = place.stop
            readable[place] = batch["readable"].numpy()
            if cut is not None:
                cut[place] = batch["cut"].numpy()
            pixels = {
                spec: batch[f"pixels{k}"].to(chip, non_blocking=True)
                for k, spec in enumerate(distinct)
            }
            logits = [
                pieces(engines[number], view_pixels(pixels[engines[number].spec], view))
                for number, view in looks
            ]
            # One copy a batch: each would wait for all that the card still has to do.
            table[place] = torch.stack(logits, 1).double().cpu().numpy()
            if on_batch is not None:
                on_batch(done)
    table[~readable] = np.nan
    ends = np.cumsum([len(names) for names in views])[:-1]
    return np.split(table, ends, axis=1), readable


def parts_of(source: PixelSource, rows: NDArray[np.int64], size: int) -> list[list[int]]:
    """Return rows in batches of at most `size`; a clip that fits into one is not cut."""
    if not source.numbers.has_clips:
        return [rows[start : start + size].tolist() for start in range(0, len(rows), size)]
    items = source.numbers.item_of(rows.tolist())
    ends = np.append(np.flatnonzero(np.diff(items)) + 1, len(rows))  # of the items
    parts, start = [], 0
    while start < len(rows):
        last = int(np.searchsorted(ends, start + size, side="right")) - 1
        whole = int(ends[last]) if last >= 0 else 0
        end = whole if whole > start else min(start + size, len(rows))
        parts.append(rows[start:end].tolist())
        start = end
    return parts
