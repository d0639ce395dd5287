"""Interpolation on spheres: directions are averaged along arcs, lengths by themselves.

A tensor of one number has no direction but its sign, and a tensor of zeros has none at all: there
all of these are the weighted mean. mergekit's own forms lose such tensors (a zero tensor scales
the other by a sine; two numbers of opposite signs raise an error or take the first one's).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from src.errors import UserError
from src.merging.methods.algebra import dot, norm, weighted_sum
from src.merging.methods.base import Parameter, Tensors, method

PARALLEL = 0.9995
TINY = 1e-8
# Opposite directions have no arc of their own between them: what rounding leaves of their sum would
# be blown up to full length. A head of two classes has biases d and -d, so this is no rarity.
OPPOSITE = 1e-6


@method("slerp", Parameter("t"), base="required", models=(1, 1), symmetric=False)
def slerp(models: Tensors, base: Tensor, *, t: float) -> Tensor:
    """Along the arc from base to model: (sin((1-t)a) b + sin(ta) m) / sin a (Shoemake 1985, 3.3).

    Flattened; where the cosine of the angle a is beyond 0.9995, straight: (1 - t) b + t m. A t
    outside 0..1 goes on beyond the ends of the arc.
    """
    (model,) = models
    lengths = norm(base) * norm(model)
    cosine = dot(base, model) / lengths if lengths > 0 else 1.0
    return weighted_sum([base, model], _arc(cosine, t, 1 - PARALLEL))


def _arc(cosine: float, t: float, straight: float) -> tuple[float, float]:
    """Return both ends' factors at t; on a line where 1 - |cosine| < `straight`, or opposite."""
    if 1 - abs(cosine) < straight or 1 + cosine < OPPOSITE:
        return 1 - t, t
    angle = math.acos(cosine)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


@method("nuslerp", Parameter("weight", per_model=True), Parameter("nuslerp_flatten", True),
        Parameter("nuslerp_row_wise", False), base="optional", models=(2, 2))  # fmt: skip
def nuslerp(
    models: Tensors,
    base: Tensor | None,
    *,
    weight: Sequence[float],
    nuslerp_flatten: bool,
    nuslerp_row_wise: bool,
) -> Tensor:
    """SLERP at t = w_2 / (w_1 + w_2), of task vectors where there is a base (mergekit's NuSLERP).

    One angle for the whole tensor (`nuslerp_flatten`), else one a vector along the last axis, or
    along the first (`nuslerp_row_wise`). Where the directions cancel out (1 + cosine below 1e-6)
    straight, as between equal ones; weights that add up to 0 count as t = 0.5.
    """
    t = 0.5 if abs(sum(weight)) < 1e-6 else weight[1] / sum(weight)
    a, b = models if base is None else (model - base for model in models)
    if nuslerp_flatten or a.dim() == 0:
        lengths = norm(a) * norm(b)
        cosine = dot(a, b) / lengths if lengths > 0 else 1.0
        merged = weighted_sum([a, b], _arc(min(1.0, max(-1.0, cosine)), t, TINY**2 / 2))
    else:
        merged = _arcs(a, b, t, 0 if nuslerp_row_wise else -1)
    return merged if base is None else merged.add_(base)


def _arcs(a: Tensor, b: Tensor, t: float, axis: int) -> Tensor:
    """SLERP of every vector along an axis with its own angle."""
    a_unit, b_unit = (torch.nn.functional.normalize(x, dim=axis, eps=1e-7) for x in (a, b))
    cosine = (a_unit * b_unit).sum(axis, keepdim=True).clamp_(-1, 1)
    angle = cosine.acos()
    sine = angle.sin()
    # A vector of zeros has an angle of 90 degrees to all others, and yet no direction.
    zero = (a.abs().amax(axis, keepdim=True) == 0) | (b.abs().amax(axis, keepdim=True) == 0)
    straight = (sine.abs() < TINY) | (1 + cosine < OPPOSITE) | zero
    safe = torch.where(straight, torch.ones_like(sine), sine)
    left = torch.where(straight, torch.full_like(sine, 1 - t), ((1 - t) * angle).sin() / safe)
    right = torch.where(straight, torch.full_like(sine, t), (t * angle).sin() / safe)
    return left * a + right * b


