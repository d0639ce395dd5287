"""The state dict of a file of weights, as a net may take it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.errors import UserError
from src.wrappers import find_weights


def state_dict_of(content: Any, path: Path) -> dict[str, Tensor]:  # noqa: ANN401 - any file's
    """Find the state dict in what a training script saved, without wrappers and prefixes.

    Raises:
        UserError: no tensors in it, or a tensor that is not finite.
    """
    tensors = find_weights(content, path).some(path)
    check_finite(tensors, path)
    return tensors


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise a UserError naming the first tensor with a NaN or an infinity in it."""
    for key, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(f"{path}: tensor {key!r} holds NaN or infinity")
