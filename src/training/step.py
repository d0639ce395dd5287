"""One optimizer step: the gradients of batches, in pieces where they do not fit, and the update."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from src.compute import device, ranks
from src.compute.late import at_once
from src.compute.memory import split
from src.config import ModelConfig
from src.distillation import DISTIL, asked_of
from src.errors import UserError
from src.losses import asked_terms, total_loss
from src.training.auxiliary import at_size
from src.training.run import Run

TINY = 1e-12  # keeps a gradient of zero from being divided by
Batch = dict[str, Tensor]


def shown(run: Run, batch: Batch) -> dict[str, Any]:
    """Return what the net of a run shows of a batch: all that the loss and its terms look at."""
    asked = {name for one in run.at_work for name in one.wants}
    if asked_terms(run.job.config.loss) and run.current.trains_body:
        asked.add("features")
    if run.current.features is None:
        batch = at_size(batch, run.model.spec.image_size)
    with device.autocast(batch["item"].device, run.precision):
        found = run.active(batch, also=sorted(asked)) if asked else run.active(batch)
    for one in run.at_work:
        found["logit"] = one.logit(found)
    return found


def loss_and_terms(
    run: Run, batch: Batch, outputs: dict[str, Any], class_weights: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of a batch, of which `shown` are the outputs, and the terms in it by name.

    `class_weights`, float (2,), are those of real and of fake.
    """
    loss, terms = total_loss(batch, outputs, run.job.config.loss, class_weights), {}
    for one in run.at_work:
        loss = loss * one.labels
    for one in run.at_work:
        terms |= one(batch, outputs, partial(shown, run))
    return loss + sum(term.mean() for term in terms.values()), terms


class BatchLoss(nn.Module):
    """The loss of a batch as a module, with all that has a gradient of it: for `ranks.reducing`."""

    def __init__(self, run: Run, loss: Callable[[Batch], Tensor]) -> None:
        super().__init__()
        self.active, self.others = run.active, nn.ModuleList(run.at_work)
        self.loss = loss

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss of this rank's part of a batch."""
        return self.loss(batch)


