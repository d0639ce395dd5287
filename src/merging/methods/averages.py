"""Averages of weights: soups, WiSE-FT, averages along a run, Fisher weighting, Model Stock."""

from collections.abc import Sequence
from itertools import combinations, islice

import torch
from torch import Tensor

from src.errors import UserError
from src.merging.methods.algebra import as_rows, dot, norm, weighted_sum
from src.merging.methods.base import Parameter, Tensors, method

FISHER_FLOOR = 1e-6


@method("linear", Parameter("weight", per_model=True), Parameter("normalize", True),
        models=(1, None))  # fmt: skip
def linear(models: Tensors, _base: None, *, weight: Sequence[float], normalize: bool) -> Tensor:
    """Weighted average: sum w_i t_i / sum w_i (Wortsman et al. 2022, Model soups, sec. 2).

    A weight of 0 leaves a model out, a negative one subtracts it; weights that add up to 0 raise a
    UserError, but for the plain sum (`normalize` off).
    """
    total = weighted_sum(models, weight)
    if not normalize:
        return total
    if abs(sum(weight)) < 1e-8:
        raise UserError(
            "linear: the weights add up to 0, so there is no average; change them, or set "
            "`normalize: false` for the plain sum"
        )
    return total.div_(sum(weight))


@method("uniform", models=(1, None))
@method("swa", models=(1, None))
def uniform(models: Tensors, _base: None) -> Tensor:
    """Plain mean: Model soups (Wortsman et al. 2022), SWA of one run (Izmailov et al. 2018)."""
    return weighted_sum(models, [1.0] * len(models)).div_(len(models))


@method("ema", Parameter("decay", 0.9, low=0, high=1), models=(1, None), symmetric=False)
def ema(models: Tensors, _base: None, *, decay: float) -> Tensor:
    """Moving average of a run's checkpoints, oldest first: e <- d e + (1 - d) t (Polyak 1992).

    A decay d of 0 returns the last checkpoint, 1 the first.
    """
    average = models[0].clone()
    for tensor in islice(models, 1, None):
        average.lerp_(tensor, 1 - decay)
    return average


@method("wise_ft", Parameter("alpha", 0.5, low=0, high=1), base="required", models=(1, 1))
def wise_ft(models: Tensors, base: Tensor, *, alpha: float) -> Tensor:
    """(1 - a) base + a fine-tuned (Wortsman et al. 2022, Robust fine-tuning, eq. 1).

    The base is what the one model was fine-tuned from, with a head: zero-shot, or a linear probe.
    """
    return weighted_sum([base, models[0]], [1 - alpha, alpha])


@method("fisher", Parameter("weight", 1.0, per_model=True, low=0), companions=("fisher",))
def fisher_average(
    models: Tensors, _base: None, *, weight: Sequence[float], fisher: Tensors
) -> Tensor:
    """Sum w_i F_i t_i / sum w_i F_i, element by element (Matena & Raffel 2022, eq. 4).

    `fisher` is the diagonal of each model's Fisher information, [M, *shape], not negative (else a
    UserError, as where all weights are 0); below 1e-6 it counts as 1e-6 (sec. 3), so that what no
    model is sure of is their average.
    """
    if not any(weight):
        raise UserError("fisher: all weights are 0; give at least one model a weight")
    total, sure = torch.zeros_like(models[0]), torch.zeros_like(models[0])
    for tensor, factor, information in zip(models, weight, fisher, strict=True):
        if information.numel() and float(information.min()) < 0:
            raise UserError("fisher: a Fisher tensor holds negative values, want squared gradients")
        importance = information.clamp(min=FISHER_FLOOR).mul_(factor)
        sure += importance
        total.add_(importance.mul_(tensor))
    return total.div_(sure)


@method("passthrough", Parameter("scale", 1.0, per_model=True), models=(1, 1))
def passthrough(models: Tensors, _base: None, *, scale: Sequence[float]) -> Tensor:
    """Copy the one model, times `scale` (mergekit's passthrough)."""
    return models[0] * scale[0]


@method("model_stock", Parameter("filter_wise", False), base="required", models=(2, None))
def model_stock(models: Tensors, base: Tensor, *, filter_wise: bool) -> Tensor:
    """t mean + (1 - t) base, t = N c / (1 + (N - 1) c) (Jang et al. 2024, Model Stock, eq. 5).

    c is the mean cosine over the pairs of task vectors, one for the tensor or one a row
    (`filter_wise`); t is kept within 0..1: beyond a right angle the models agree on nothing and the
    base is returned, where the formula would extrapolate, or divide by 0 (mergekit does). A task
    vector of zeros has c = 0 with all others.
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
