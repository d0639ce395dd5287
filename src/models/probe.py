"""The head of a net alone, on features that were computed before."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from src.errors import UserError


class Probe(nn.Module):
    """Runs the classifier of a net, and nothing before it.

    Args:
        net: maps (n, 3, s, s) to (n, 1); its own classifier is used, not a copy.
        head: names of its classifier layers; one.
        drop_rate: dropout before it.

    Raises:
        UserError: the net has several classifiers.
    """

    def __init__(self, net: nn.Module, head: tuple[str, ...], drop_rate: float) -> None:
        super().__init__()
        if len(head) != 1:
            raise UserError(
                f"a net with {len(head)} classifiers ({', '.join(head)}) has no features to train "
                "one on; choose a strategy without a stage for the head alone (fine_tuning)"
            )
        self.head = net.get_submodule(head[0])
        self.drop_rate = drop_rate

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map `features`, float (n, ...), to `logit` (n,), as `Classifier` does pixels."""
        features = functional.dropout(batch["features"], self.drop_rate, self.training)
        return {"logit": self.head(features).reshape(len(features)), "features": features}


@torch.inference_mode()
def features_of(net: nn.Module, head: tuple[str, ...], pixels: Tensor) -> Tensor:
    """Return what enters the classifier of a net in evaluation mode, float32 (n, ...).

    Args:
        net: in evaluation mode.
        head: names of its classifier layers; one.
        pixels: normalised, float (n, 3, s, s).
    """
    seen: list[Tensor] = []
    layer = net.get_submodule(head[0])
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        net(pixels)
    finally:
        hook.remove()
    return seen[0].float()