@method("multislerp", Parameter("weight", per_model=True, low=0),
        Parameter("normalize_weights", True), Parameter("eps", 1e-8, low=0, open_low=True),
        base="optional")  # fmt: skip
def multislerp(
    models: Tensors,
    base: Tensor | None,
    *,
    weight: Sequence[float],
    normalize_weights: bool,
    eps: float,
) -> Tensor:
    """Weighted mean of the directions, times that of the lengths (Goddard 2024, Multi-SLERP).

    Multi-SLERP steps from m = S / |S|, S = sum w_i u_i over unit vectors u_i, along the tangents
    sum w_i (u_i - (u_i.m) m) = S - (S.m) m, which is 0: so the result is m sum w_i |t_i|. Where
    the directions cancel out: the weighted mean. With a base, of task vectors. Lengths below
    `eps` are taken for 0; where weights are divided by their sum and all are 0, a UserError.
    """
    if normalize_weights:
        if not sum(weight):
            raise UserError("multislerp: all weights are 0; give at least one model a weight")
        weight = [w / sum(weight) for w in weight]
    vectors = models if base is None else [model - base for model in models]
    merged = _mean_direction(vectors, weight, eps)
    return merged if base is None else merged.add_(base)


def _mean_direction(vectors: Tensors, weight: Sequence[float], eps: float) -> Tensor:
    lengths = [norm(vector) for vector in vectors]
    shares = [w / (length + eps) for w, length in zip(weight, lengths, strict=True)]
    mean = weighted_sum(vectors, shares)
    size = norm(mean)
    # What is left of directions that cancel out is rounding, and points anywhere.
    if size < max(eps, 8 * torch.finfo(mean.dtype).eps) or mean.numel() == 1:
        return weighted_sum(vectors, weight)
    return mean.mul_(sum(w * n for w, n in zip(weight, lengths, strict=True)) / size)


@method("karcher", Parameter("max_iter", 10, low=0), Parameter("tol", 1e-5, low=0, open_low=True),
        models=(1, None))  # fmt: skip
def karcher(models: Tensors, _base: None, *, max_iter: int, tol: float) -> Tensor:
    """Riemannian (Karcher) mean of the directions, times the mean length (Karcher 1977).

    u <- exp_u(sum a_i log_u(u_i)) from the normalised mean on, with equal a_i over the models that
    are not zero, at most `max_iter` times, until the step is below `tol` (lengths and angles below
    it count as 0). Where the directions cancel out there is no such mean: then the plain mean.
    """
    lengths = [norm(tensor) for tensor in models]
    real = [i for i, length in enumerate(lengths) if length > tol]
    vectors = [models[i] for i in real]
    mean = weighted_sum(models, [1 / (n * len(real)) if n > tol else 0.0 for n in lengths])
    size = norm(mean)
    if size < tol or len(real) < 2 or mean.numel() == 1:
        return weighted_sum(models, [1 / len(models)] * len(models))
    mean.div_(size)
    for _ in range(max_iter):
        step = _log_sum(mean, vectors, [lengths[i] for i in real], tol)
        angle = norm(step)
        if angle < tol:
            break
        mean.mul_(math.cos(angle)).add_(step, alpha=math.sin(angle) / angle)
        mean.div_(norm(mean))
    return mean.mul_(sum(lengths) / len(lengths))


def _log_sum(mean: Tensor, vectors: Sequence[Tensor], lengths: list[float], tol: float) -> Tensor:
    """Return the mean of log_u(u_i): (angle / sin angle) (u_i - cos(angle) u)."""
    shares, back = [], 0.0
    for vector, length in zip(vectors, lengths, strict=True):
        cosine = min(1.0, max(-1.0, dot(mean, vector) / length))
        angle = math.acos(cosine)
        factor = angle / math.sin(angle) / len(vectors) if tol <= angle < math.pi - tol else 0.0
        shares.append(factor / length)
        back += factor * cosine
    return weighted_sum(vectors, shares).sub_(mean, alpha=back)
