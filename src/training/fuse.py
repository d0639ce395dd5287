"""A net made ready for inference on a CPU: BatchNorm folded, attention by matrix products."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

MOST_TOKENS = 400  # above it the attention matrix of a batch no longer fits the cache
_TOLERANCE = 1e-4  # of a logit; rounding alone moved them by 1e-6


def fused(net: nn.Module, image_size: int, *, plain_attention: bool) -> nn.Module:
    """Return a copy of a net that computes the same faster on a CPU, in eval mode.

    BatchNorm behind a convolution becomes part of it. timm's attention is done as two matrix
    products where that is wanted: torch's fused kernel saves memory, and on a CPU in bf16 it is
    slower. The copy is held against the net on two random images, and the net itself is returned
    where they differ (children that are not called in the order they are listed).

    Args:
        net: maps float (n, 3, s, s) to (n, 1); not changed.
        image_size: s, pixels.
        plain_attention: do without the fused attention kernel.
    """
    copied = copy.deepcopy(net).eval()
    changes = _fold(copied)
    if plain_attention and _tokens(net) <= MOST_TOKENS:
        changes += _unfuse_attention(copied)
    if not changes:
        return net
    copied = copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return copied if _same(net, copied, image_size) else net


def _fold(module: nn.Module) -> int:
    """Fold every BatchNorm into the convolution listed just before it; returns how many."""
    count = 0
    before: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        if before is not None and _fit(before[1], child):
            setattr(module, before[0], fuse_conv_bn_eval(before[1], child))  # type: ignore[type-var]
            # timm's BatchNormAct2d goes on with an activation.
            rest = [getattr(child, part, nn.Identity()) for part in ("drop", "act")]
            setattr(module, name, nn.Sequential(*rest))
            count += 1
            before = None
            continue
        count += _fold(child)
        before = (name, child)
    return count


def _fit(first: nn.Module, second: nn.Module) -> bool:
    return (
        isinstance(first, nn.Conv2d)
        and isinstance(second, nn.BatchNorm2d)
        and second.running_mean is not None
        and first.out_channels == second.num_features
    )


def _tokens(net: nn.Module) -> int:
    """Return how many patches a vision transformer looks at; 0 for other nets."""
    return int(getattr(getattr(net, "patch_embed", None), "num_patches", 0))


def _unfuse_attention(net: nn.Module) -> int:
    found = [module for module in net.modules() if getattr(module, "fused_attn", False) is True]
    for module in found:
        module.fused_attn = False  # type: ignore[assignment]
    return len(found)


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
