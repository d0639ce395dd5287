"""Which parts of a net are trained, and so in training mode."""

from torch import nn


def is_frozen(module: nn.Module) -> bool:
    """Tell whether a module has weights, and none of them is trained."""
    weights = list(module.parameters())
    return bool(weights) and not any(weight.requires_grad for weight in weights)


def freeze_modes(net: nn.Module) -> None:
    """Put the parts of a net in training mode that hold no trained weight into evaluation mode.

    Their BatchNorm statistics and dropout are then those of inference.
    """
    for module in net.modules():
        if is_frozen(module):
            module.eval()
