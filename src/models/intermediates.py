"""What a net computes on its way to the logit, by name, while it runs.

Distillation compares it between two nets, pictures show it. A name is one function here.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.models.heads import classifier_of, entering
from src.registry import Registry

Seen = dict[str, Any]  # name -> Tensor, or list of Tensor in the order of the net
# (net, its name, list) -> context in which the list is filled; UserError where the net has none
Watch = Callable[[nn.Module, str, list[Tensor]], ExitStack]
INTERMEDIATES: Registry[Watch] = Registry("intermediate")
ONE = {"features"}  # a single tensor, not a list
MAPS = {"attention", "mean_attention"}


@contextmanager
def watching(net: nn.Module, wanted: Collection[str], name: str = "") -> Iterator[Seen]:
    """Collect what a net computes while it runs once, and is not compiled code.

    Args:
        net: maps (n, 3, s, s) to (n, 1).
        wanted: names of `INTERMEDIATES`.
        name: of the net, for messages.

    Yields:
        What `features`, `attention`, `mean_attention`, `stages` say, filled in when the net ran.

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
