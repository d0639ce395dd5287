"""Batches in pieces that fit into memory: the largest piece is found by trying."""

import logging
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from src.compute.device import autocast
from src.compute.memory import give_back, is_out_of_memory
from src.errors import UserError

LOG = logging.getLogger("rvf")


class Pieces:
    """Runs forward passes on pieces of a batch, and halves the piece where memory runs out.

    Args:
        size: images a pass, to begin with.
        shrinks: halve it when memory runs out; else the error passes.
        device: where it computes.
    """

    def __init__(self, size: int, *, shrinks: bool, device: torch.device) -> None:
        self.size = size
        self.shrinks = shrinks
        self.device = device

    def __call__(self, forward: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
        """Return `forward` of (n, ...) pixels, (n,), whatever the pieces."""
        done: list[Tensor] = []
        start = 0
        while start < len(pixels):
            piece = pixels[start : start + self.size]
            try:
                done.append(forward(piece))
            except (RuntimeError, MemoryError) as error:
                if not (self.shrinks and is_out_of_memory(error) and len(piece) > 1):
                    raise
                self.size = len(piece) // 2
            else:
                start += len(piece)
                continue
            # Not in the handler: the error's traceback holds the tensors that must go.
            give_back(self.device)
            LOG.info("out of memory: going on with %d images a pass", self.size)
        return done[0] if len(done) == 1 else torch.cat(done)


def split(batch: Mapping[str, Tensor], size: int) -> Iterator[dict[str, Tensor]]:
    """Yield a batch in pieces of at most `size` items and of nearly equal length."""
    count = len(next(iter(batch.values())))
    pieces = -(-count // size)  # equal ones: BatchNorm can do nothing with a rest of one
    cut = {key: tensor.tensor_split(pieces) for key, tensor in batch.items()}
    for number in range(pieces):
        yield {key: parts[number] for key, parts in cut.items()}


def micro_batch(
    model: nn.Module,
    image_size: int,
    batch_size: int,
    device: torch.device,
    precision: str,
) -> int:
    """Return how many images of a training batch fit into memory at once.

    A forward and a backward pass are tried, with room left for the two moments of an optimizer;
    the batch is halved until they fit. What was trained does not change: gradients of the pieces
    add up to the batch's. BatchNorm alone sees the pieces. The caller keeps weights and statistics.

    Args:
        model: in training mode, on the device; maps `pixels` to `logit`.
        image_size: side, pixels.
        batch_size: of the config.
        device: where it trains.
        precision: fp32, bf16 or fp16.

    Raises:
        UserError: not even one image fits (BatchNorm wants two).
    """
    size = batch_size
    norms = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    least = min(2 if norms else 1, batch_size)
    while size >= least:
        if _fits(model, image_size, size, device, precision):
            return size
        give_back(device)
        size = -(-size // 2) if size > least else 0
    raise UserError(
        f"not even {least} images of {image_size} px fit into the memory of {device} with this "
        "net: take a smaller one, or a smaller image_size in a variant of its own name"
    )


def _fits(
    model: nn.Module, image_size: int, size: int, device: torch.device, precision: str
) -> bool:
    moments = []
    try:
        for parameter in model.parameters():
            if parameter.requires_grad:
                moments += [torch.empty_like(parameter) for _ in range(2)]
        shape = (size, image_size, image_size, 3)
        pixels = torch.zeros(shape, dtype=torch.uint8, device=device)
        with autocast(device, precision):
            loss = model({"pixels": pixels})["logit"].float().square().mean()
        loss.backward()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True
