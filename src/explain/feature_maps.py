"""A net's last map of features that is fine enough: which module gives it, how it lies on a square.

Traces of a blend are small, and the last maps of most nets have cells of 32 px: on the blends of
benchmarks/maps.py the map before, of 16 px, told far better where. It is found by running the net
once: no list of names covers all nets.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.models.classifier import Classifier
from src.models.intermediates import prefix_tokens

FEWEST = 4  # cells a side: on fewer nothing can be pointed to
CELL = 16  # px a side of a cell at most, where the net has such a map
# Their outputs are parts of a sum, of attention or of a hidden layer: no whole map.
PARTS = (nn.Linear, nn.Dropout, nn.Identity)


@dataclass(frozen=True)
class FeatureMap:
    """Where a net's last map of features leaves it."""

    path: str  # of the module
    layer: nn.Module
    on_grid: Callable[[Tensor], Tensor]  # its output as float (n, c, h, w), a copy


def last_map(model: Classifier, name: str, pixels: Tensor) -> FeatureMap:
    """Return the last map of features of small cells through which a picture reaches the logit.

    Of a vision transformer that reads its class token the last block's patches reach it no more;
    the last that do are those that its attention looks at.

    Args:
        model: in evaluation mode.
        name: of the model, for messages.
        pixels: one picture, normalised, float (1, 3, s, s), of which gradients are taken.

    Raises:
        UserError: no module gives a square map.
    """
    found = _last(model.net, pixels, model.spec.image_size // CELL) or _last(
        model.net, pixels, FEWEST
    )
    if found is None:
        raise UserError(
            f"{name} has no map of features on a square grid, so there is no Grad-CAM: take a "
            "convolutional net (effnet_*, mobilenet*, resnet*, convnext*, compact*) or a vision "
            "transformer; occlusion works with every net"
        )
    return found


def _last(net: nn.Module, pixels: Tensor, fewest: int) -> FeatureMap | None:
    """Return the last map of at least so many cells a side; None where there is none."""
    seen, smaller = dict[str, Tensor](), set[str]()
    prefix, fewest = prefix_tokens(net), max(fewest, FEWEST)

    def keep(path: str, module: nn.Module, _: Any, output: Any) -> None:  # noqa: ANN401 - a hook's
        whole = isinstance(output, Tensor) and len(output) == 1  # not windows, one after the other
        if whole and output.requires_grad and way_of(output, prefix, fewest):
            seen.pop(path, None)
            seen[path] = output
        elif whole and output.ndim == 4 and not isinstance(module, nn.Sequential):
            smaller.add(path)

    modules = {
        path: module
        for path, module in net.named_modules()
        if path and not isinstance(module, PARTS) and not is_part(path)
    }
    hooks = [module.register_forward_hook(partial(keep, path)) for path, module in modules.items()]
    try:
        logit = net.forward(pixels).sum()
    finally:
        for hook in hooks:
            hook.remove()
    # What lies in a block that shrinks its map is a part of that block, and no whole map.
    parts = {path for path in seen if any(path.startswith(f"{block}.") for block in smaller)}
    found = [(path, seen[path]) for path in seen if path not in parts or parts == {*seen}][::-1]
    if not found:
        return None
    grads = torch.autograd.grad(logit, [one for _, one in found], allow_unused=True)
    usable = []
    for (path, output), grad in zip(found, grads, strict=True):
        way = way_of(output, prefix, fewest)
        assert way is not None
        usable.append(FeatureMap(path, modules[path], way))
        if grad is not None and bool(way(grad).abs().amax() > 0):
            return usable[-1]
    return usable[0]  # whose weights behind it are zero: its maps are flat, and withheld


def is_part(path: str) -> bool:
    """Tell whether a module is attention, or lies in it: what it gives is added to the map."""
    return any(step.startswith("attn") for step in path.split("."))


def way_of(output: Tensor, prefix: int, fewest: int) -> Callable[[Tensor], Tensor] | None:
    """Return what lays a module's output on a grid, (n, c, h, w); None where it is no square.

    Channels stand first or last; of tokens (n, t, c) the first `prefix` are no patches.
    """
    shape = tuple(output.shape)
    if len(shape) == 4 and shape[2] == shape[3] >= fewest:
        return lambda given: given.detach().float().clone()
    if len(shape) == 4 and shape[1] == shape[2] >= fewest:
        return lambda given: given.detach().float().permute(0, 3, 1, 2).clone()
    patches = shape[1] - prefix if len(shape) == 3 else 0
    side = math.isqrt(max(patches, 0))
    if side < fewest or side**2 != patches:
        return None
    return lambda given: (
        given.detach().float()[:, prefix:].mT.reshape(len(given), -1, side, side).clone()
    )
