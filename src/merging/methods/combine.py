"""The sum that all methods on task vectors end in, with or without an election of signs."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from src.merging.methods import sparsify
from src.merging.methods.base import Tensors

NO_WEIGHT = 1e-8
CACHED = 2**16
Thin = Callable[[Tensor, int], Tensor]


def combine(
    models: Tensors,
    base: Tensor,
    thin: Thin,
    *,
    weight: Sequence[float],
    consensus: bool,
    normalize: bool,
    rescale: bool,
    scale: float,
) -> Tensor:
    """Thin the task vectors, add them up and put the sum onto the base; see `deltas`.

    Args:
        models: [M, *shape].
        base: [*shape].
        thin: makes a thinned task vector of one, given the model's index.
        weight: a factor a model; 0 leaves it out, a negative one unlearns.
        consensus: elect signs.
        normalize: divide by weights; a sum of 0 divides by 1.
        rescale: give each thinned task vector its L1 norm back.
        scale: the factor lambda.
    """
    if scale == 0:
        return base.clone()

    used = [w for w in weight if w]

    def thinned() -> Iterable[Tensor]:
        for index in range(len(models)):
            if weight[index]:
                # Not kept in a variable: a model widened for this is let go of at once.
                delta = models[index] - base
                length = float(delta.abs().sum()) if rescale else 0.0
                less = thin(delta, index)
                yield sparsify.rescaled(less, length) if rescale else less

    if consensus:
        total = _elected(list(thinned()), used, base, normalize)
    else:
        total = torch.zeros_like(base)
        for delta, factor in zip(thinned(), used, strict=True):
            total.add_(delta, alpha=factor)
        whole = sum(weight)
        if normalize and abs(whole) >= NO_WEIGHT:
            total /= whole
    return total.mul_(scale).add_(base)


def _elected(deltas: list[Tensor], weights: list[float], base: Tensor, normalize: bool) -> Tensor:
    """Add up the weighted task vectors that have the elected sign, and normalise."""
    total = torch.zeros_like(base, memory_format=torch.contiguous_format)
    if not deltas:
        return total
    factors = torch.tensor(weights, dtype=base.dtype, device=base.device)[:, None]
    # Piece by piece, all that is made on the way stays in the processor's cache.
    pieces = [delta.reshape(-1).split(CACHED) for delta in deltas]
    for result, *parts in zip(total.view(-1).split(CACHED), *pieces, strict=True):
        weighted = torch.stack(parts).mul_(factors)
        elected = (weighted.sum(0) >= 0).to(base.dtype).mul_(2).sub_(1)
        agree = ((weighted * elected) > 0).to(base.dtype)
        torch.sum(weighted.mul_(agree), 0, out=result)
        if normalize:
            divisor = agree.mul_(factors).sum(0)
            result.div_(divisor.masked_fill_(divisor == 0, 1))
    return total
