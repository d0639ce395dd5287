"""Losses with weights of their own: trained along with the net, left behind when it is done."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from src.models.classifier import Classifier

Batch = Mapping[str, Tensor]
Shown = dict[str, Any]  # `logit` float (n,), and what `models/intermediates` names


class Auxiliary(nn.Module):
    """Adds terms to the loss of a run.

    Its parameters are trained by the run's optimizer and kept in its state; none of them is in a
    checkpoint. What is frozen (a teacher) must not be a submodule.
    """

    wants: frozenset[str] = frozenset()  # what the net must show (`models/intermediates`)
    labels: float = 1.0  # weight of the loss on labels beside these terms
    look_size: int = 0  # side in pixels that items are augmented at, where it exceeds the net's

    def logit(self, shown: Shown) -> Tensor:
        """Return the logits (n,) that the loss on labels looks at; the net's own here."""
        return shown["logit"]

    def know_beforehand(
        self, rows: NDArray[np.int64], pixels_of: Callable[[NDArray[np.int64]], NDArray[np.uint8]]
    ) -> None:
        """Compute once what is the same in every epoch; called where no item is augmented.

        `rows` are the items that are trained on, `pixels_of` maps some to uint8 (n, s, s, 3).
        """

    def forward(
        self, batch: Batch, shown: Shown, again: Callable[[Batch], Shown]
    ) -> dict[str, Tensor]:
        """Return terms of the loss by name, float32 () each, or (k,) of layers (their mean counts).

        Args:
            batch: what was trained on, as a `Classifier` takes it.
            shown: what the net says of it.
            again: shows another batch to the net, which makes gradients too.
        """
        raise NotImplementedError

    def settle(self, model: Classifier) -> None:
        """Bring what was learned here into a net that is to be scored or saved; nothing here."""


def at_size(batch: Batch, size: int) -> dict[str, Tensor]:
    """Return a batch with its `pixels` (n, s, s, 3) at another size, and what is blank in them."""
    pixels = batch["pixels"]
    side = pixels.shape[1]
    if side == size:
        return dict(batch)
    brought = functional.interpolate(
        pixels.permute(0, 3, 1, 2).float(), (size, size), mode="bilinear", antialias=True
    )
    found = {**batch, "pixels": brought.clamp(0, 255).permute(0, 2, 3, 1)}
    if "blank" in batch:
        found["blank"] = (batch["blank"].float() * (size / side)).round().long()
    return found
