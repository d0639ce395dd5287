"""Optimizers by name, and the groups of weights they see."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from src.config import OptimConfig
from src.errors import UserError
from src.registry import Registry

Groups = list[dict[str, Any]]
Build = Callable[[Groups, OptimConfig], torch.optim.Optimizer]
OPTIMIZERS: Registry[Build] = Registry("optimizer")


@OPTIMIZERS.register("adamw")
def adamw(groups: Groups, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019)."""
    return torch.optim.AdamW(groups, lr=config.lr)


@OPTIMIZERS.register("adam")
def adam(groups: Groups, config: OptimConfig) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2015); weight decay is added to the gradient."""
    return torch.optim.Adam(groups, lr=config.lr)


@OPTIMIZERS.register("sgd")
def sgd(groups: Groups, config: OptimConfig) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum 0.9."""
    return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True)


@OPTIMIZERS.register("lion")
def lion(groups: Groups, config: OptimConfig) -> torch.optim.Optimizer:
    """Lion (Chen et al. 2023, alg. 2): wants a learning rate 3 to 10 times below AdamW's."""
    from timm.optim.lion import Lion

    return Lion(groups, lr=config.lr)


@OPTIMIZERS.register("schedule_free")
def schedule_free(groups: Groups, config: OptimConfig) -> torch.optim.Optimizer:
    """Schedule-free AdamW (Defazio et al. 2024): a mean of the weights stands in for a schedule.

    It has two sets of weights, one to train and one to use: see `optimizer_mode`.
    """
    from schedulefree import AdamWScheduleFree

    return AdamWScheduleFree(groups, lr=config.lr)


def optimizer_mode(optimizer: torch.optim.Optimizer, *, train: bool) -> bool:
    """Put the weights into the net that an optimizer trains, or those that it wants used.

    They are the same for all but schedule-free. To be called before an epoch and after it; nothing
    happens where they are in already. The way there and back is not exact in the last bit, so a
    state that is saved within an epoch is saved as it is.

    Returns:
        Whether the optimizer has two sets of weights.
    """
    switch = getattr(optimizer, "train" if train else "eval", None)
    if switch is not None:
        switch()
    return switch is not None


def build_optimizer(net: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Build the optimizer of what is trainable; biases and norms are not decayed.

    Every group has an `lr_scale`: its learning rate over that of the schedule.

    Raises:
        UserError: `layer_decay`, and a net that does not say what its layers are.
    """
    groups = _layer_groups(net, config) if config.layer_decay is not None else _groups(net, config)
    return OPTIMIZERS.get(config.name)(groups, config)


def _groups(net: nn.Module, config: OptimConfig) -> Groups:
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    matrices = [p for p in trainable if p.ndim > 1]
    vectors = [p for p in trainable if p.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": config.weight_decay, "lr_scale": 1.0},
        {"params": vectors, "weight_decay": 0.0, "lr_scale": 1.0},
    ]


def _layer_groups(net: nn.Module, config: OptimConfig) -> Groups:
    """Return a group a layer and kind: layer i of L has scale decay^(L-i), the head scale 1.

    As BEiT (Bao et al. 2022) and MAE fine-tune; neither tokens nor position embeddings are decayed.
    """
    from timm.optim._param_groups import param_groups_layer_decay

    if not hasattr(net, "group_matcher"):
        raise UserError(
            f"optim.layer_decay: {type(net).__name__} does not say what its layers are; leave it "
            "out, or take a backbone of timm's"
        )
    undecayed = net.no_weight_decay() if hasattr(net, "no_weight_decay") else ()  # type: ignore[operator]
    return param_groups_layer_decay(
        net, config.weight_decay, undecayed, layer_decay=config.layer_decay or 1.0
    )
