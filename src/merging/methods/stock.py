"""Model Stock: how far towards the mean, from the angle between what the models learnt."""

from itertools import combinations

import torch
from torch import Tensor

from src.merging.methods.algebra import as_rows, dot, norm, weighted_sum
from src.merging.methods.base import Parameter, Tensors, method


@method("model_stock", Parameter("filter_wise", False), base="required", models=(2, None))
def model_stock(models: Tensors, base: Tensor, *, filter_wise: bool) -> Tensor:
    """t mean + (1 - t) base, t = N c / (1 + (N - 1) c) (Jang et al. 2024, Model Stock, eq. 5).

    c is the mean cosine over the pairs of task vectors; t is kept within 0..1: beyond a right
    angle the models agree on nothing and the base is returned, where the formula would
    extrapolate, or divide by 0 (mergekit does). A task vector of zeros has c = 0 with all others.

    Args:
        models: [N, *shape], all fine-tuned from the base.
        base: [*shape].
        filter_wise: an angle a row of [shape[0], rest], else one for the tensor.
    """
    number = len(models)
    mean = weighted_sum(models, [1 / number] * number)
    if not filter_wise or base.dim() < 2:
        share = _share(torch.tensor(_mean_cosine(models, base)), number)
        return base.lerp(mean, float(share))
    rows = as_rows(base)
    units = [torch.nn.functional.normalize(as_rows(m) - rows, dim=1) for m in models]
    pairs = [(a * b).sum(1) for a, b in combinations(units, 2)]
    share = _share(torch.stack(pairs).mean(0), number)
    return rows.lerp(as_rows(mean), share[:, None]).reshape(base.shape)


def _mean_cosine(models: Tensors, base: Tensor) -> float:
    deltas = [model - base for model in models]
    lengths = [norm(delta) for delta in deltas]
    cosines = []
    for (a, a_length), (b, b_length) in combinations(zip(deltas, lengths, strict=True), 2):
        product = a_length * b_length
        cosines.append(dot(a, b) / product if product > 0 else 0.0)
    return sum(cosines) / len(cosines)


def _share(cosine: Tensor, number: int) -> Tensor:
    """Return t of the mean cosine, within 0..1; the same shape."""
    cosine = cosine.clamp(0, 1)
    return number * cosine / (1 + (number - 1) * cosine)
