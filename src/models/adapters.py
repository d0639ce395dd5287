"""Low-rank adapters through peft: put into a net, and added up into its plain weights."""

from typing import Any

from torch import nn

from src.config import TransferConfig
from src.errors import UserError
from src.models.anatomy import Names


def add_lora(net: nn.Module, config: TransferConfig) -> Names:
    """Put LoRA layers around the layers that are called so; changes the net.

    Args:
        net: any net.
        config: `lora_r`, `lora_alpha`, `lora_dropout`, `lora_targets`.

    Returns:
        The names of the new weights.

    Raises:
        UserError: peft is not installed, or no layer is called so.
    """
    try:
        import peft
    except ImportError as error:
        raise UserError(
            f"strategy lora needs peft ({error}): pip install peft, or make setup"
        ) from None
    try:
        peft.inject_adapter_in_model(
            peft.LoraConfig(
                r=config.lora_r,
                lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # any number will do
                lora_dropout=config.lora_dropout,
                target_modules=list(config.lora_targets),
            ),
            net,
        )
    except ValueError as error:
        kinds = (nn.Linear, nn.Conv2d)
        layers = [path for path, layer in net.named_modules() if isinstance(layer, kinds)]
        shown = dict.fromkeys(path.split(".")[-1] for path in layers)
        raise UserError(
            f"transfer.lora_targets: {', '.join(config.lora_targets)} fit no layer of this net "
            f"({str(error).splitlines()[0]}); its layers are called {', '.join(shown)}"
        ) from None
    return frozenset(name for name, _ in net.named_parameters() if ".lora_" in name)


def merge_adapters(net: nn.Module) -> None:
    """Add adapters up into the layers they lie around; changes the net, whose keys become plain.

    A net without adapters stays as it is, and peft need not be installed.
    """
    if not has_adapters(net):
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
