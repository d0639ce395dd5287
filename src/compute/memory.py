"""Memory: what is free, keeping what was freed, and advice where it did not suffice."""

import ctypes
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from src.errors import UserError, says_out_of_memory
from src.machine import available_memory

LOG = logging.getLogger("rvf")
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of mallopt(3)
_MAPPED_FROM = 1 << 30  # bytes; larger blocks still go back to the system when they are freed
_KEPT = 2**31 - 1  # bytes at the top of the heap; more does not fit mallopt's int


def keep_freed_memory() -> bool:
    """Let malloc keep freed memory for the next forward pass instead of giving it back.

    A net's activations are allocated and freed with every layer. By default glibc maps and unmaps
    each of them, and the kernel must clear every page again: on a virtual machine that was two
    thirds of the time of EfficientNet-B0. The price is that the process stays at its peak size.
    Nothing that is computed changes. Workers that are forked later inherit it.

    Returns:
        Whether the C library took it; False where it is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _MAPPED_FROM)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT))


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
    """Turn an out-of-memory error inside the block into advice.

    Args:
        device: where it computes.
        batch_size: images a pass.
        image_size: their side, pixels.
        ways_out: what to do, in the words of the command's flags.

    Raises:
        UserError: memory ran out; says with how many images of which size, and what is free.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        place = f"{device} of {_total(device) / 2**30:.1f} GiB" if device.type == "cuda" else "RAM"
        raise UserError(
            f"out of memory ({place}; {free_bytes(device) / 2**30:.1f} GiB are free now) with "
            f"{batch_size} images of {image_size} px at once: {ways_out}"
        ) from error


def _total(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[1]
