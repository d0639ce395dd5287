"""What a net computes on its way to the logit, by name, while it runs.

Distillation compares it between two nets, pictures show it. A name is one function here.
"""

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from src.errors import UserError
from src.models.heads import classifier_of, entering
from src.registry import Registry

Seen = dict[str, Any]  # name -> Tensor, or list of Tensor in the order of the net
# (net, its name, list) -> context in which the list is filled; UserError where the net has none
Watch = Callable[[nn.Module, str, list[Tensor]], ExitStack]
INTERMEDIATES: Registry[Watch] = Registry("intermediate")
ONE = {"features", "boundary", "tower_patches"}  # a single tensor, not a list
MAPS = {"attention", "mean_attention", "head_tokens"}


@contextmanager
def watching(net: nn.Module, wanted: Collection[str], name: str = "") -> Iterator[Seen]:
    """Collect what a net computes while it runs once, and is not compiled code.

    Args:
        net: maps (n, 3, s, s) to (n, 1).
        wanted: names of `INTERMEDIATES`.
        name: of the net, for messages.

    Yields:
        What their functions here say, filled in when the net ran.

    Raises:
        UserError: the net has no such thing; says which nets do.
    """
    name = name or type(net).__name__
    found: dict[str, list[Tensor]] = {key: [] for key in wanted}
    seen: Seen = {}
    with ExitStack() as stack:
        for key in wanted:
            stack.enter_context(INTERMEDIATES.get(key)(net, name, found[key]))
        yield seen
        for key, tensors in found.items():
            seen[key] = tensors[0] if key in ONE else tensors


@INTERMEDIATES.register("features")
def features(net: nn.Module, _: str, found: list[Tensor]) -> ExitStack:
    """What enters the last linear layer, float (n, ...)."""
    stack = ExitStack()
    stack.enter_context(entering(classifier_of(net)[1], found))
    return stack


@INTERMEDIATES.register("attention")
def attention(net: nn.Module, name: str, found: list[Tensor]) -> ExitStack:
    """The softmax of every self-attention over all tokens, float (n, heads, t, t), layer by layer.

    timm's fused kernel never shows it: it is switched off meanwhile, which moves a logit by 1e-6.
    """
    return _attention(net, name, found.append)


@INTERMEDIATES.register("mean_attention")
def mean_attention(net: nn.Module, name: str, found: list[Tensor]) -> ExitStack:
    """The same with the heads averaged at once, float (n, t, t): a teacher's take much memory."""
    return _attention(net, name, lambda maps: found.append(maps.mean(1)))


@INTERMEDIATES.register("head_tokens")
def head_tokens(net: nn.Module, name: str, found: list[Tensor]) -> ExitStack:
    """What each layer's heads give the class token, side by side, float (n, heads * d).

    The mean of all tokens where there is no class token.
    """
    stack, layers = ExitStack(), attention_layers(net)
    if not layers or not all(hasattr(layer, "proj") for layer in layers):
        raise _no_attention(name)
    has_class = getattr(net, "cls_token", None) is not None

    def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        tokens = inputs[0]
        found.append(tokens[:, 0] if has_class else tokens.flatten(1, -2).mean(1))

    for layer in layers:
        stack.callback(layer.proj.register_forward_pre_hook(look).remove)  # type: ignore[union-attr]
    return stack


def _attention(net: nn.Module, name: str, keep: Callable[[Tensor], None]) -> ExitStack:
    stack, layers = ExitStack(), attention_layers(net)
    if not layers:
        raise _no_attention(name)
    if getattr(net, "grad_checkpointing", False):
        raise UserError(f"attention maps of {name}: leave backbone.grad_checkpointing out")

    def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        maps = inputs[0]
        if maps.ndim != 4 or maps.shape[2] != maps.shape[3]:
            raise _no_attention(name)
        keep(maps)

    for layer in layers:
        if getattr(layer, "fused_attn", False):
            layer.fused_attn = False  # type: ignore[assignment]
            stack.callback(setattr, layer, "fused_attn", True)
        stack.callback(layer.attn_drop.register_forward_pre_hook(look).remove)  # type: ignore[union-attr]
    return stack


def _no_attention(name: str) -> UserError:
    return UserError(
        f"{name} has no self-attention over all tokens, so there are no attention maps: take a "
        "vision transformer (vit_*, deit3_*, eva02_*, CLIP, DINO); for convolutional nets there is "
        "channel_attention"
    )


def attention_layers(net: nn.Module) -> list[nn.Module]:
    """Return the layers of self-attention over all tokens, in order; none of windows or pooling."""
    return [
        module
        for path, module in net.named_modules()
        if isinstance(getattr(module, "attn_drop", None), nn.Module)
        and hasattr(module, "fused_attn")
        and "attn_pool" not in path
        and "Window" not in type(module).__name__
    ]


