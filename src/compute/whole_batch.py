"""BatchNorm over the whole batch where several ranks have a part of it each.

No layer is exchanged: hooks around each one bring the ranks' statistics together while it trains,
and a checkpoint, a mean of weights or a merge finds the layers and keys that it knows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules._functions import SyncBatchNorm
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from src.compute import ranks


def share_statistics(model: nn.Module) -> None:
    """Let the BatchNorm layers of a model, in training mode, see what all ranks see; for good.

    Copies of the model that are made later (a mean of its weights) do so too.
    """
    if ranks.count() == 1:
        return
    for layer in model.modules():
        if isinstance(layer, _BatchNorm):
            layer.register_forward_pre_hook(_enter)
            layer.register_forward_hook(_leave, always_call=True)


_MODES: list[TorchFunctionMode] = []  # of the layer that is at work


def _enter(layer: nn.Module, _: Any) -> None:  # noqa: ANN401
    if layer.training and ranks.count() > 1:
        _MODES.append(_WholeBatch())
        _MODES[-1].__enter__()


def _leave(layer: nn.Module, _: Any, __: Any) -> None:  # noqa: ANN401
    if layer.training and ranks.count() > 1:
        _MODES.pop().__exit__(None, None, None)


class _WholeBatch(TorchFunctionMode):
    """Puts a normalisation by the statistics of all ranks in the place of one by a rank's own."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        given = dict(kwargs or {})
        if func is functional.batch_norm and (args[5:6] or [given.get("training")])[0]:
            return _normalised(*args, **given)
        return func(*args, **given)


def _normalised(
    pixels: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = True,  # noqa: ARG001 - the signature of torch
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Return what `batch_norm` does of the batch of all ranks, of which `pixels` is a part."""
    if pixels.device.type == "cuda" and not torch.compiler.is_compiling():  # else what is below
        return SyncBatchNorm.apply(
            pixels, weight, bias, running_mean, running_var, eps, momentum,
            ranks.tensor_group(), ranks.count(),
        )  # fmt: skip
    across = [0, *range(2, pixels.ndim)]
    wide = [1, -1] + [1] * (pixels.ndim - 2)
    found = pixels.float()
    own = found.new_full((1,), found.numel() / found.shape[1])
    total = _Summed.apply(torch.cat([found.sum(across), own]))
    number = total[-1].detach()
    mean = total[:-1] / number
    centered = found - mean.view(wide)
    var = _Summed.apply(centered.square().sum(across)) / number
    if running_mean is not None and running_var is not None:
        with torch.no_grad():  # as torch: the variance that is kept is the unbiased one
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * number / (number - 1)).to(running_var.dtype), momentum)
    out = centered * (var + eps).rsqrt().view(wide)
    if weight is not None:
        out = out * weight.view(wide)
    if bias is not None:
        out = out + bias.view(wide)
    return out.to(pixels.dtype)


class _Summed(torch.autograd.Function):
    """A sum over ranks, through which gradients flow: they are summed, too."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:  # noqa: ANN401, ARG004
        return ranks.summed(own.clone())

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:  # noqa: ANN401, ARG004
        return ranks.summed(slopes[0].contiguous().clone())
