"""Heads: how a net's feature map becomes one vector, and what its last linear layer sees.

A head is put into a net that is built already: the keys of the state dict stay those of the
published net, so that its weights load as before. None adds weights but `cls_avg`, whose last layer
is twice as wide, `project`, CLIP's way into the space that it shares with texts, and the three that
see several tokens (`token_heads`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from src.config import TOKEN_POOLS, HeadConfig
from src.errors import UserError
from src.losses import TERMS
from src.models.token_heads import TokenHead, new_linear, set_token_head

GEM_POWER = 3.0  # what Radenović et al. start from; it is not learned here
LEAST = 1e-6
PROJECTION = "fc_norm"  # the place between pooling and classifier that timm keeps for a norm


class Pool(nn.Module):
    """Pools over some dimensions: `avg`, `max` or `gem`.

    Generalised mean: (mean x^3)^(1/3) of what is positive (Radenović et al. 2019, eq. 3). The first
    `skip` tokens of (n, tokens, d) are left out.
    """

    def __init__(
        self, kind: str, dims: tuple[int, ...] = (2, 3), *, keepdim: bool = False, skip: int = 0
    ) -> None:
        super().__init__()
        self.kind = kind
        self.dims = dims
        self.keepdim = keepdim
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, d, h, w), or whatever `dims` belong to, to (n, d)."""
        x = x[:, self.skip :] if self.skip else x
        if self.kind == "max":
            return x.amax(self.dims, self.keepdim)
        if self.kind == "avg":
            return x.mean(self.dims, self.keepdim)
        cubes = x.float().clamp(min=LEAST).pow(GEM_POWER)
        return cubes.mean(self.dims, self.keepdim).pow(1 / GEM_POWER).to(x.dtype)

    def extra_repr(self) -> str:
        """Return what a printed net shows."""
        return f"{self.kind}, dims={self.dims}"


class ClsAvgPool(nn.Module):
    """Class token and mean of the patches side by side, as DINOv2's classifiers see them.

    The first `prefix` tokens, the class token and registers, are no patches.
    """

    def __init__(self, prefix: int) -> None:
        super().__init__()
        self.prefix = prefix

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, tokens, d) to (n, 2 d)."""
        return torch.cat([x[:, 0], x[:, self.prefix :].mean(1)], 1)


class NormalizedLinear(nn.Linear):
    """A linear layer that sees its input at length 1; its weights have the keys of a plain one."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (n, d) to (n, outputs)."""
        return super().forward(functional.normalize(input.float(), dim=-1).to(input.dtype))


def apply_head(net: nn.Module, head: HeadConfig, name: str) -> None:
    """Change the pooling and the last layer of a net, called `name` in messages, in place.

    Raises:
        UserError: the net cannot have that; says what would fit.
    """
    if head.pool in TOKEN_POOLS:
        set_token_head(net, head, name)
    elif head.pool != "native":
        _set_pool(net, head.pool, name)
    if head.project is not None:
        _set_projection(net, head.project, name)
    if head.normalize:
        path, layer = classifier_of(net)
        if type(layer) is not nn.Linear:
            raise UserError(
                f"head.normalize: the classifier of {name} is a {type(layer).__name__}, want a "
                "Linear; leave normalize out, or take another backbone"
            )
        made = NormalizedLinear(layer.in_features, layer.out_features, device=layer.weight.device)
        made.weight, made.bias = layer.weight, layer.bias
        net.set_submodule(path, made)


def projection_of(net: nn.Module) -> nn.Linear | None:
    """Return the layer that `head.project` put into a net; None where there is none."""
    layer = getattr(net, PROJECTION, None)
    return layer if isinstance(layer, nn.Linear) else None


def classifier_of(net: nn.Module) -> tuple[str, nn.Module]:
    """Return the path and the module of a net's last layer.

    Raises:
        UserError: it has several, or does not say which it is.
    """
    found: Any = net.get_classifier() if hasattr(net, "get_classifier") else None  # type: ignore[operator]
    found = found.last if isinstance(found, TokenHead) else found
    for path, module in net.named_modules():
        if module is found and path:
            return path, module
    count = f"has {len(found)} classifiers" if isinstance(found, tuple) else "names no classifier"
    raise UserError(
        f"{type(net).__name__} {count}, so there is no one layer whose input could be the features "
        f"(head, {', '.join(f'loss.{name}' for name in TERMS)}): take another backbone"
    )


