"""What a model costs, counted without computing: on torch's meta device, which holds no numbers."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from src.config import ModelConfig
from src.models.backbones import build_backbone
from src.models.classifier import count_parameters, input_spec


@dataclass(frozen=True)
class Measure:
    """Size and preprocessing of a model.

    Attributes:
        parameters: number of weights.
        macs: multiply-accumulates of one image, those of convolutions, linear layers and attention.
        image_size: side of the net's input, pixels.
        mean, std: per RGB channel, 0..1 scale.
    """

    parameters: int
    macs: float
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def measure(config: ModelConfig) -> Measure:
    """Count the weights and the work of a model for one image.

    Raises:
        UserError: unknown backbone, or arguments that it refuses.
    """
    # Not `no_grad`, under which the counter fails on some modules (torch 2.12).
    with torch.device("meta"), torch.inference_mode():
        net, native = build_backbone(config.backbone, config.input.image_size, config.head)
        net.eval()
        spec = input_spec(config, native)
        with FlopCounterMode(display=False) as counter:
            net(torch.empty(1, 3, spec.image_size, spec.image_size))
    macs = counter.get_total_flops() / 2  # it counts a multiplication and an addition as two
    return Measure(count_parameters(net), macs, spec.image_size, spec.mean, spec.std)
