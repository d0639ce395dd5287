"""Values with which every method runs, random tensors, and processes that are killed."""

import os
from collections.abc import Callable

import torch
from torch import Tensor

from src.merging.merger import Merger
from src.merging.methods import METHODS
from src.merging.recipe import Ingredient, MergeRecipe

# What each method needs given; the weights make a mean, so that copies merge into themselves.
GIVEN = {
    **{name: {"normalize": True} for name in METHODS if name.startswith(("breadcrumbs", "dare_"))},
    **{name: {"normalize": True} for name in ("task_arithmetic", "della_linear")},
    "slerp": {"t": 0.3},
    "nearswap": {"t": 0.01},
}


def count_of(name: str) -> int:
    """Return three models, or as many as the method can take."""
    return METHODS.get(name).models[1] or 3


def given(name: str, **more) -> dict:
    """Return parameters of a method, `weight` 1 where it has one."""
    weighs = any(parameter.name == "weight" for parameter in METHODS.get(name).parameters)
    return {**({"weight": 1.0} if weighs else {}), **GIVEN.get(name, {}), **more}


def merge(name: str, models, base: Tensor, *, seed: int = 0, **more) -> Tensor:
    """Run a method with `given` parameters; the base only where it must have one."""
    method = METHODS.get(name)
    return method(
        models,
        base if method.base == "required" else None,
        generator=torch.Generator().manual_seed(seed),
        companions={"fisher": [model.square() + 0.1 for model in models]},
        **given(name, **more),
    )


def recipe_of(name: str, names: list[str], seed: int = 0, **more) -> MergeRecipe:
    """Return a recipe of a method with `given` parameters; the base is called `base`."""
    base = "base" if METHODS.get(name).base == "required" else ""
    models = tuple(Ingredient(one) for one in names[: count_of(name)])
    return MergeRecipe(name, models, base, given(name, **more), seed=seed)


def tensors(seed: int, shape: tuple[int, ...] = (6, 5), scale: float = 1.0) -> Tensor:
    """Return a random tensor."""
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def state(seed: int) -> dict[str, Tensor]:
    """Return a state dict as of a small net with BatchNorm, a class token and one logit."""
    drawn = torch.Generator().manual_seed(seed)
    shapes = {
        "stem.weight": (4, 3, 3, 3), "blocks.0.conv.weight": (4, 1, 3, 3), "cls_token": (1, 1, 8),
        "blocks.1.bn.weight": (4,), "blocks.1.bn.running_mean": (4,), "head.weight": (1, 4),
        "head.bias": (1,), "scale": (),
    }  # fmt: skip
    made = {name: torch.randn(shape, generator=drawn) for name, shape in shapes.items()}
    made["blocks.1.bn.running_var"] = torch.rand(4, generator=drawn) + 0.5
    made["blocks.1.bn.num_batches_tracked"] = torch.tensor(100 + seed)
    made["index"] = torch.arange(6).reshape(2, 3)
    return made


def watched(patch, stop: Callable[[int], None]) -> list[str]:
    """Call `stop` with the number of tensors merged so far before each; returns their names."""
    seen, whole = [], Merger.tensor

    def tensor(self, name):
        stop(len(seen))
        seen.append(name)
        return whole(self, name)

    patch.setattr(Merger, "tensor", tensor)
    return seen


def in_child(work: Callable[[], object]) -> int:
    """Run something in a process of its own; returns its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
