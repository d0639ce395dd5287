"""What turns pixels into logits in `predict_views`, and the first of it: eager torch.

A net made ready for inference on a CPU: BatchNorm folded, attention by matrix products.
"""

import copy
from contextlib import nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from src.compute import device as devices
from src.compute.device import compile_model, eagerly
from src.config import InputSpec
from src.models.classifier import Classifier

ENGINES = ("eager", "onnx", "openvino")
MOST_TOKENS = 400  # above it the attention matrix of a batch no longer fits the cache
_TOLERANCE = 1e-4  # of a logit; rounding alone moved them by 1e-6


def fused(net: nn.Module, image_size: int, *, plain_attention: bool) -> nn.Module:
    """Return a copy of a net that computes the same faster on a CPU, in eval mode.

    BatchNorm behind a convolution becomes part of it. With `plain_attention` timm's attention is
    done as two matrix products: torch's fused kernel saves memory, and on a CPU in bf16 it is
    slower. The copy is held against the net, (n, 3, s, s) to (n, 1), on two random images, and the
    net itself is returned where they differ (children not called in the order they are listed).
    """
    copied = copy.deepcopy(net).eval()
    changes = _fold(copied)
    tokens = getattr(getattr(net, "patch_embed", None), "num_patches", 0)  # of a transformer
    if plain_attention and tokens <= MOST_TOKENS:
        for module in copied.modules():
            if getattr(module, "fused_attn", False) is True:
                module.fused_attn = False  # type: ignore[assignment]
                changes += 1
    if not changes:
        return net
    copied = copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return copied if _same(net, copied, image_size) else net


def _fold(module: nn.Module) -> int:
    """Fold every BatchNorm into the convolution listed just before it; returns how many."""
    count = 0
    before: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        if (
            before is not None
            and isinstance(before[1], nn.Conv2d)
            and isinstance(child, nn.BatchNorm2d)
            and child.running_mean is not None
            and before[1].out_channels == child.num_features
        ):
            setattr(module, before[0], fuse_conv_bn_eval(before[1], child))
            # timm's BatchNormAct2d goes on with an activation.
            rest = [getattr(child, part, nn.Identity()) for part in ("drop", "act")]
            setattr(module, name, nn.Sequential(*rest))
            count += 1
            before = None
            continue
        count += _fold(child)
        before = (name, child)
    return count


def _same(net: nn.Module, other: nn.Module, size: int) -> bool:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, size, size, generator=generator)
    images = images.contiguous(memory_format=torch.channels_last)
    training = net.training
    net.eval()
    with torch.inference_mode():
        want: Tensor = net(images)
        try:
            got = other(images)
        except Exception:  # noqa: BLE001 - a net that looks into its BatchNorm fails in its own way
            return False
        finally:
            net.train(training)
    return bool((got - want).abs().max() <= _TOLERANCE * (1 + want.abs().max()))


class Engine(Protocol):
    """Looks at pixels."""

    spec: InputSpec  # preprocessing of the pixels it takes

    @property
    def engine(self) -> str:
        """One of `ENGINES`."""
        ...

    @property
    def precision(self) -> str:
        """fp32, bf16, fp16 or int8; empty as long as it is not decided."""
        ...

    def __call__(self, pixels: Tensor) -> Tensor:
        """Map uint8 (n, s, s, 3) on the engine's device to float logits (n,)."""
        ...


class Eager:
    """A model, put in eval mode, run by torch; on a CPU a copy of it with BatchNorm folded."""

    engine = "eager"

    def __init__(
        self, model: Classifier, device: torch.device, precision: str, *, compile_it: bool = False
    ) -> None:
        self.spec, self.device, self.precision = model.spec, device, precision
        model.train().eval()  # some nets (LeViT) cache in eval mode what only train() clears
        self.model = model
        if device.type == "cpu":
            net = fused(model.net, model.spec.image_size, plain_attention=precision == "bf16")
            if net is not model.net:
                self.model = Classifier(net, model.spec).eval()
        if compile_it:
            compile_model(self.model, device, precision, "this net")
        # A net that is being trained with --compile is still scored eagerly.
        self.set_aside = not compile_it and self.model.net._compiled_call_impl is not None

    def __call__(self, pixels: Tensor) -> Tensor:
        """Map uint8 (n, s, s, 3) to float logits (n,)."""
        way = eagerly() if self.set_aside else nullcontext()
        with way, devices.autocast(self.device, self.precision):
            return self.model({"pixels": pixels})["logit"].float()
