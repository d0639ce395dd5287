"""Strategies by name: which weights of a net are trained."""

from collections.abc import Callable

from torch import nn

from src.registry import Registry

Strategy = Callable[[nn.Module], None]
STRATEGIES: Registry[Strategy] = Registry("strategy")


@STRATEGIES.register("fine_tuning")
def fine_tuning(net: nn.Module) -> None:
    """Train every weight."""
    for parameter in net.parameters():
        parameter.requires_grad_(True)
