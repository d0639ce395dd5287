"""Losses by name: each takes the batch, the outputs and its settings, and returns a scalar.

Labels may lie between 0 and 1 (mixup): an item then costs what its parts cost, at a weight between
those of the classes. Terms on features are added to any loss by `total_loss`.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from src.config import LossConfig
from src.models.feature_terms import feature_terms
from src.registry import Registry

Loss = Callable[[Mapping[str, Tensor], Mapping[str, Tensor], LossConfig, Tensor], Tensor]
LOSSES: Registry[Loss] = Registry("loss")


def total_loss(
    batch: Mapping[str, Tensor],
    outputs: Mapping[str, Tensor],
    config: LossConfig,
    class_weights: Tensor,
) -> Tensor:
    """Return the loss that a config names, with its terms on features.

    Args:
        batch: `label`, int or float (n,) in [0, 1].
        outputs: `logit`, float (n,), and `features`, float (n, d), where a term wants them.
        config: names the loss.
        class_weights: float (2,), the weight of real and of fake.

    Returns:
        float32 scalar.
    """
    loss = LOSSES.get(config.name)(batch, outputs, config, class_weights)
    terms = feature_terms(batch, outputs, config)
    return loss if terms is None else loss + terms


@LOSSES.register("bce")
def bce(
    batch: Mapping[str, Tensor],
    outputs: Mapping[str, Tensor],
    config: LossConfig,
    class_weights: Tensor,
) -> Tensor:
    """Binary cross-entropy on one logit, with label smoothing (Szegedy et al. 2016, sec. 7).

    Args:
        batch: `label`, int or float (n,) in [0, 1].
        outputs: `logit`, float (n,).
        config: `label_smoothing` is read.
        class_weights: float (2,), the weight of real and of fake.

    Returns:
        The mean over the batch, float32 scalar.
    """
    target, weight = _smoothed(batch, config), _item_weights(batch, class_weights)
    return functional.binary_cross_entropy_with_logits(outputs["logit"].float(), target, weight)


@LOSSES.register("ce")
def ce(
    batch: Mapping[str, Tensor],
    outputs: Mapping[str, Tensor],
    config: LossConfig,
    class_weights: Tensor,
) -> Tensor:
    """Cross-entropy of two classes, whose logits are 0 and ours.

    Without class weights it is `bce`, smoothed or not. With them each class's part of a smoothed
    or mixed label has the weight of that class. The sum is divided by the number of items, not by
    their weights: pieces of a batch then add up to the batch.
    """
    logit = outputs["logit"].float()
    label = batch["label"].float()
    return functional.cross_entropy(
        torch.stack([torch.zeros_like(logit), logit], 1),
        torch.stack([1 - label, label], 1),
        class_weights,
        label_smoothing=config.label_smoothing,
    )


@LOSSES.register("focal")
def focal(
    batch: Mapping[str, Tensor],
    outputs: Mapping[str, Tensor],
    config: LossConfig,
    class_weights: Tensor,
) -> Tensor:
    """Focal loss (Lin et al. 2017, eq. 4; alpha is the class weights): `gamma` for both classes."""
    return _focused(batch, outputs, config, class_weights, config.gamma, config.gamma)


@LOSSES.register("asymmetric")
def asymmetric(
    batch: Mapping[str, Tensor],
    outputs: Mapping[str, Tensor],
    config: LossConfig,
    class_weights: Tensor,
) -> Tensor:
    """Asymmetric loss (Ridnik et al. 2021, sec. 2.2): `gamma` for reals, `gamma_fake` for fakes."""
    return _focused(batch, outputs, config, class_weights, config.gamma, config.gamma_fake)


def _focused(
    batch: Mapping[str, Tensor],
    outputs: Mapping[str, Tensor],
    config: LossConfig,
    class_weights: Tensor,
    gamma_real: float,
    gamma_fake: float,
) -> Tensor:
    """Weigh each class's part of the cross-entropy by (1 - its probability) ** gamma."""
    logit = outputs["logit"].float()
    target = _smoothed(batch, config)
    fake, real = functional.logsigmoid(logit), functional.logsigmoid(-logit)
    # Powers of probabilities in logarithms: 1 - p would be 0 for a sure item, and its slope nan.
    parts = target * (gamma_fake * real).exp() * fake
    parts = parts + (1 - target) * (gamma_real * fake).exp() * real
    return -(_item_weights(batch, class_weights) * parts).mean()


def _smoothed(batch: Mapping[str, Tensor], config: LossConfig) -> Tensor:
    smooth = config.label_smoothing
    return batch["label"].float() * (1 - smooth) + 0.5 * smooth


def _item_weights(batch: Mapping[str, Tensor], class_weights: Tensor) -> Tensor:
    """Return (n,) weights; a mixed item's lies between those of the classes."""
    label = batch["label"].float()
    return (1 - label) * class_weights[0] + label * class_weights[1]
