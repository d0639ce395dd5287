"""Sums, products and thresholds over tensors too large for a temporary more than needed."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from src.merging.methods.base import Tensors

# Products are summed in float64, a piece at a time: exact enough for angles, and no large copy.
PIECE = 2**20


def weighted_sum(models: Tensors, weights: Sequence[float]) -> Tensor:
    """Return the sum of w_i * t_i, a new tensor; a model of weight 0 is not even read."""
    total = torch.zeros_like(models[0])
    for tensor, weight in zip(models, weights, strict=True):
        if weight:
            total.add_(tensor, alpha=weight)
    return total


def dot(a: Tensor, b: Tensor) -> float:
    """Return the inner product of two tensors of one shape, both as flat vectors."""
    pieces = zip(a.reshape(-1).split(PIECE), b.reshape(-1).split(PIECE), strict=True)
    return float(sum(torch.dot(x.double(), y.double()) for x, y in pieces))


def norm(a: Tensor) -> float:
    """Return the Euclidean norm of a tensor as a flat vector."""
    return dot(a, a) ** 0.5


def rank_value(values: Tensor, rank: int) -> Tensor:
    """Return the value that stands at `rank` (from 0) when sorted upwards; a 0-d tensor."""
    flat = values.reshape(-1)
    if flat.device.type != "cpu":
        return flat.kthvalue(rank + 1).values
    # Twenty times faster than torch's own selection on a CPU.
    return torch.tensor(np.partition(flat.numpy(), rank)[rank])


def largest(values: Tensor, count: int) -> Tensor:
    """Return a bool mask of exactly the `count` largest values; of equal ones, the first."""
    size = values.numel()
    if count <= 0:
        return torch.zeros_like(values, dtype=torch.bool)
    if count >= size:
        return torch.ones_like(values, dtype=torch.bool)
    edge = rank_value(values, size - count)
    flat = values.reshape(-1)  # in the order of the elements, whatever that of the memory
    mask = flat > edge
    equal = (flat == edge).nonzero()[: count - int(mask.sum()), 0]
    mask[equal] = True
    return mask.reshape(values.shape)


def as_rows(tensor: Tensor) -> Tensor:
    """Return a view or copy [rows, rest]: a row is what feeds one output (a filter of a conv).

    Vectors and single numbers are one row, and so is what has a first dimension of 1 (a class
    token, position embeddings).
    """
    return tensor.reshape(1, -1) if tensor.dim() < 2 else tensor.reshape(tensor.shape[0], -1)