def with_tokens(maps: Tensor, prefix: int, count: int, wanted_prefix: int) -> Tensor:
    """Return attention maps (n, t, t) as those of a net of other tokens, (n, count, count).

    The class token stays the class token, other prefix tokens are dropped, or attend to nothing and
    are not attended to; patches, in a square, are interpolated. Rows sum to 1 again.

    Args:
        maps: float, heads averaged; each row sums to 1.
        prefix: how many of their tokens are no patches (`prefix_tokens`).
        count: tokens that are wanted.
        wanted_prefix: how many of those are no patches.
    """
    if maps.shape[1] == count and prefix == wanted_prefix:
        return maps
    side, wanted = patches_of(maps.shape[1], prefix), patches_of(count, wanted_prefix)
    n, both = len(maps), min(1, prefix, wanted_prefix)

    def brought(rows: Tensor) -> Tensor:
        """Map (n, k, t) to (n, k, count), as far as the second axis says what is attended to."""
        patches = rows[:, :, prefix:].reshape(-1, 1, side, side)
        patches = functional.interpolate(patches, (wanted, wanted), mode="bilinear")
        patches = patches.reshape(n, -1, wanted**2) * (side / wanted) ** 2
        head = rows.new_zeros(n, rows.shape[1], wanted_prefix)
        head[:, :, :both] = rows[:, :, :both]
        return torch.cat([head, patches], 2)

    # Keys first; queries are no shares, so that their patches keep their size.
    found = brought(brought(maps.float()).mT).mT
    found[:, wanted_prefix:] *= (wanted / side) ** 2
    return found / found.sum(2, keepdim=True).clamp(min=1e-12)


def patches_of(tokens: int, prefix: int, name: str = "") -> int:
    """Return the side of the square that a net's patches form; UserError where they form none."""
    side = math.isqrt(tokens - prefix)
    if side**2 != tokens - prefix:
        raise UserError(
            f"{name}: its {tokens} tokens are no square of patches and {prefix} others, so its "
            "attention maps cannot be held against those of another net"
        )
    return side


def prefix_tokens(net: nn.Module) -> int:
    """Return how many of the first tokens are no patches: the class token, registers."""
    return int(getattr(net, "num_prefix_tokens", 0))


@INTERMEDIATES.register("stages")
def stages(net: nn.Module, name: str, found: list[Tensor]) -> ExitStack:
    """The last feature map of each resolution of a convolutional net, float (n, c, h, w)."""
    stack = ExitStack()
    info = getattr(net, "feature_info", None) or []
    listed = info if isinstance(info, list) else info.info
    last = {one["reduction"]: one for one in listed}  # of several of one resolution the last
    maps = [one for one in last.values() if one.get("module")]
    lacks = UserError(
        f"{name} has no feature maps of several resolutions: take a convolutional net (effnet_*, "
        "mobilenet*, resnet*, convnext*, compact*); for vision transformers there is attention"
    )
    if len(maps) < 2:
        raise lacks

    def keep(channels: int, output: Any) -> None:  # noqa: ANN401 - whatever a module returns
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise lacks
        first = output.shape[1] == channels  # else the channels come last
        found.append(output if first else output.permute(0, 3, 1, 2))

    for one in maps:
        module, channels = net.get_submodule(one["module"]), one["num_chs"]
        hook = module.register_forward_hook(lambda _, __, out, c=channels: keep(c, out))
        stack.callback(hook.remove)
    return stack


@INTERMEDIATES.register("boundary")
def boundary(net: nn.Module, name: str, found: list[Tensor]) -> ExitStack:
    """Where two pictures meet, by what the net says of pixels: float (n, h, w), about 0 to 1."""
    return _shown(net, name, "boundary", found)


@INTERMEDIATES.register("side_patches")
def side_patches(net: nn.Module, name: str, found: list[Tensor]) -> ExitStack:
    """Patches of a localising net's own blocks, float (n, t, d) each (its `intra_blocks`)."""
    return _shown(net, name, "side_patches", found)


@INTERMEDIATES.register("tower_patches")
def tower_patches(net: nn.Module, name: str, found: list[Tensor]) -> ExitStack:
    """What is learned on the patches of a localising net's frozen tower, float (n, t, d)."""
    return _shown(net, name, "tower_patches", found)


def _shown(net: nn.Module, name: str, what: str, found: list[Tensor]) -> ExitStack:
    """Collect what leaves the module that a net of ours says (`shows`)."""
    path = getattr(net, "shows", {}).get(what)
    if path is None:
        raise UserError(
            f"{name} has no boundary map, so it cannot say where a picture was manipulated: take "
            "forensics_adapter_b16 or forensics_adapter_l14"
        )

    def keep(_: nn.Module, __: Any, output: Tensor) -> None:  # noqa: ANN401 - a hook's inputs
        found.append(output)

    stack = ExitStack()
    stack.callback(net.get_submodule(path).register_forward_hook(keep).remove)
    return stack


def check_intermediates(net: nn.Module, wanted: Collection[str], size: int, name: str) -> Seen:
    """Return what a net shows of one empty image of `size` pixels, (1, ...) each.

    Raises:
        UserError: as `watching`, or the net, called `name`, attends within windows of an image.
    """
    weight = next(net.parameters())
    training = net.training
    net.eval()
    try:
        with torch.no_grad(), watching(net, wanted, name) as seen:
            net.forward(torch.zeros(1, 3, size, size, device=weight.device, dtype=weight.dtype))
    finally:
        net.train(training)
    if any(len(maps) > 1 for key in seen.keys() & MAPS for maps in seen[key]):
        raise _no_attention(name)  # of windows or pieces of the image, one after the other
    return seen