class Step:
    """One optimizer step: `add` the gradients of each of its batches, then `make` it.

    Of several ranks each adds those of its part of a batch; the last call brings them together.

    Args:
        run: what is trained.
        loss: returns the mean loss of a batch, or of a piece of one.
        share: batches that the step adds up.
    """

    def __init__(self, run: Run, loss: Callable[[Batch], Tensor], share: int) -> None:
        self.run, self.loss, self.share = run, loss, share
        self.optim, self.number, self.reads = run.current.optim, 0, True
        self.added: list[Batch] = []  # kept with `sam_rho` alone, which looks at them twice

    def add(self, batch: Batch) -> Tensor:
        """Add a batch's gradients, divided by `share`, piece by piece; returns its mean loss.

        Of several ranks, what this one's items have in it. A loss that is not finite is returned
        before its gradients are added, where nobody waits for them and looking at it costs nothing;
        else they are not finite either.
        """
        self.number, self.reads = self.number + 1, at_once(batch["item"].device)
        if self.optim.sam_rho is not None:
            self.added.append(batch)
        return self._add(batch, last=self.number == self.share)

    def make(self, number: int) -> Tensor | bool:
        """Make the step of this number in its stage; False, and none made, without a finite slope.

        Where looking at it would cost time it is a flag on the device, and the step is left out
        there. With fp16 the scaler skips such a step and lowers its scale.
        """
        run, rho, limit = self.run, self.optim.sam_rho, self.optim.clip_grad
        run.scaler.unscale_(run.optimizer)
        if rho is not None and not self._look_around(rho):
            return False
        limit = float("inf") if limit is None else limit
        norm = nn.utils.clip_grad_norm_(run.weights(), limit)
        fine: Tensor | bool = True
        if not run.scaler.is_enabled():
            fine = torch.isfinite(norm)
            # As a scaler asks of optimizers that can look at such a flag on the device.
            if not self.reads and getattr(run.optimizer, "_step_supports_amp_scaling", False):
                run.optimizer.found_inf = (~fine).float()  # type: ignore[attr-defined]
            elif not fine:
                return False
        run.scaler.step(run.optimizer)
        run.scaler.update()
        run.optimizer.zero_grad(set_to_none=True)
        if run.ema is not None:
            # As far back along the schedule as the config says, at whatever pace it is made.
            run.ema.decay = (self.optim.ema_decay or 0.0) ** run.pace
            run.ema.update(run.model, number)
        return fine

    def _add(self, batch: Batch, *, last: bool) -> Tensor:
        own, together = len(batch["item"]), ranks.count()
        count = own if together == 1 else self.run.job.config.optim.batch_size
        total = torch.zeros((), device=batch["item"].device)
        # As many pieces for every rank, whose BatchNorm layers wait for each other, and none empty.
        largest, least = math.ceil(count / together), count // together
        pieces = min(least, math.ceil(largest / (self.run.micro_batch or largest)))
        for number, piece in enumerate(split(batch, pieces), 1):
            with self._alone(together > 1 and not (last and number == pieces)):
                loss = self.loss(piece) * (len(piece["item"]) / count)
                if together == 1 and self.reads:
                    if not torch.isfinite(loss):
                        return loss.detach()
                else:  # else 1: what is not finite must be seen in the gradients
                    loss = loss * (1 + 0 * loss.detach())
                # The ranks' gradients are averaged, and each is a part of the batch's.
                whole = loss * together if together > 1 else loss
                self.run.scaler.scale(whole / self.share).backward()
            total = total + loss.detach()
        return total

    def _alone(self, alone: bool) -> AbstractContextManager[object]:
        """Return a context in which gradients are kept for oneself, where that is wanted."""
        return self.loss.no_sync() if alone else nullcontext()  # type: ignore[attr-defined]

    def _look_around(self, rho: float) -> bool:
        """Put the gradients at the worst point within `rho` in the place of those at the weights.

        Sharpness-aware minimisation (Foret et al., ICLR 2021, eq. 2 and 3; p = 2), over all batches
        that were added up. Returns False where the loss or a gradient there is not finite.
        """
        model = self.run.model
        trained = [weight for weight in self.run.weights() if weight.grad is not None]
        slopes = [weight.grad for weight in trained if weight.grad is not None]
        norm = nn.utils.get_total_norm(slopes)
        if self.reads and not torch.isfinite(norm):
            return False
        before = [weight.detach().clone() for weight in trained]
        with torch.no_grad():
            for weight, slope in zip(trained, slopes, strict=True):
                weight.add_(slope * (rho / (norm + TINY)))
        self.run.optimizer.zero_grad(set_to_none=True)
        with _statistics_kept(model):
            places = range(1, len(self.added) + 1)
            losses = [
                self._add(batch, last=place == self.share)
                for place, batch in zip(places, self.added, strict=True)
            ]
        with torch.no_grad():
            for weight, value in zip(trained, before, strict=True):
                weight.copy_(value)
        alone = self.reads and ranks.count() == 1  # else the gradients tell
        return not alone or bool(torch.isfinite(torch.stack(losses)).all())


def check_step(config: ModelConfig, precision: str, micro_batch: int, *, compiled: bool) -> None:
    """Check what a step is asked to do against how it is computed (`micro_batch` images at once).

    Raises:
        UserError: sharpness-aware steps in fp16, pairs of a batch that comes in pieces, or features
            of a compiled net.
    """
    if config.optim.sam_rho is not None and precision == "fp16":
        raise UserError(
            "optim.sam_rho takes two gradients a step, and the loss scale of fp16 belongs to one: "
            "train with --precision bf16 or fp32"
        )
    distil = {} if config.distil is None else asked_of(config.distil)
    terms = [f"loss.{name}" for name in asked_terms(config.loss)]
    inside = [f"distil.{n}" for n, one in distil.items() if DISTIL.get(n).needed(one) != "logit"]
    others = ("language", "simclr", "localise")
    inside += [name for name in others if getattr(config, name) is not None]
    if compiled and (terms or inside):
        raise UserError(
            f"--compile: {' and '.join([*terms, *inside])} look at features that compiled code "
            "does not show: leave --compile out"
        )
    pairs = [
        *terms,
        *(f"distil.{n}" for n, one in distil.items() if DISTIL.get(n).wants_whole(one)),
    ]
    pairs += ["simclr"] if config.simclr is not None else []
    if config.localise is not None:
        pairs += [f"localise.{n}" for n in ("intra", "clip") if getattr(config.localise, n)]
    if ranks.count() > 1 and pairs:
        raise UserError(
            f"{ranks.count()} ranks: {' and '.join(pairs)} look at all pairs of a batch, of which "
            "each rank sees a part: train this model in one process (without torchrun or --ddp)"
        )
    if micro_batch and pairs:
        raise UserError(
            f"--auto-batch: only {micro_batch} of {config.optim.batch_size} images fit at once, "
            f"and {' and '.join(pairs)} look at all pairs of a batch: train a variant with "
            f"optim.batch_size={micro_batch} under its own name (--set ... --as NAME)"
        )


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
