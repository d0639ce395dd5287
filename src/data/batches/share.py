"""Which places of a batch a process trains on: all, unless several share one fold.

Whatever is drawn for a batch is drawn for all its places, by each process alike; so an item looks
the same whoever trains on it, and however many there are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a command's flags are read before torch is loaded
    from torch import Tensor


def _alone(own: "Tensor", _: int) -> "Tensor":
    return own


@dataclass(frozen=True)
class Share:
    """A rank's part of every batch: contiguous places, as many as another's or one more or less."""

    rank: int = 0
    ranks: int = 1
    # of a tensor's own rows to all `n` of the batch, (n_own, ...) to (n, ...)
    gather: "Callable[[Tensor, int], Tensor]" = _alone

    def of(self, count: int) -> slice:
        """Return the places of `count` things that are this rank's; none where there are few."""
        return slice(count * self.rank // self.ranks, count * (self.rank + 1) // self.ranks)

    def spread(self, own: "Tensor", count: int) -> "Tensor":
        """Return (count, ...) with one's own rows at their places, and any of them elsewhere.

        For what draws for as many rows as it is given: see `BatchPreset`.
        """
        if self.ranks == 1:
            return own
        import torch

        places = torch.arange(count, device=own.device) - self.of(count).start
        return own[places.clamp(0, len(own) - 1)]
