"""Optimizers by name, and the learning rate of every step."""

import math
from collections.abc import Callable

import torch
from torch import nn

from src.config import OptimConfig
from src.registry import Registry

Groups = list[dict[str, object]]
Build = Callable[[Groups, OptimConfig], torch.optim.Optimizer]
OPTIMIZERS: Registry[Build] = Registry("optimizer")


@OPTIMIZERS.register("adamw")
def adamw(groups: Groups, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019)."""
    return torch.optim.AdamW(groups, lr=config.lr)


@OPTIMIZERS.register("sgd")
def sgd(groups: Groups, config: OptimConfig) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum 0.9."""
    return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True)


def build_optimizer(net: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Build the optimizer of what is trainable; biases and norms are not decayed."""
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    groups: Groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return OPTIMIZERS.get(config.name)(groups, config)


def lr_at(step: int, steps: int, steps_per_epoch: int, config: OptimConfig) -> float:
    """Return the learning rate of a step: linear warmup, then cosine to `min_lr`.

    Args:
        step: 0-based, over the whole run.
        steps: in the whole run.
        steps_per_epoch: to turn `warmup_epochs` into steps.
        config: lr, min_lr, warmup_epochs.
    """
    warmup = min(round(config.warmup_epochs * steps_per_epoch), steps - 1)
    if step < warmup:
        return config.lr * (step + 1) / (warmup + 1)
    share = (step - warmup) / max(1, steps - warmup)
    low = min(config.min_lr, config.lr)
    return low + 0.5 * (config.lr - low) * (1 + math.cos(math.pi * share))
