"""Losses by name: each takes the batch, the outputs and its settings, and returns a scalar."""

from collections.abc import Callable, Mapping

from torch import Tensor
from torch.nn import functional

from src.config import LossConfig
from src.registry import Registry

Loss = Callable[[Mapping[str, Tensor], Mapping[str, Tensor], LossConfig, Tensor], Tensor]
LOSSES: Registry[Loss] = Registry("loss")


@LOSSES.register("bce")
def bce(
    batch: Mapping[str, Tensor],
    outputs: Mapping[str, Tensor],
    config: LossConfig,
    class_weights: Tensor,
) -> Tensor:
    """Binary cross-entropy on one logit, with label smoothing (Szegedy et al. 2016, sec. 7).

    Args:
        batch: `label`, int or float (n,) of 0/1.
        outputs: `logit`, float (n,).
        config: `label_smoothing` is read.
        class_weights: float (2,), the weight of real and of fake.

    Returns:
        The mean over the batch, float32 scalar.
    """
    label = batch["label"].float()
    smooth = config.label_smoothing
    target = label * (1 - smooth) + 0.5 * smooth
    weight = class_weights[batch["label"].long()]
    return functional.binary_cross_entropy_with_logits(outputs["logit"].float(), target, weight)
