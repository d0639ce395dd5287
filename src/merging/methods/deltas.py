"""Task arithmetic and its family: base + lambda * a sum of thinned task vectors d_i = t_i - base.

Without sign consensus: sum w_i d_i (`normalize`: / sum w_i, or 1 where that is 0). With it (TIES):
at every element the sign of sum w_i d_i is elected (0 counts as +), those of the other sign are
left out, and `normalize` divides by the weights of those that stay. `rescale` gives a thinned task
vector the L1 norm back that it had, as mergekit does, which is not exactly a factor 1 / density.

A weight of 0 leaves a model out, a negative one unlearns what it learnt; lambda 0 returns the base.
A density of 1 keeps all of a task vector, 0 nothing, any other at least one element (mergekit
stops there), but where elements are drawn. Masks are bool here; mergekit's switch for smaller ones
is read and changes nothing.

A method of the family is one function that thins one task vector, in place.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import wraps

import torch
from torch import Tensor

from src.errors import UserError
from src.merging.methods.algebra import PIECE, as_rows, largest
from src.merging.methods.base import Parameter, Tensors, method

DENSITY = Parameter("density", 1.0, per_model=True, low=0, high=1)
GAMMA = Parameter("gamma", 0.01, per_model=True, low=0, high=1)
EPSILON = Parameter("epsilon", 0.15, per_model=True, low=0, high=1)
NO_WEIGHT = 1e-8
SMALL_NORM = 1e-7
CACHED = 2**16
Thin = Callable[..., Tensor]


def on_task_vectors(
    name: str,
    *own: Parameter,
    elect: bool = False,
    normalize: bool = False,
    rescale: bool = False,
    random: bool = False,
) -> Callable[[Thin], Thin]:
    """Return a decorator that registers a function on one task vector as a method.

    The function is called `thin(delta, **values)` with a model's values of its `own` parameters,
    and with a `generator` where it is random; a density of 1 does without it.

    Args:
        name: of the method.
        own: its parameters (one a model) beside those that all of the family have.
        elect: elect signs, as TIES does.
        normalize: default of the parameter.
        rescale: default of the parameter.
        random: it draws, model by model, in their order.
    """
    parameters = (
        Parameter("weight", per_model=True), *own, Parameter("normalize", normalize),
        Parameter("rescale", rescale), Parameter("lambda", 1.0), Parameter("int8_mask", False),
    )  # fmt: skip

    def add(thin: Thin) -> Thin:
        @method(
            name, *parameters, base="required", models=(1, None), symmetric=not random,
            random=random,
        )  # fmt: skip
        @wraps(thin)
        def run(
            models: Tensors,
            base: Tensor,
            *,
            weight: Sequence[float],
            normalize: bool,
            rescale: bool,
            lambda_: float,
            int8_mask: bool,  # noqa: ARG001
            generator: torch.Generator | None = None,
            **of_models: Sequence[float],
        ) -> Tensor:
            if lambda_ == 0:
                return base.clone()
            drawn = {"generator": generator} if random else {}

            def thinned() -> Iterator[Tensor]:
                for index, factor in enumerate(weight):
                    if factor:
                        values = {key: each[index] for key, each in of_models.items()}
                        # Not kept in a variable: a model widened for this is let go of at once.
                        yield _thinned(models[index] - base, thin, rescale, values | drawn)

            used = [factor for factor in weight if factor]
            add_up = _elected if elect else _summed
            return add_up(thinned(), used, base, normalize).mul_(lambda_).add_(base)

        return thin

    return add


def _thinned(delta: Tensor, thin: Thin, rescale: bool, values: dict) -> Tensor:
    length = float(delta.abs().sum()) if rescale else 0.0
    less = delta if values.get("density", 1) >= 1 else thin(delta, **values)
    if length < SMALL_NORM:
        return less
    now = float(less.abs().sum())
    return less if now < SMALL_NORM else less.mul_(length / now)


def _summed(
    deltas: Iterator[Tensor], weights: Sequence[float], base: Tensor, normalize: bool
) -> Tensor:
    """Return sum w_i d_i, a task vector at a time, [*shape]."""
    total = torch.zeros_like(base)
    for delta, factor in zip(deltas, weights, strict=True):
        total.add_(delta, alpha=factor)
    whole = sum(weights)
    return total.div_(whole) if normalize and abs(whole) >= NO_WEIGHT else total


def _elected(
    deltas: Iterator[Tensor], weights: Sequence[float], base: Tensor, normalize: bool
) -> Tensor:
    """Add up the weighted task vectors that have the elected sign, [*shape]."""
    total = torch.zeros_like(base, memory_format=torch.contiguous_format)
    if not weights:
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


@on_task_vectors("task_arithmetic")
def task_arithmetic(delta: Tensor) -> Tensor:
    """Base + lambda sum w_i (t_i - base), nothing thinned (Ilharco et al. 2023, sec. 2)."""
    return delta


@on_task_vectors("ties", DENSITY, elect=True, normalize=True)
def ties(delta: Tensor, *, density: float) -> Tensor:
    """Trim to the largest, elect signs, average those that agree (Yadav et al. 2023, alg. 1)."""
    return _keep(delta, largest(delta.abs(), _kept(delta.numel(), density)))


@on_task_vectors("breadcrumbs", DENSITY, GAMMA)
@on_task_vectors("breadcrumbs_ties", DENSITY, GAMMA, elect=True)
def breadcrumbs(delta: Tensor, *, density: float, gamma: float) -> Tensor:
    """Drop the smallest and the very largest changes (Davari & Belilovsky 2023, eq. 2-3).

    The largest `gamma` and the smallest 1 - density - gamma; a share of less than one element
    drops none, and where gamma + density exceed 1 fewer large ones are dropped, so that `density`
    stay.
    """
    size = delta.numel()
    stay = _kept(size, density)
    dropped = min(int(gamma * size), size - stay)
    sizes = delta.abs()
    return _keep(delta, largest(sizes, stay + dropped) & ~largest(sizes, dropped))


@on_task_vectors("dare_linear", DENSITY, rescale=True, random=True)
@on_task_vectors("dare_ties", DENSITY, elect=True, rescale=True, random=True)
def dare(delta: Tensor, *, density: float, generator: torch.Generator) -> Tensor:
    """Keep elements with probability `density` (Yu et al. 2023, DARE: Super Mario, eq. 2)."""
    return _keep(delta, _coins(torch.full(delta.shape, density), generator).to(delta.device))


@on_task_vectors("della_linear", DENSITY, EPSILON, rescale=True, random=True)
@on_task_vectors(
    "della", DENSITY, EPSILON, elect=True, normalize=True, rescale=True, random=True
)  # fmt: skip
def della(delta: Tensor, *, density: float, epsilon: float, generator: torch.Generator) -> Tensor:
    """Drop at random, small elements of a row rather than large ones (Deep et al. 2024, 3.1).

    The probability to stay rises with the rank of the size in every row of [shape[0], rest] (what
    feeds one output), from density - epsilon (smallest) to density + epsilon. A UserError where
    these are not both between 0 and 1.
    """
    if density == 0:
        return delta.zero_()
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


def _kept(size: int, density: float) -> int:
    return max(1, int(density * size)) if density > 0 and size else 0


def _keep(delta: Tensor, mask: Tensor) -> Tensor:
    return delta.masked_fill_(mask.logical_not_(), 0)


def _coins(chance: Tensor, generator: torch.Generator) -> Tensor:
    """Draw on the CPU, so that every device draws the same; bool of the same shape."""
    return torch.bernoulli(chance, generator=generator).bool()
