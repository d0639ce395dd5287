"""Low-rank adapters through peft: put into a net, and added up into its plain weights."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from src.config import TransferConfig
from src.errors import UserError
from src.models.anatomy import Names
from src.models.heads import entering


def add_lora(net: nn.Module, config: TransferConfig, head: Names, image_size: int) -> Names:
    """Put LoRA layers around the `lora_targets` of a net; returns the names of the new weights.

    The head's layers are never wrapped. The others are tried on one black picture of `image_size`
    px: a UserError says where a net has no such layers, or reads their weights itself and never
    calls them.
    """
    layers = _targets(net, config.lora_targets, head)
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
    _refuse_uncalled(net, layers, image_size)
    return frozenset(name for name, _ in net.named_parameters() if ".lora_" in name)


def _targets(net: nn.Module, targets: Sequence[str], head: Names) -> list[str]:
    """Return the paths of the layers outside the head that the targets name."""
    in_head = {name.rpartition(".")[0] for name in head}
    kinds = (nn.Linear, nn.Conv2d)
    layers = [
        p for p, layer in net.named_modules() if isinstance(layer, kinds) and p not in in_head
    ]
    found = []
    for target in targets:
        named = [path for path in layers if path == target or path.endswith(f".{target}")]
        if not named:
            shown = dict.fromkeys(path.split(".")[-1] for path in layers)
            raise UserError(
                f"transfer.lora_targets: {target} fits no layer of this net outside its head; its "
                f"layers are called {', '.join(shown)}"
            )
        found += named
    return list(dict.fromkeys(found))


def _refuse_uncalled(net: nn.Module, layers: Sequence[str], image_size: int) -> None:
    """Raise for layers whose weights the net reads past them: their adapters would do nothing."""
    weight, training = next(net.parameters()), net.training
    with ExitStack() as stack, torch.no_grad():
        seen = {path: stack.enter_context(entering(net.get_submodule(path))) for path in layers}
        stack.callback(net.train, training)
        black = torch.zeros(1, 3, image_size, image_size, device=weight.device)
        net.eval()(black.to(weight.dtype))
    silent = [path for path in layers if not seen[path]]
    if silent:
        kinds = dict.fromkeys(path.split(".")[-1] for path in silent)
        raise UserError(
            f"transfer.lora_targets: this net reads the weights of {len(silent)} layers itself and "
            f"never calls them ({', '.join(kinds)}; the first is {silent[0]}), so adapters there "
            "would train nothing; name others, such as proj, fc1, fc2, or take another strategy"
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
        parent, _, name = path.rpartition(".")
        setattr(net.get_submodule(parent), name, layer.get_base_layer())


def has_adapters(net: nn.Module) -> bool:
    """Tell whether a net holds adapters."""
    return any(".lora_" in name for name, _ in net.named_parameters())
