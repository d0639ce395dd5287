"""BatchNorm of merged weights: what it knows of the data belongs to other weights."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from src.data.batches.loader import EvalBatches
from src.data.pixels.source import PixelSource
from src.errors import UserError
from src.merging.sources import open_source
from src.models.classifier import Classifier
from src.seeds import derive_seed
from src.training.optim import fill_statistics

ITEMS = 1024
BATCH = 64
STATISTICS = ("running_mean", "running_var")
COUNTER = "num_batches_tracked"
ROUNDING = 1e-6  # of a tensor's largest weight: by so much a merge that gives one model back is off


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
    with ExitStack() as stack:
        first, *others = (stack.enter_context(open_source(path)) for path in files)
        return {
            name
            for name in _layers(net)
            if all(
                torch.equal(source.read(f"{name}.{what}"), first.read(f"{name}.{what}"))
                for source in others
                for what in STATISTICS
            )
        }


def twins_of(net: nn.Module, tensors: Mapping[str, Tensor], files: Sequence[Path]) -> list[Path]:
    """Return the files whose weights these are, whatever their BatchNorm knows.

    Args:
        net: whose BatchNorm layers count.
        tensors: a merge, by the net's own names.
        files: its ingredients.
    """
    aside = {f"{name}.{what}" for name in _layers(net) for what in (*STATISTICS, COUNTER)}
    found = []
    for path in files:
        with open_source(path) as source:
            if all(
                _is_rounded(source.read(name), value)
                for name, value in tensors.items()
                if name not in aside and value.is_floating_point()
            ):
                found.append(path)
    return found


def _is_rounded(one: Tensor, other: Tensor) -> bool:
    first, second = one.float(), other.detach().float().cpu()
    if first.shape != second.shape or not first.numel():
        return first.shape == second.shape
    return float((first - second).abs().max()) <= ROUNDING * float(first.abs().max())


def take_statistics(net: nn.Module, path: Path) -> None:
    """Give a net's BatchNorm layers the statistics that a file holds."""
    with open_source(path) as source:
        for name, layer in _layers(net).items():
            for what in STATISTICS:
                layer.get_buffer(what).copy_(source.read(f"{name}.{what}"))


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
        Batches of equal sizes, give or take an item, of `pixels` uint8 (n, s, s, 3).

    Raises:
        UserError: an item cannot be decoded.
    """
    rng = np.random.default_rng(derive_seed(seed, "batchnorm"))
    drawn = rng.permutation(source.numbers.eval_rows(rows).rows)[:items]
    batches = EvalBatches(source, [model.spec])
    found = []
    # Batches weigh alike in the mean, so that none may be a small rest.
    for part in np.array_split(drawn, max(1, -(-len(drawn) // BATCH))):
        batch = batches[part.tolist()]
        if not bool(batch["readable"].all()):
            row = int(part[int((~batch["readable"]).int().argmax())])
            raise UserError(f"{source.root / source.paths[row]}: not readable any more")
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
    for layer in layers:
        layer.train()
    try:
        fill_statistics(model, layers, batches, chip, precision)
    finally:
        model.eval()
    return len(layers)
