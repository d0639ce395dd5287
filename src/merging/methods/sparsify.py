"""Thinning a task vector, in place: which of its elements stay.

A density above 0 always keeps at least one element, and 0 keeps none (mergekit stops there).
"""

import torch
from torch import Tensor

from src.errors import UserError
from src.merging.methods.algebra import PIECE, as_rows, largest

SMALL_NORM = 1e-7


def rescaled(thin: Tensor, length: float) -> Tensor:
    """Scale what is left of a task vector, in place, to the L1 norm that it had."""
    now = float(thin.abs().sum())
    return thin if length < SMALL_NORM or now < SMALL_NORM else thin.mul_(length / now)


def _keep(delta: Tensor, mask: Tensor) -> Tensor:
    return delta.masked_fill_(mask.logical_not_(), 0)


def kept(size: int, density: float) -> int:
    """Return how many of `size` elements a density keeps: at least one unless it is 0."""
    return max(1, int(density * size)) if density > 0 and size else 0


def magnitude(delta: Tensor, density: float) -> Tensor:
    """Keep the `density` share of largest absolute values (Yadav et al. 2023, TIES, sec. 3)."""
    return _keep(delta, largest(delta.abs(), kept(delta.numel(), density)))


def outliers(delta: Tensor, density: float, gamma: float) -> Tensor:
    """Drop the largest `gamma` and the smallest 1 - density - gamma (Davari & Belilovsky 2023).

    A share of less than one element drops none; where gamma + density exceed 1, fewer large ones
    are dropped, so that `density` stay.
    """
    size = delta.numel()
    stay = kept(size, density)
    dropped = min(int(gamma * size), size - stay)
    sizes = delta.abs()
    return _keep(delta, largest(sizes, stay + dropped) & ~largest(sizes, dropped))


def bernoulli(delta: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """Keep every element with probability `density` (Yu et al. 2023, DARE, eq. 2)."""
    return _keep(delta, _coins(torch.full(delta.shape, density), generator).to(delta.device))


def magprune(delta: Tensor, density: float, epsilon: float, generator: torch.Generator) -> Tensor:
    """Keep with a probability that rises with the rank of the size (Deep et al. 2024, DELLA, 3.1).

    In every row of [shape[0], rest], from density - epsilon (smallest) to density + epsilon.

    Raises:
        UserError: density - epsilon and density + epsilon are not both between 0 and 1.
    """
    if density + epsilon >= 1 or density - epsilon <= 0:
        raise UserError(
            f"della: density {density:g} and epsilon {epsilon:g} give probabilities from "
            f"{density - epsilon:g} to {density + epsilon:g}, want them between 0 and 1: "
            "lower epsilon"
        )
    rows = as_rows(delta)
    columns = rows.shape[1]
    chance = torch.empty(rows.shape, dtype=torch.float32)
    # Some rows at a time: ranks are int64, and there are two of them.
    step = max(1, PIECE // max(1, columns))
    for some, result in zip(rows.split(step), chance.split(step), strict=True):
        ranks = some.abs().argsort(dim=1).argsort(dim=1)
        # The only element of a row is its smallest and its largest.
        spread = ranks / (columns - 1) if columns > 1 else torch.full_like(some, 0.5)
        result.copy_((density - epsilon) + spread * 2 * epsilon)
    return _keep(delta, _coins(chance, generator).to(delta.device).reshape(delta.shape))


def _coins(chance: Tensor, generator: torch.Generator) -> Tensor:
    """Draw on the CPU, so that every device draws the same; bool of the same shape."""
    return torch.bernoulli(chance, generator=generator).bool()
