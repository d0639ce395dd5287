"""Task arithmetic and its family: base + lambda * a sum of thinned task vectors d_i = t_i - base.

Without sign consensus: sum w_i d_i (`normalize`: / sum w_i). With it (TIES): at every element the
sign of sum w_i d_i is elected (0 counts as +), those of the other sign are left out, and
`normalize` divides by the weights of those that stay.

The sum that all methods on task vectors end in, with or without an election of signs.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from src.merging.methods import sparsify
from src.merging.methods.base import Parameter, Tensors, method

WEIGHT = Parameter("weight", per_model=True)
DENSITY = Parameter("density", 1.0, per_model=True, low=0, high=1)
GAMMA = Parameter("gamma", 0.01, per_model=True, low=0, high=1)
EPSILON = Parameter("epsilon", 0.15, per_model=True, low=0, high=1)
LAMBDA = Parameter("lambda", 1.0)
# Masks are bool here; mergekit's switch for smaller ones is read and changes nothing.
INT8 = Parameter("int8_mask", False)


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


def _shared(normalize: bool, rescale: bool) -> tuple[Parameter, ...]:
    return Parameter("normalize", normalize), Parameter("rescale", rescale), LAMBDA, INT8


def _whole(delta: Tensor, _index: int) -> Tensor:
    return delta


def _unless_dense(thin: Thin, density: Sequence[float]) -> Thin:
    return lambda delta, index: delta if density[index] >= 1 else thin(delta, index)


@method("task_arithmetic", WEIGHT, *_shared(False, False), base="required", models=(1, None))
def task_arithmetic(
    models: Tensors,
    base: Tensor,
    *,
    weight: Sequence[float],
    normalize: bool,
    rescale: bool,  # noqa: ARG001 - nothing was thinned
    lambda_: float,
    int8_mask: bool,  # noqa: ARG001
) -> Tensor:
    """Base + lambda sum w_i (t_i - base) (Ilharco et al. 2023, sec. 2).

    Args:
        models: [M, *shape].
        base: [*shape].
        weight: a factor a model; negative unlearns what the model learnt.
        normalize: divide by the sum of the weights.
        rescale, int8_mask: mergekit's, without effect here.
        lambda_: `lambda`, the factor of the sum; 0 returns the base.
    """
    return combine(
        models, base, _whole, weight=weight, consensus=False, normalize=normalize, rescale=False,
        scale=lambda_,
    )  # fmt: skip


@method("ties", WEIGHT, DENSITY, *_shared(True, False), base="required", models=(1, None))
def ties(
    models: Tensors,
    base: Tensor,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    normalize: bool,
    rescale: bool,
    lambda_: float,
    int8_mask: bool,  # noqa: ARG001
) -> Tensor:
    """Trim to the largest, elect signs, average those that agree (Yadav et al. 2023, alg. 1).

    Args:
        models: [M, *shape].
        base: [*shape].
        weight: a factor a model.
        density: share of elements that a model keeps; 1 keeps all, 0 leaves the model out.
        normalize: divide by the weights of those that agree.
        rescale: give trimmed task vectors their L1 norm back.
        lambda_: `lambda`, the factor of the sum; 0 returns the base.
        int8_mask: mergekit's, without effect.
    """
    thin = _unless_dense(lambda d, i: sparsify.magnitude(d, density[i]), density)
    return combine(
        models, base, thin, weight=weight, consensus=True, normalize=normalize, rescale=rescale,
        scale=lambda_,
    )  # fmt: skip


def _dare(
    models: Tensors,
    base: Tensor,
    *,
    consensus: bool,
    weight: Sequence[float],
    density: Sequence[float],
    normalize: bool,
    rescale: bool,
    lambda_: float,
    int8_mask: bool,  # noqa: ARG001
    generator: torch.Generator,
) -> Tensor:
    """Drop elements at random and rescale (Yu et al. 2023, Language models are super Mario, eq. 2).

    `rescale` gives back the L1 norm, as mergekit does, not exactly the factor 1 / density.

    Args:
        models: [M, *shape].
        base: [*shape].
        consensus: elect signs, as TIES does (`dare_ties`).
        weight: a factor a model.
        density: probability that an element stays; 1 keeps all, 0 leaves the model out.
        normalize: divide by weights.
        rescale: give thinned task vectors their L1 norm back.
        lambda_: `lambda`, the factor of the sum; 0 returns the base.
        int8_mask: mergekit's, without effect.
        generator: draws model by model, in their order.
    """
    thin = _unless_dense(lambda d, i: sparsify.bernoulli(d, density[i], generator), density)
    return combine(
        models, base, thin, weight=weight, consensus=consensus, normalize=normalize,
        rescale=rescale, scale=lambda_,
    )  # fmt: skip


def _della(
    models: Tensors,
    base: Tensor,
    *,
    consensus: bool,
    weight: Sequence[float],
    density: Sequence[float],
    epsilon: Sequence[float],
    normalize: bool,
    rescale: bool,
    lambda_: float,
    int8_mask: bool,  # noqa: ARG001
    generator: torch.Generator,
) -> Tensor:
    """Drop at random, small elements of a row rather than large ones (Deep et al. 2024, sec. 3).

    A row is what feeds one output, [shape[0], rest]; vectors and class tokens are one row.

    Args:
        models: [M, *shape].
        base: [*shape].
        consensus: elect signs (`della`; `della_linear` does not).
        weight: a factor a model.
        density: mean probability that an element stays; 1 keeps all, 0 leaves the model out.
        epsilon: the smallest of a row stays with density - epsilon, the largest with + epsilon.
        normalize: divide by weights.
        rescale: give thinned task vectors their L1 norm back.
        lambda_: `lambda`, the factor of the sum; 0 returns the base.
        int8_mask: mergekit's, without effect.
        generator: draws model by model, in their order.

    Raises:
        UserError: density +- epsilon leave 0..1.
    """

    def thin(delta: Tensor, index: int) -> Tensor:
        if density[index] == 0:
            return torch.zeros_like(delta)
        return sparsify.magprune(delta, density[index], epsilon[index], generator)

    return combine(
        models, base, _unless_dense(thin, density), weight=weight, consensus=consensus,
        normalize=normalize, rescale=rescale, scale=lambda_,
    )  # fmt: skip


def _breadcrumbs(
    models: Tensors,
    base: Tensor,
    *,
    consensus: bool,
    weight: Sequence[float],
    density: Sequence[float],
    gamma: Sequence[float],
    normalize: bool,
    rescale: bool,
    lambda_: float,
    int8_mask: bool,  # noqa: ARG001
) -> Tensor:
    """Drop the smallest and the very largest changes (Davari & Belilovsky 2023, eq. 2-3).

    Args:
        models: [M, *shape].
        base: [*shape].
        consensus: elect signs (`breadcrumbs_ties`).
        weight: a factor a model.
        density: share of elements that a model keeps; 1 keeps all (also the largest), 0 none.
        gamma: share of the largest that is dropped.
        normalize: divide by weights.
        rescale: give thinned task vectors their L1 norm back.
        lambda_: `lambda`, the factor of the sum; 0 returns the base.
        int8_mask: mergekit's, without effect.
    """
    thin = _unless_dense(lambda d, i: sparsify.outliers(d, density[i], gamma[i]), density)
    return combine(
        models, base, thin, weight=weight, consensus=consensus, normalize=normalize,
        rescale=rescale, scale=lambda_,
    )  # fmt: skip


def _register() -> None:
    families = (
        ("dare", "dare_linear", "dare_ties", _dare, (), (False, False), True),
        ("della", "della_linear", "della", _della, (EPSILON,), (False, True), True),
        ("breadcrumbs", "breadcrumbs", "breadcrumbs_ties", _breadcrumbs, (GAMMA,), (False, False),
         False),
    )  # fmt: skip
    for family, plain, elected, run, extra, normalized, random in families:
        for name, consensus in ((plain, False), (elected, True)):
            shared = _shared(normalized[consensus], family != "breadcrumbs")
            wrapped = partial(run, consensus=consensus)
            wrapped.__doc__ = run.__doc__  # type: ignore[assignment]
            method(
                name, WEIGHT, DENSITY, *extra, *shared, base="required", models=(1, None),
                symmetric=not random, random=random,
            )(wrapped)  # fmt: skip


_register()
