"""Methods that choose element by element what to take from whom."""

from collections.abc import Sequence

import torch
from torch import Tensor

from src.merging.methods.algebra import as_rows, dot, largest, rank_value
from src.merging.methods.base import Parameter, Tensors, method

CHANGED = Parameter("epsilon", 1e-5, low=0)


@method("sce", Parameter("select_topk", 1.0, low=0, high=1), Parameter("int8_mask", False),
        base="required", models=(1, None))  # fmt: skip
def sce(models: Tensors, base: Tensor, *, select_topk: float, int8_mask: bool) -> Tensor:  # noqa: ARG001
    """Select where models differ, Calculate weights, Erase lone signs (Wan et al. 2024, FuseChat).

    Of the elements whose variance over the models is not 0, the `select_topk` share with the
    largest stay; a model's weight is the mean square of what stays of its task vector; at every
    element the sign of the sum is elected, and those that have it are averaged by weight (3.3).
    A share of 1 keeps all elements, also those on which all agree; 0 returns the base. mergekit's
    `int8_mask` is read and changes nothing.
    """
    deltas = [model - base for model in models]
    if select_topk < 1:
        mask = _most_varied(deltas, select_topk)
        for delta in deltas:
            delta.mul_(mask)
    squares = [dot(delta, delta) for delta in deltas]
    whole = sum(squares)
    if whole == 0:
        return base.clone()
    total, divisor = torch.zeros_like(base), torch.zeros_like(base)
    for delta in deltas:
        total += delta
    positive = total >= 0
    total.zero_()
    for delta, square in zip(deltas, squares, strict=True):
        agree = torch.where(positive, delta > 0, delta < 0)
        total.add_(delta.mul_(agree), alpha=square / whole)
        divisor.add_(agree, alpha=square / whole)
    return total.div_(divisor.clamp_(min=1e-6)).add_(base)


def _most_varied(deltas: Sequence[Tensor], share: float) -> Tensor:
    """Return a mask of the `share` of elements that vary most, of those that vary at all."""
    # Of the differences to the first: that of equal elements is 0, and not what rounding leaves.
    first = deltas[0]
    mean, variance, apart = (torch.zeros_like(first) for _ in range(3))
    for delta in deltas[1:]:
        mean.add_(torch.sub(delta, first, out=apart), alpha=1 / len(deltas))
    for delta in deltas:
        torch.sub(delta, first, out=apart).sub_(mean)
        variance.addcmul_(apart, apart)
    return largest(variance, int(int(variance.count_nonzero()) * share))


@method("ram", CHANGED, base="required", models=(1, None))
def ram(models: Tensors, base: Tensor, *, epsilon: float) -> Tensor:
    """Add what one model alone changed, average what several did (Yuan et al. 2026, RAM, sec. 4).

    A change of at most `epsilon` counts as none.
    """
    return _shared_and_unique(models, base, epsilon, [1.0] * len(models))


@method("ramplus_tl", Parameter("r", 0.1), Parameter("alpha", 0.2, low=0), CHANGED,
        base="required", models=(1, None))  # fmt: skip
def ramplus_tl(models: Tensors, base: Tensor, *, r: float, alpha: float, epsilon: float) -> Tensor:
    """RAM with what is unique to a model made larger, tensor by tensor (Yuan et al. 2026, RAM+).

    By lambda_i = 1 + r min(shared_i / unique_i, alpha), of the numbers of elements that model i
    changed (by more than `epsilon`) with others and alone; r = 0 is `ram`.
    """
    counts = _counts(models, base, epsilon)
    factors = []
    for model in models:
        changed = (model - base).abs_() > epsilon
        shared, alone = int((changed & (counts > 1)).sum()), int((changed & (counts == 1)).sum())
        ratio = shared / alone if alone else alpha
        factors.append(1 + r * min(ratio, alpha))
    return _shared_and_unique(models, base, epsilon, factors)


def _counts(models: Tensors, base: Tensor, epsilon: float) -> Tensor:
    """Return how many models changed each element, int16 [*shape]."""
    counts = torch.zeros_like(base, dtype=torch.int16)
    for model in models:
        counts += (model - base).abs_() > epsilon
    return counts


def _shared_and_unique(
    models: Tensors, base: Tensor, epsilon: float, factors: Sequence[float]
) -> Tensor:
    counts = _counts(models, base, epsilon)
    alone, share = counts == 1, counts.clamp(min=1)
    total = torch.zeros_like(base)
    for model, factor in zip(models, factors, strict=True):
        delta = model - base
        delta.mul_(delta.abs() > epsilon)
        total += torch.where(alone, delta * factor, delta / share)
    return total.add_(base)


@method("nearswap", Parameter("t", low=0), base="required", models=(1, 1))
def nearswap(models: Tensors, base: Tensor, *, t: float) -> Tensor:
    """Take the model where it is near: w m + (1-w) b, w = min(t / |m - b|, 1) (alchemonaut 2024).

    Elements at most t apart are the model's, no other moves by more than t; 0 returns the base.
    """
    delta = models[0] - base
    return (t / delta.abs().clamp_(min=1e-6)).clamp_(max=1).mul_(delta).add_(base)


@method("arcee_fusion", base="required", models=(1, 1))
def arcee_fusion(models: Tensors, base: Tensor) -> Tensor:
    """Take the model's most important changes (Arcee AI 2024, Arcee Fusion in mergekit).

    Importance = |m - b| KL(softmax of a row of m || of b); what reaches the median plus 1.5 times
    the interquartile range is taken, the rest is the base. Rows are [shape[0], rest], or one row
    where each would have one element and so no divergence; quartiles are exact, where mergekit
    estimates those of large tensors from a random million elements.
    """
    (model,) = models
    delta = model - base
    rows, of_model, of_base = (as_rows(tensor) for tensor in (delta, model, base))
    if rows.shape[1] == 1:
        rows, of_model, of_base = rows.T, of_model.T, of_base.T
    importance = (rows.abs() * _divergence(of_model, of_base)).reshape(-1)
    last = importance.numel() - 1
    lower, middle, upper = (rank_value(importance, int(q * last)) for q in (0.25, 0.5, 0.75))
    taken = importance >= middle + 1.5 * (upper - lower)
    return delta.mul_(taken.reshape(delta.shape)).add_(base)


def _divergence(model: Tensor, base: Tensor, eps: float = 1e-8) -> Tensor:
    p, q = model.softmax(-1).add_(eps), base.softmax(-1).add_(eps)
    return (p * (p / q).log_()).sum(-1, keepdim=True)