@contextmanager
def entering(layer: nn.Module, seen: list[Tensor] | None = None) -> Iterator[list[Tensor]]:
    """Collect what enters a layer while its net runs, and is not compiled code."""
    seen = [] if seen is None else seen
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        hook.remove()


class Probe(nn.Module):
    """Runs the classifier of a net, which is no copy, and nothing but dropout before it.

    What it shows as `features` enters the last layer, as of a whole net. UserError where `head`
    names several classifiers.
    """

    def __init__(self, net: nn.Module, head: tuple[str, ...], drop_rate: float) -> None:
        super().__init__()
        if len(head) != 1:
            raise UserError(
                f"a net with {len(head)} classifiers ({', '.join(head)}) has no features to train "
                "one on; choose a strategy without a stage for the head alone (fine_tuning)"
            )
        self.head = net.get_submodule(head[0])
        self.drop_rate = drop_rate

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map `features`, float (n, ...), to `logit` (n,), as `Classifier` does pixels."""
        features = functional.dropout(batch["features"], self.drop_rate, self.training)
        last = self.head
        if isinstance(last, TokenHead):
            features, last = last.pool(features), last.last
        return {"logit": last(features).reshape(len(features)), "features": features}


def _set_pool(net: nn.Module, kind: str, name: str) -> None:
    from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    if isinstance(net, VisionTransformer | Eva):
        _set_token_pool(net, kind, name, strips=isinstance(net, VisionTransformer))
        return
    pools = [
        (path, module)
        for path, module in net.named_modules()
        if path.split(".")[-1] == "global_pool" and isinstance(module, SelectAdaptivePool2d | Pool)
    ]
    if kind in ("cls", "cls_avg"):
        raise UserError(
            f"head.pool: {kind} wants a class token, and {name} has none; "
            f"{'avg, max, gem or native fit it' if pools else 'native fits it'}"
        )
    if len(pools) != 1 or "cat" in getattr(pools[0][1], "pool_type", ""):
        raise UserError(
            f"head.pool: the pooling of {name} ({type(net).__name__}) cannot be exchanged; leave "
            "it native, or take another backbone"
        )
    path, old = pools[0]
    if isinstance(old, SelectAdaptivePool2d):
        if old.pool_type == kind:
            return
        flat = isinstance(old.flatten, nn.Flatten) or bool(getattr(old.pool, "flatten", False))
        made = Pool(kind, tuple(getattr(old.pool, "dim", (2, 3))), keepdim=not flat)
    else:
        made = Pool(kind)
    net.set_submodule(path, made)


def _set_projection(net: Any, width: int, name: str) -> None:  # noqa: ANN401
    """Put a linear layer before the classifier, drawn as CLIP draws its own (std d^-.5)."""
    if not isinstance(getattr(net, PROJECTION, None), nn.Identity):
        raise UserError(
            f"head.project: {name} has no place for a projection between pooling and classifier; "
            "leave it out (null), or take a vision transformer whose last norm precedes the "
            "pooling (vit_*_clip_*, vit_tiny_patch16_224)"
        )
    wide, head = net.head.in_features, net.head
    layer = nn.Linear(wide, width, bias=False)
    nn.init.normal_(layer.weight, std=wide**-0.5)
    setattr(net, PROJECTION, layer)
    net.head = new_linear(width, head.out_features)


def _set_token_pool(net: Any, kind: str, name: str, *, strips: bool) -> None:  # noqa: ANN401
    """Set the pooling of a vision transformer; its last norm stays where it is.

    `strips`: the net takes class and register tokens away before a pooling module sees them.
    """
    if kind in ("cls", "cls_avg") and (net.num_prefix_tokens == 0 or net.cls_token is None):
        raise UserError(
            f"head.pool: {kind} wants a class token, and {name} has none; avg, max, gem or native "
            "fit it"
        )
    if kind == "cls_avg":
        if not isinstance(net.fc_norm, nn.Identity):
            raise UserError(
                f"head.pool: cls_avg does not fit {name}, whose last norm follows the pooling"
            )
        net.attn_pool, net.pool_include_prefix = ClsAvgPool(net.num_prefix_tokens), True
        net.head = new_linear(2 * net.head.in_features, net.head.out_features)
        return
    net.attn_pool = None
    if kind == "gem":
        stripped = strips and not net.pool_include_prefix
        net.attn_pool = Pool("gem", (1,), skip=0 if stripped else net.num_prefix_tokens)
        return
    net.global_pool = "token" if kind == "cls" else kind
