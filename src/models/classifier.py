"""A net with its preprocessing: uint8 pixels in, one logit out.

What a model costs, counted without computing: on torch's meta device, which holds no numbers.
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from src.config import READING, InputSpec, ModelConfig
from src.errors import UserError
from src.faces.detectors import face_spec
from src.models.backbones import Native, build_backbone, checkpoint_gradients, size_hint
from src.models.intermediates import watching
from src.models.stem import stem_hint


class Classifier(nn.Module):
    """Normalises on the device, runs the net, names its output."""

    def __init__(self, net: nn.Module, spec: InputSpec) -> None:
        super().__init__()
        self.net = net  # maps float (n, 3, s, s) to (n, 1); a checkpoint holds its state dict
        self.spec = spec  # the preprocessing that travels with the weights
        self.register_buffer("mean", 255 * torch.tensor(spec.mean).view(1, 3, 1, 1), False)
        self.register_buffer("std", 255 * torch.tensor(spec.std).view(1, 3, 1, 1), False)

    def forward(self, batch: Mapping[str, Tensor], *, also: Collection[str] = ()) -> dict[str, Any]:
        """Map a batch to `logit`, float (n,), where positive means fake, and what else is asked.

        Args:
            batch: `pixels`, uint8 (n, s, s, 3) RGB, or float on the same scale where they are
                mixed; in training perhaps `blank`, int64 (n, 4): top, bottom, left, right of a
                rectangle that becomes the mean colour.
            also: names of `INTERMEDIATES` to return as well; a compiled net then runs as if it
                were not. UserError for a net without.
        """
        pixels = self.normalised(batch["pixels"], batch.get("blank"))
        if not also:
            return {"logit": self.net(pixels).squeeze(1)}
        with watching(self.net, also) as seen:
            logit = self.net.forward(pixels).squeeze(1)  # not compiled
        return {"logit": logit, **seen}

    def normalised(self, pixels: Tensor, blank: Tensor | None = None) -> Tensor:
        """Return pixels as the net takes them, float (n, 3, s, s); see `forward`."""
        # A permuted NHWC tensor already lies in memory as channels_last.
        pixels = pixels.permute(0, 3, 1, 2).float()
        pixels = (pixels - self.get_buffer("mean")) / self.get_buffer("std")
        if blank is not None:
            pixels = pixels.masked_fill(in_boxes(blank, pixels.shape[-1])[:, None], 0.0)
        return pixels.contiguous(memory_format=torch.channels_last)


def in_boxes(boxes: Tensor, size: int) -> Tensor:
    """Return which pixels lie in the box of their picture, bool (n, size, size).

    `boxes` are int64 (n, 4): top, bottom, left, right.
    """
    top, bottom, left, right = boxes[:, :, None].unbind(1)
    place = torch.arange(size, device=boxes.device)
    rows = (place >= top) & (place < bottom)
    columns = (place >= left) & (place < right)
    return rows[:, :, None] & columns[:, None, :]


def input_spec(config: ModelConfig, native: Native) -> InputSpec:
    """Fill in what a config leaves open from what the backbone's weights expect."""
    size = config.input.image_size or native.image_size
    return InputSpec(
        image_size=size,
        canvas=round(size / config.input.crop_pct),
        geometry=config.input.geometry,
        interpolation=config.input.interpolation,
        mean=config.input.mean or native.mean,
        std=config.input.std or native.std,
        reencode=config.input.reencode,
        frames=config.frames,
        face=face_spec(config),
        reading=READING,
    )


def build_classifier(config: ModelConfig) -> tuple[Classifier, Native]:
    """Build a model from its config, with random weights, and try it on one empty image.

    Raises:
        UserError: unknown backbone, or one that refuses the image size.
    """
    net, native = build_backbone(config.backbone, config.input.image_size, config.head)
    if config.backbone.grad_checkpointing:
        checkpoint_gradients(net, config.backbone.name)
    spec = input_spec(config, native)
    classifier = Classifier(net, spec)
    classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    size = spec.image_size
    classifier.eval()
    try:
        with torch.inference_mode():
            logit = classifier({"pixels": torch.zeros(1, size, size, 3, dtype=torch.uint8)})
    except Exception as error:  # a net that was not made for this size fails in its own way
        raise UserError(
            f"backbone {config.backbone.name!r} refuses images of {size} px: {error}"
            f"{size_hint(net, size)}{stem_hint(config.backbone)}"
        ) from error
    if logit["logit"].shape != (1,):
        raise UserError(f"backbone {config.backbone.name!r} does not give one logit an image")
    return classifier, native


def count_parameters(module: nn.Module, *, trainable: bool = False) -> int:
    """Return the number of weights, or of those that are trained."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


def measure(config: ModelConfig) -> tuple[int, float, InputSpec]:
    """Count the weights of a model and the work of one image; UserError as `build_backbone`.

    Returns:
        Number of weights; multiply-accumulates of convolutions, linear layers and attention; what
        it sees.
    """
    # Not `no_grad`, under which the counter fails on some modules (torch 2.12).
    with torch.device("meta"), torch.inference_mode():
        net, native = build_backbone(config.backbone, config.input.image_size, config.head)
        net.eval()
        spec = input_spec(config, native)
        with FlopCounterMode(display=False) as counter:
            net(torch.empty(1, 3, spec.image_size, spec.image_size))
    macs = counter.get_total_flops() / 2  # it counts a multiplication and an addition as two
    return count_parameters(net), macs, spec
