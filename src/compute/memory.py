"""Memory: what is free, keeping what was freed, pieces that fit, advice where none did."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from src.compute.device import autocast
from src.errors import UserError, says_out_of_memory
from src.machine import available_memory

LOG = logging.getLogger("rvf")


def free_bytes(device: torch.device) -> int:
    """Return the bytes that are free on a device: the card's, or the machine's."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return available_memory()


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out, on a card or in the machine."""
    return isinstance(error, torch.OutOfMemoryError) or says_out_of_memory(error)


def give_back(device: torch.device) -> None:
    """Return what torch keeps of a card's memory to the card."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def advised(
    device: torch.device, batch_size: int, image_size: int, ways_out: str
) -> Iterator[None]:
    """Turn an out-of-memory error inside the block into a UserError with advice.

    It says with how many images a pass of which side (pixels), what is free, and `ways_out` in the
    words of the command's flags.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        place = "RAM"
        if device.type == "cuda":
            place = f"{device} of {torch.cuda.mem_get_info(device)[1] / 2**30:.1f} GiB"
        raise UserError(
            f"out of memory ({place}; {free_bytes(device) / 2**30:.1f} GiB are free now) with "
            f"{batch_size} images of {image_size} px at once: {ways_out}"
        ) from error


class Pieces:
    """Runs forward passes on pieces of a batch, and halves the piece where memory runs out.

    It begins with `size` images a pass; where nothing `shrinks`, the error passes.
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


def split(batch: Mapping[str, Tensor], pieces: int) -> Iterator[dict[str, Tensor]]:
    """Yield a batch in pieces of nearly equal length: BatchNorm has no use for a rest of one."""
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

    The model is in training mode, on the device, and maps `pixels` to `logit`.

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
