"""One tensor of every model, made ready for a method's maths."""

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor


class Ready(Sequence[Tensor]):
    """Tensors on a device and in a dtype: on the CPU each is converted when asked for.

    So the wide copies of narrow files are not all in memory at once. What needs no conversion is
    the input itself.

    Attributes:
        kind: device and dtype.

    Args:
        inputs: as read.
        device: where to compute.
        dtype: float32 or float64.
    """

    def __init__(self, inputs: Sequence[Tensor], device: torch.device, dtype: torch.dtype) -> None:
        self.kind = (device, dtype)
        # Over a bus once is enough.
        there = device.type != "cpu"
        self._inputs = [tensor.to(*self.kind) for tensor in inputs] if there else list(inputs)

    def first(self, count: int) -> "Ready":
        """Return the first tensors."""
        return Ready(self._inputs[:count], *self.kind)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._inputs)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        """Return one, or a list of several; not to be changed."""
        if isinstance(index, slice):
            return [tensor.to(*self.kind) for tensor in self._inputs[index]]
        return self._inputs[index].to(*self.kind)
