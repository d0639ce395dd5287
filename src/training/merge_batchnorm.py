"""BatchNorm of merged weights: what it knows of the data belongs to other weights."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from src.data.dataset import EvalBatches
from src.data.pixels import PixelSource
from src.errors import UserError
from src.merging.sources import open_source
from src.models.classifier import Classifier
from src.seeds import derive_seed
from src.training import device

ITEMS = 1024
BATCH = 64
STATISTICS = ("running_mean", "running_var")


def has_batchnorm(net: nn.Module) -> bool:
    """Whether a net keeps statistics of the data."""
    return bool(_layers(net))


def _layers(net: nn.Module) -> dict[str, _BatchNorm]:
    return {
        name: module
        for name, module in net.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    }


def shared_layers(net: nn.Module, files: Sequence[Path]) -> set[str]:
    """Return the BatchNorm layers whose statistics are equal in all files.

    They were frozen in every model, or there is but one: these are not estimated anew.
    """
    sources = [open_source(path) for path in files]
    try:
        return {
            name
            for name in _layers(net)
            if all(
                torch.equal(source.read(f"{name}.{what}"), sources[0].read(f"{name}.{what}"))
                for source in sources[1:]
                for what in STATISTICS
            )
        }
    finally:
        for source in sources:
            source.close()


def training_batches(
    source: PixelSource, model: Classifier, rows: NDArray[np.int64], items: int, seed: int
) -> list[dict[str, Tensor]]:
    """Return batches of training items as evaluation sees them, kept in memory.

    Args:
        source: pixels.
        model: its `spec` is the preprocessing.
        rows: row numbers of the training items.
        items: how many (of clips: frames) to draw at most.
        seed: of the draw.

    Returns:
        Batches of at least two items, of `pixels` uint8 (n, s, s, 3).

    Raises:
        UserError: an item cannot be decoded.
    """
    rng = np.random.default_rng(derive_seed(seed, "batchnorm"))
    drawn = rng.permutation(source.numbers.eval_rows(rows).rows)[:items]
    batches = EvalBatches(source, [model.spec])
    parts = [drawn[start : start + BATCH] for start in range(0, len(drawn), BATCH)]
    found = []
    for part in parts:
        batch = batches[part.tolist()]
        if not bool(batch["readable"].all()):
            row = int(part[int((~batch["readable"]).int().argmax())])
            raise UserError(f"{source.root / source.paths[row]}: not readable any more")
        if len(part) > 1 or len(parts) == 1:  # one item has no variance
            found.append({"pixels": batch["pixels0"]})
    return found


def estimate_statistics(
    model: Classifier,
    batches: Iterable[dict[str, Tensor]],
    chip: torch.device,
    precision: str = "fp32",
    keep: Iterable[str] = (),
) -> int:
    """Estimate BatchNorm's statistics anew: the plain mean over batches (Izmailov et al. 2018).

    Everything else runs as in evaluation: no dropout, no stochastic depth.

    Args:
        model: changed in place, in eval mode afterwards.
        batches: of training items.
        chip: where to.
        precision: fp32, bf16 or fp16.
        keep: layers of the net that stay as they are.

    Returns:
        How many layers were estimated; no batch is read where there is none.
    """
    kept = set(keep)
    layers = [layer for name, layer in _layers(model.net).items() if name not in kept]
    model.eval()
    if not layers:
        return 0
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch's word for a plain mean
        layer.train()
    try:
        with torch.no_grad(), device.autocast(chip, precision):
            for batch in batches:
                model({key: tensor.to(chip) for key, tensor in batch.items()})
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        model.eval()
    return len(layers)
