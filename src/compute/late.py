"""Flags of a card that are read some steps late: to read one at once is to wait for all it does."""

from collections import deque
from typing import Generic, TypeVar

import torch
from torch import Tensor

LAG = 4  # steps; by then a card has come there, and reading waits for nothing
T = TypeVar("T")


def at_once(chip: torch.device) -> bool:
    """Tell whether numbers of a device may be looked at without waiting for it."""
    return chip.type != "cuda"


class Late(Generic[T]):
    """Flags, bool (), with what each one is about."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Tensor, torch.cuda.Event | None, T]] = deque()

    def note(self, flag: Tensor, about: T) -> None:
        """Take note of a flag that is being computed."""
        event = None
        if flag.is_cuda:
            kept = torch.empty((), dtype=torch.bool, pin_memory=True)
            kept.copy_(flag, non_blocking=True)
            flag, event = kept, torch.cuda.Event()
            event.record()
        self._waiting.append((flag, event, about))

    def raised(self, *, every: bool = False) -> T | None:
        """Return what the first flag that is set was about, of those that are old enough.

        With `every`, of all of them: before anything is kept that they could forbid.
        """
        while len(self._waiting) > (0 if every else LAG):
            flag, event, about = self._waiting.popleft()
            if event is not None:
                event.synchronize()
            if bool(flag):
                return about
        return None
