"""Nets by name: ours are registered in this folder, every other name is timm's."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from src.config import BackboneConfig, HeadConfig
from src.errors import UserError, unknown_name
from src.models.heads import apply_head
from src.models.stem import set_stem_stride
from src.models.token_heads import HEAD_STD
from src.registry import Registry, import_all

BACKBONES: Registry[Callable[..., nn.Module]] = Registry("backbone")

# Arguments of a constructor that have a place of their own, or that would go behind our back
# (`pretrained` downloads).
OURS = {
    *("model_name", "num_classes", "drop_rate", "drop_path_rate", "features_only"),
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"),
}


@dataclass(frozen=True)
class Native:
    """What a backbone's weights were trained with, used where a config leaves it open."""

    image_size: int  # side in pixels
    mean: tuple[float, float, float]  # per RGB channel on a 0..1 scale
    std: tuple[float, float, float]
    head: tuple[str, ...]  # names of the classifier layers, prefixes of their keys


# Of a registered backbone that says nothing (`native`).
UNTRAINED = Native(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), ("head",))


def check_backbone(name: str) -> None:
    """Raise a UserError, offering the nearest names, unless `name` is ours or timm's."""
    if name in BACKBONES.names():
        return
    import timm

    if not timm.is_model(name.split(".")[0]):
        import difflib

        near = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.4)
        raise unknown_name("backbone", name, [*near, *BACKBONES.names()], "or any other timm name")
    tags = timm.list_pretrained(f"{name.split('.')[0]}.*")
    if "." in name and name not in tags:
        raise unknown_name("pretrained tag", name, tags)


def build_backbone(
    config: BackboneConfig, image_size: int | None, head: HeadConfig | None = None
) -> tuple[nn.Module, Native]:
    """Build a net with one output, with random weights.

    It maps (n, 3, s, s) to (n, 1); None for `image_size` or `head` leaves it as it is. A UserError
    says where the name is unknown, the constructor refuses the arguments, or the net cannot have
    that stem or head.
    """
    check_backbone(config.name)
    taken = sorted(set(config.kwargs) & OURS)
    if taken:
        raise UserError(f"backbone.kwargs may not set {', '.join(taken)}: they are set elsewhere")
    arguments = {"drop_rate": config.drop_rate, **config.kwargs}
    if config.name in BACKBONES.names():
        make = BACKBONES.get(config.name)
        net = _construct(make, config.name, arguments)
        native = getattr(make, "native", UNTRAINED)
        native = replace(native, image_size=image_size or native.image_size)
    else:
        net, native = _build_timms(config, image_size, arguments)
    if config.stem_stride is not None:
        set_stem_stride(net, config.stem_stride, config.name)
    if head is not None:
        apply_head(net, head, config.name)
    return net, native


def _build_timms(
    config: BackboneConfig, image_size: int | None, arguments: dict[str, Any]
) -> tuple[nn.Module, Native]:
    import timm

    if config.drop_path_rate is not None:
        arguments["drop_path_rate"] = config.drop_path_rate
    published = timm.get_pretrained_cfg(config.name)
    size = published.input_size[-1] if published is not None else 224
    if image_size is not None and published is not None and published.fixed_input_size:
        arguments["img_size"] = image_size
    arguments |= {"model_name": config.name, "num_classes": 1}
    net = _construct(timm.create_model, config.name, arguments)
    _calm_head(net)
    cfg: dict[str, Any] = dict(net.pretrained_cfg)  # type: ignore[arg-type]
    head = cfg.get("classifier") or ()
    return net, Native(
        size,
        tuple(cfg["mean"]),
        tuple(cfg["std"]),
        (head,) if isinstance(head, str) else tuple(head),
    )


def checkpoint_gradients(net: nn.Module, name: str) -> None:
    """Have a net compute its activations again on the way back, for less memory and more time.

    Raises:
        UserError: the net cannot.
    """
    try:
        net.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"backbone.grad_checkpointing: {name} does not offer it; smaller pieces of a batch "
            "save memory too (--auto-batch)"
        ) from error


def size_hint(net: nn.Module, size: int) -> str:
    """Say which image sizes near `size` fit a net of patches; empty for any other net."""
    patch = getattr(getattr(net, "patch_embed", None), "patch_size", None)
    if not isinstance(patch, tuple) or size % patch[0] == 0:
        return ""
    below = size // patch[0] * patch[0]
    fitting = [s for s in (below, below + patch[0]) if s >= patch[0]]
    return f"; multiples of {patch[0]} fit, such as {' or '.join(map(str, fitting))}"


def _calm_head(net: nn.Module) -> None:
    """Start the new head near zero, so that the first losses do not tear at pretrained weights.

    Some families draw it from U(-r, r) with r = 1 / sqrt(outputs), which for one output is 1: with
    1,280 features the first logits are around +-20.
    """
    head = net.get_classifier() if hasattr(net, "get_classifier") else None  # type: ignore[operator]
    for layer in head.modules() if isinstance(head, nn.Module) else ():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.normal_(layer.weight, std=HEAD_STD)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _construct(make: Callable[..., nn.Module], name: str, arguments: dict[str, Any]) -> nn.Module:
    try:
        return make(**arguments)
    except UserError:  # of a constructor of ours
        raise
    except Exception as error:  # whatever a constructor makes of arguments it does not expect
        raise UserError(f"backbone {name!r} refuses {arguments}: {error}") from error


import_all(__name__)
