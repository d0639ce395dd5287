"""One optimizer step: the gradients of a batch, in pieces where it does not fit, and the update."""

import torch
from torch import Tensor, nn

from src.config import ModelConfig
from src.models.losses import LOSSES
from src.training import device
from src.training.autobatch import split
from src.training.run import Run


def backward(
    run: Run, batch: dict[str, Tensor], config: ModelConfig, weights: Tensor, share: int
) -> Tensor:
    """Add a batch's gradients, divided by `share`, piece by piece; returns its mean loss.

    A loss that is not finite is returned before its gradients are added.
    """
    loss_of, count = LOSSES.get(config.loss.name), len(batch["item"])
    total = torch.zeros((), device=weights.device)
    for piece in split(batch, run.micro_batch or count):
        with device.autocast(weights.device, run.precision):
            outputs = run.model(piece)
        loss = loss_of(piece, outputs, config.loss, weights) * (len(piece["item"]) / count)
        if not torch.isfinite(loss):
            return loss.detach()
        run.scaler.scale(loss / share).backward()
        total = total + loss.detach()
    return total


def optimizer_step(run: Run, config: ModelConfig, step: int) -> bool:
    """Make an optimizer step; False, and none made, where the gradient is not finite."""
    run.scaler.unscale_(run.optimizer)
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
