"""One optimizer step: the gradients of a batch, in pieces where it does not fit, and the update."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from src.compute import device
from src.compute.pieces import split
from src.config import LossConfig, ModelConfig
from src.errors import UserError
from src.models.feature_terms import wants_features
from src.models.losses import total_loss
from src.training.run import Run

TINY = 1e-12  # keeps a gradient of zero from being divided by


def backward(
    run: Run, batch: dict[str, Tensor], config: ModelConfig, weights: Tensor, share: int
) -> Tensor:
    """Add a batch's gradients, divided by `share`, piece by piece; returns its mean loss.

    A loss that is not finite is returned before its gradients are added.
    """
    if config.optim.sam_rho is not None:
        run.remembered.append((batch, weights, share))
    return _add_gradients(run, batch, config, weights, share)


def optimizer_step(run: Run, config: ModelConfig, step: int) -> bool:
    """Make an optimizer step; False, and none made, where the gradient is not finite."""
    run.scaler.unscale_(run.optimizer)
    if config.optim.sam_rho is not None and not _look_around(run, config, config.optim.sam_rho):
        return False
    limit = config.optim.clip_grad if config.optim.clip_grad is not None else float("inf")
    norm = nn.utils.clip_grad_norm_(run.model.parameters(), limit)
    if not run.scaler.is_enabled() and not torch.isfinite(norm):
        return False  # with fp16 the scaler skips such a step and lowers its scale
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    if run.ema is not None:
        run.ema.update(run.model, step)
    return True


def check_step(config: ModelConfig, precision: str, micro_batch: int, *, compiled: bool) -> None:
    """Check what a step is asked to do against how it is computed.

    Args:
        config: its loss and optimizer.
        precision: fp32, bf16 or fp16.
        micro_batch: images computed at once; 0 for the whole batch.
        compiled: the net was compiled.

    Raises:
        UserError: sharpness-aware steps in fp16, pairs of a batch that comes in pieces, or features
            of a compiled net.
    """
    if config.optim.sam_rho is not None and precision == "fp16":
        raise UserError(
            "optim.sam_rho takes two gradients a step, and the loss scale of fp16 belongs to one: "
            "train with --precision bf16 or fp32"
        )
    if compiled and wants_features(config.loss):
        raise UserError(
            f"--compile: {_terms(config.loss)} look at features that compiled code does not show: "
            "leave --compile out"
        )
    if micro_batch and wants_features(config.loss):
        raise UserError(
            f"--auto-batch: only {micro_batch} of {config.optim.batch_size} images fit at once, "
            f"and {_terms(config.loss)} look at all pairs of a batch: train a variant with "
            f"optim.batch_size={micro_batch} under its own name (--set ... --as NAME)"
        )


def _terms(loss: LossConfig) -> str:
    names = ("supcon", "uniformity", "alignment")
    return " and ".join(f"loss.{name}" for name in names if getattr(loss, name) > 0)


def _add_gradients(
    run: Run, batch: dict[str, Tensor], config: ModelConfig, weights: Tensor, share: int
) -> Tensor:
    count = len(batch["item"])
    asked = wants_features(config.loss) and "features" not in batch
    total = torch.zeros((), device=weights.device)
    for piece in split(batch, run.micro_batch or count):
        with device.autocast(weights.device, run.precision):
            outputs = run.active(piece, features=True) if asked else run.active(piece)
        loss = total_loss(piece, outputs, config.loss, weights) * (len(piece["item"]) / count)
        if not torch.isfinite(loss):
            return loss.detach()
        run.scaler.scale(loss / share).backward()
        total = total + loss.detach()
    return total


def _look_around(run: Run, config: ModelConfig, rho: float) -> bool:
    """Put the gradients at the worst point within `rho` in the place of those at the weights.

    Sharpness-aware minimisation (Foret et al., ICLR 2021, eq. 2 and 3; p = 2), over all batches
    that were added up. Returns False where the loss or a gradient there is not finite.
    """
    remembered, run.remembered = run.remembered, []
    trained = [weight for weight in run.model.parameters() if weight.grad is not None]
    slopes = [weight.grad for weight in trained if weight.grad is not None]
    norm = nn.utils.get_total_norm(slopes)
    if not torch.isfinite(norm):
        return False
    before = [weight.detach().clone() for weight in trained]
    with torch.no_grad():
        for weight, slope in zip(trained, slopes, strict=True):
            weight.add_(slope * (rho / (norm + TINY)))
    run.optimizer.zero_grad(set_to_none=True)
    with _statistics_kept(run.model):
        losses = [
            _add_gradients(run, batch, config, weights, share)
            for batch, weights, share in remembered
        ]
    with torch.no_grad():
        for weight, value in zip(trained, before, strict=True):
            weight.copy_(value)
    return bool(torch.isfinite(torch.stack(losses)).all())


@contextmanager
def _statistics_kept(model: nn.Module) -> Iterator[None]:
    """Normalise by the batch's statistics as in training, but keep no running mean of them.

    Those of the point that a step only looks at do not belong to the weights.
    """
    layers = [m for m in model.modules() if isinstance(m, _NormBase) and m.track_running_stats]
    try:
        for layer in layers:
            layer.track_running_stats = False
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
