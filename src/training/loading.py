"""How many processes load pixels."""

import torch

from src.config import ModelConfig
from src.data.augment import takes_batches
from src.data.pixels import PixelSource
from src.training.predict import default_workers

SMALL = 3 * 64 * 64  # bytes of an item; a batch of such is copied faster than it is handed over


def loader_workers(
    wanted: int | None, source: PixelSource, config: ModelConfig, device: torch.device
) -> tuple[int, int]:
    """Return how many processes load training batches, and how many load evaluation batches.

    Args:
        wanted: as `--workers`; None chooses.
        source: pixels; where they are kept, loading them is a copy.
        config: the model, whose augmentation may work on single images.
        device: where it is trained; a CPU has no core to spare for what is nearly free.
    """
    if wanted is not None:
        return wanted, wanted
    if not source.is_kept:
        return default_workers(), default_workers()
    if device.type == "cpu":
        return 0, 0
    if not takes_batches(config.augment):
        return default_workers(), 0
    small = source.nbytes <= SMALL * len(source)
    return (0 if small else min(2, default_workers())), 0
