"""Stochastic weight averaging: the plain mean of the weights of the last epochs.

Which parts of a net are trained, and so in training mode.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from src.compute import device
from src.models.classifier import Classifier


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


class WeightMean:
    """The mean of a model's weights after each of its last epochs (Izmailov et al. 2018, alg. 1).

    Statistics of BatchNorm belong to other weights; `settle_statistics` makes those of the mean.

    Args:
        model: what is trained.
        first: epochs after which the mean begins.
    """

    def __init__(self, model: Classifier, first: int) -> None:
        self.mean = AveragedModel(model)
        self.first = first

    @property
    def model(self) -> Classifier:
        """Return the model with the mean of the weights; the initial ones before it begins."""
        return self.mean.module  # type: ignore[return-value]

    def after_epoch(self, model: Classifier, epoch: int) -> None:
        """Take the weights after an epoch, counted from 1, if it is one of the last."""
        if epoch > self.first:
            self.mean.update_parameters(model)

    def state(self) -> dict[str, Any]:
        """Return tensors and plain numbers from which `restore` goes on exactly."""
        return {"count": int(self.mean.n_averaged), "net": self.model.net.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a state that `state` made."""
        self.mean.n_averaged.fill_(state["count"])
        self.model.net.load_state_dict(state["net"])


def settle_statistics(
    model: Classifier, batches: Iterable[dict[str, Tensor]], chip: torch.device, precision: str
) -> None:
    """Estimate anew what BatchNorm knows of the data, as the plain mean over batches.

    Layers without trained weights keep what they know, as they did in training.

    Args:
        model: changed in place; nothing is read or done where it has no such layer.
        batches: of training.
        chip: where to.
        precision: fp32, bf16 or fp16.
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and not is_frozen(m)]
    if not layers:
        return
    was_training = {module: module.training for module in model.modules()}
    model.train()
    freeze_modes(model)
    try:
        fill_statistics(model, layers, batches, chip, precision)
    finally:
        for module, training in was_training.items():
            module.training = training


def fill_statistics(
    model: Classifier,
    layers: Sequence[_BatchNorm],
    batches: Iterable[dict[str, Tensor]],
    chip: torch.device,
    precision: str,
) -> None:
    """Give layers that are in training mode the plain mean of the statistics of some batches.

    Args:
        model: that the layers are of.
        layers: what they knew is forgotten.
        batches: as the model takes them.
        chip: where to.
        precision: fp32, bf16 or fp16.
    """
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch's word for a plain mean
    try:
        with torch.no_grad(), device.autocast(chip, precision):
            for batch in batches:
                model({key: tensor.to(chip) for key, tensor in batch.items()})
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
