"""Low-rank adapters through peft: put into a net, and added up into its plain weights."""

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from src.config import AUTO, TransferConfig
from src.errors import UserError
from src.models.anatomy import Anatomy, Names
from src.models.heads import entering

POSITIONS = ".cpb_mlp."  # of Swin V2, which sees coordinates and no image
SEPARATE = "qkv_bias_separate"  # timm's name for the way of attention in which `qkv` is called


def add_lora(parts: Anatomy, config: TransferConfig, image_size: int) -> Names:
    """Put LoRA layers around the `lora_targets` of a net; returns the names of the new weights.

    A name means the layers of the net's blocks that are called so, a path any one layer, `auto` the
    projections of the blocks. The head's layers are never wrapped. Attention that adds its bias
    past the module (EVA-02, BEiT, Swin V2, DINOv3 with biases) is told to call it. The layers are
    tried on one black picture of `image_size` px: a UserError says where a net has no such layers,
    or reads their weights itself and never calls them.
    """
    net = parts.net
    layers = _targets(parts, config, image_size)
    try:
        import peft
    except ImportError as error:
        raise UserError(
            f"strategy lora needs peft ({error}): pip install peft, or make setup"
        ) from None
    peft.inject_adapter_in_model(
        peft.LoraConfig(
            r=config.lora_r,
            lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # any number will do
            lora_dropout=config.lora_dropout,
            target_modules=layers,
        ),
        net,
    )
    return frozenset(name for name, _ in net.named_parameters() if ".lora_" in name)


def _targets(parts: Anatomy, config: TransferConfig, image_size: int) -> list[str]:
    """Return the paths of the layers that are to get adapters, each of which the net calls."""
    in_head = _modules_of(parts.head)
    layers = {
        path: layer
        for path, layer in parts.net.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and path not in in_head
    }
    in_blocks = [path for path in layers if path in _modules_of(frozenset().union(*parts.blocks))]
    if config.lora_targets != AUTO:
        found = _named(config.lora_targets, list(layers), in_blocks)
        _refuse_uncalled(parts.net, found, image_size)
        return found
    wide = [
        path
        for path in in_blocks
        if POSITIONS not in path and _is_projection(layers[path], config.lora_r)
    ]
    uncalled = _uncalled(parts.net, wide, image_size)
    found = [path for path in wide if path not in uncalled]
    if not found:
        raise UserError(
            "transfer.lora_targets: auto finds no linear layer or 1 x 1 convolution in the blocks "
            f"of this net that is wider than the rank (transfer.lora_r: {config.lora_r}); its "
            f"layers are called {_names(in_blocks or layers)}"
        )
    return found


def _modules_of(names: Names) -> set[str]:
    return {name.rpartition(".")[0] for name in names}


def _is_projection(layer: nn.Module, rank: int) -> bool:
    """Tell whether a layer mixes channels alone, and has more weights than its adapter would."""
    if isinstance(layer, nn.Conv2d) and (layer.groups > 1 or set(layer.kernel_size) != {1}):
        return False
    return min(layer.weight.shape[:2]) > rank  # type: ignore[index,union-attr]


def _named(targets: Iterable[str], layers: list[str], in_blocks: list[str]) -> list[str]:
    found = []
    for target in targets:
        # `proj` would else mean the patch embedding's, too.
        named = [path for path in in_blocks if path.endswith(f".{target}")]
        named += [path for path in layers if path == target]
        if not named:
            raise UserError(
                f"transfer.lora_targets: {target} fits no layer in the blocks of this net, and is "
                f"no path of a layer outside its head; its layers are called {_names(layers)}; "
                "auto takes the projections of the blocks, whatever they are called"
            )
        found += named
    return list(dict.fromkeys(found))


def _names(layers: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(path.split(".")[-1] for path in layers))


def _uncalled(net: nn.Module, layers: list[str], image_size: int) -> list[str]:
    """Return the layers that a net does not call, once attention is told to call what it can."""
    for path in layers:
        around: Any = net.get_submodule(path.rpartition(".")[0])
        if path.endswith(".qkv") and hasattr(around, SEPARATE):
            setattr(around, SEPARATE, True)
    weight, training = next(net.parameters()), net.training
    with ExitStack() as stack, torch.no_grad():
        seen = {path: stack.enter_context(entering(net.get_submodule(path))) for path in layers}
        stack.callback(net.train, training)
        black = torch.zeros(1, 3, image_size, image_size, device=weight.device)
        net.eval()(black.to(weight.dtype))
    return [path for path in layers if not seen[path]]


def _refuse_uncalled(net: nn.Module, layers: list[str], image_size: int) -> None:
    """Raise for layers whose weights the net reads past them: their adapters would do nothing."""
    silent = _uncalled(net, layers, image_size)
    if silent:
        raise UserError(
            f"transfer.lora_targets: this net reads the weights of {len(silent)} layers itself and "
            f"never calls them ({_names(silent)}; the first is {silent[0]}), so adapters there "
            "would train nothing; auto takes those that it calls, or take another strategy"
        )


def merge_adapters(net: nn.Module) -> None:
    """Add adapters up into the layers they lie around; changes the net, whose keys become plain."""
    if not has_adapters(net):  # peft need not be installed
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    around: list[tuple[str, Any]] = [
        (path, layer) for path, layer in net.named_modules() if isinstance(layer, BaseTunerLayer)
    ]
    for path, layer in around:
        layer.merge()  # type: ignore[operator]
        place, _, name = path.rpartition(".")
        parent: Any = net.get_submodule(place)
        setattr(parent, name, layer.get_base_layer())
        if hasattr(parent, SEPARATE):  # as a net that is built anew
            setattr(parent, SEPARATE, False)


def has_adapters(net: nn.Module) -> bool:
    """Tell whether a net holds adapters."""
    return any(".lora_" in name for name, _ in net.named_parameters())
