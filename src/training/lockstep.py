"""The ranks of a run in lockstep: they step, save, stop and fail together. Alone it is one of one.

What one of them knows (a signal, an hour that is over, a pace, a loss that is not finite) all of
them heed at the same step.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from src.compute import ranks
from src.compute.late import Late
from src.seeds import derive_seed
from src.training import sums
from src.training.run import Run
from src.training.step import Batch, BatchLoss, Step
from src.training.together import not_finite

if TYPE_CHECKING:
    from src.training.resume import StateFile

Seen = list[tuple[Tensor, Tensor]]  # loss, () and rows, int64 (n,), of each batch of a step


class Lockstep:
    """What the ranks of a run agree on, step by step.

    Args:
        run: what is trained.
        chip: the device.
    """

    def __init__(self, run: Run, chip: torch.device) -> None:
        self.run, self.chip, self.clock = run, chip, run.job.options.clock
        self.batch_size = run.job.config.optim.batch_size
        self._pulse, self._late = ranks.Pulse(3), Late[Seen]()
        self._since = 0  # batches of the epoch that the sums are of all ranks' items
        self._trained: set[int] = set()
        self._objective: Callable[[Batch], Tensor] | None = None

    def objective(self, loss: Callable[[Batch], Tensor]) -> Callable[[Batch], Tensor]:
        """Return a loss whose backward pass brings the gradients of all ranks together."""
        if ranks.count() == 1:
            return loss
        run = self.run
        trained = {id(weight) for weight in run.weights() if weight.requires_grad}
        trained.add(id(run.active))
        if trained != self._trained or self._objective is None:
            self._objective, self._trained = ranks.reducing(BatchLoss(run, loss)), trained
        return self._objective

    def seed(self, *words: str | int) -> None:
        """Seed torch's generator for what words say; other ranks than 0 draw otherwise."""
        own = (ranks.rank(),) if ranks.rank() else ()
        torch.manual_seed(derive_seed(self.run.job.config.seed, self.run.job.fold, *words, *own))

    def begin_sums(self) -> None:
        """Go on with the sums of the epoch."""
        sums.begin(self.run, self.chip)
        self._since = self.run.batch

    def running(self) -> dict[str, float]:
        """Return the scores of the epoch's training items so far, of ranks by this one's items."""
        size = self.batch_size
        part = ranks.own_share().of(size)
        own = (part.stop - part.start) / size
        seen = self._since + (self.run.batch - self._since) * own
        return sums.running(self.run, size, seen)

    def check(self, step: Step, made: Tensor | bool, seen: Seen) -> None:
        """Check that a step was of finite numbers; on a card, that one of some steps ago was.

        Raises:
            UserError: it was not, and no step was made with it; names the items.
        """
        if step.reads:
            if not made:
                raise not_finite(self.run.job, self.run.epoch + 1, seen)
            return
        fine = torch.stack([torch.isfinite(loss) for loss, _ in seen]).all()
        if self.run.scaler.is_enabled():  # else the gradients, equal on all ranks, tell
            fine = ranks.summed((~fine).float()) == 0
        self._late.note(~(fine & made), seen)
        self._check_late()

    def after_step(self, state: "StateFile", pace: float) -> bool:
        """Tell the others what this rank knows; save where it is time to. Returns whether to stop.

        `pace` is what the run is to go on at, if the leading rank says so.
        """
        told = pace if pace != self.run.pace else 0.0
        due = float(ranks.leads() and state.is_due())
        return self._heed(state, *self._pulse.beat(self.clock.call(), due, told))

    def end_epoch(self, state: "StateFile") -> dict[str, float]:
        """Hear the rest, and return the scores of the epoch's training items."""
        self._heed(state, *self._pulse.rest())
        self._check_late(every=True)
        sums.bring_together(self.run)
        return sums.running(self.run, self.batch_size, self.run.batch)

    def is_stopped(self) -> bool:
        """Tell whether a stop was asked for, of whichever rank, or the time is over."""
        call = max(ranks.gathered(self.clock.call()))
        self.clock.heed(call)
        return bool(call)

    def _heed(self, state: "StateFile", call: float, due: float, pace: float) -> bool:
        self.clock.heed(int(call))
        self.run.pace = pace or self.run.pace
        if due and not call:
            self._check_late(every=True)
            sums.bring_together(self.run)
            state.save()
            self.begin_sums()
        return bool(call)

    def _check_late(self, *, every: bool = False) -> None:
        seen = self._late.raised(every=every)
        if seen is not None:
            raise not_finite(self.run.job, self.run.epoch + 1, seen)
