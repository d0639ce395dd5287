"""What turns pixels into logits in `predict_views`: eager torch, or an exported file.

A net made ready for inference on a CPU: BatchNorm folded, attention by matrix products.
"""

import copy
import logging
from contextlib import nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from src.compute import device as devices
from src.compute.device import compile_model, eagerly
from src.compute.request import Compute
from src.config import InputSpec
from src.errors import UserError
from src.models.classifier import Classifier

LOG = logging.getLogger("rvf")
ENGINES = ("eager", "onnx", "openvino")
TRIAL_ITEMS = 1000  # fewer are predicted in fp32: nothing is gained that pays for the trial
TRIAL_GAIN = 1.3
TRIAL_ERROR = 0.05  # of the standard deviation of the first batch's logits


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
    engine: str  # one of `ENGINES`
    precision: str  # fp32, bf16, fp16 or int8; empty as long as it is not decided

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


class Trial:
    """Eager on a CPU that computes in bf16: the first batch decides between fp32 and bf16.

    bf16 is taken where it was `TRIAL_GAIN` times faster on that batch and moved no logit by more
    than `TRIAL_ERROR` of their standard deviation. The answer is kept with the checkpoint's
    fingerprint (`sha256`) and the machine, so that a repeat gives the same bytes.
    """

    engine = "eager"

    def __init__(
        self, model: Classifier, sha256: str, what: str, *, compile_it: bool = False
    ) -> None:
        self.spec = model.spec
        self.what = what
        self._case = ["inference", sha256, [*devices.this_machine(), compile_it]]
        self.precision = devices.remembered(self._case)
        ways = [self.precision] if self.precision else ["fp32", "bf16"]
        cpu = torch.device("cpu")
        self._make = {name: Eager(model, cpu, name, compile_it=compile_it) for name in ways}

    def __call__(self, pixels: Tensor) -> Tensor:
        """Map uint8 (n, s, s, 3) to float logits (n,)."""
        if not self.precision:
            self.precision = devices.remembered(self._case, lambda: self._decide(pixels))
            self._make = {self.precision: self._make[self.precision]}
        return self._make[self.precision](pixels)

    def _decide(self, pixels: Tensor) -> str:
        gain, error = self._compare(pixels)
        chosen = "bf16" if gain >= TRIAL_GAIN and error <= TRIAL_ERROR else "fp32"
        LOG.info(
            "%s: predicting in %s: bf16 is %.2f times faster, logits differ by at most %.3f of "
            "their spread on the first %d items (taken at %.1f times and %.2f)",
            self.what, chosen, gain, error, len(pixels), TRIAL_GAIN, TRIAL_ERROR,
        )  # fmt: skip
        return chosen

    def _compare(self, pixels: Tensor) -> tuple[float, float]:
        """Return how much faster bf16 is, and by how much of their spread logits differ."""
        parts = [pixels[:8], *pixels.split(max(1, -(-len(pixels) // 2)))]
        logits: dict[str, dict[int, Tensor]] = {name: {} for name in self._make}

        def run(name: str, number: int) -> None:
            logits[name][number] = self._make[name](parts[number])

        gain = devices.bf16_gain(run, len(parts) - 1)
        bf16, fp32 = (
            torch.cat([logits[k][n] for n in range(1, len(parts))]) for k in ("bf16", "fp32")
        )
        spread = fp32.std(correction=0).clamp_min(1e-6)
        return gain, float((bf16 - fp32).abs().max() / spread)


def engine_for(model: Classifier, sha256: str, name: str, compute: Compute, n_items: int) -> Engine:
    """Return what predicts so many test items with a model, which is on the device already.

    Eager torch, on a CPU in bf16 where that is exact enough. `sha256` is the checkpoint's, `name`
    is for the log.

    Raises:
        UserError: int8, which only exported files have.
    """
    chip, wanted = compute.chip, compute.precision
    if wanted == "int8":
        raise UserError("--precision int8 wants --engine onnx or openvino")
    if wanted == "auto" and chip.type == "cpu" and n_items >= TRIAL_ITEMS and devices.native_bf16():
        return Trial(model, sha256, name, compile_it=compute.compile)
    precision = devices.inference_precision(chip, wanted)
    return Eager(model, chip, precision, compile_it=compute.compile)
