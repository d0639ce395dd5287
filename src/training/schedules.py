"""Schedules by name: the learning rate of every step of a stage."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from src.config import OptimConfig
from src.registry import Registry

ONE_CYCLE_RISE = 0.3  # share of the steps; both are torch's defaults
ONE_CYCLE_START = 25.0  # the peak over the first learning rate
GAIN = 1e-4  # relative: what counts as a gain to `plateau`, torch's default


class Schedule(ABC):
    """The learning rate of every step of a stage.

    Args:
        config: lr, min_lr, warmup_epochs, decay_epochs and decay_rate are read.
        steps: of the whole stage.
        steps_per_epoch: to turn epochs into steps.
    """

    def __init__(self, config: OptimConfig, steps: int, steps_per_epoch: int) -> None:
        self.config = config
        self.steps = steps
        self.steps_per_epoch = steps_per_epoch
        self.low = min(config.min_lr, config.lr)
        self.warmup = min(round(config.warmup_epochs * steps_per_epoch), steps - 1)

    @abstractmethod
    def lr(self, step: int) -> float:
        """Return the learning rate of a step, of a group of scale 1.

        Args:
            step: 0-based, over the whole stage.
        """

    def after_epoch(self, score: float) -> None:  # noqa: B027 - most have no use for it
        """Take note of an epoch's score on the held-out items, higher is better."""

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs to go on exactly: plain numbers."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027 - most have no state
        """Take over what `state` returned."""


class Warmed(Schedule):
    """Linear warmup, then what a subclass says."""

    def lr(self, step: int) -> float:  # noqa: D102 - as promised above
        if step < self.warmup:
            return self.config.lr * (step + 1) / (self.warmup + 1)
        return self.after_warmup(step)

    @abstractmethod
    def after_warmup(self, step: int) -> float:
        """Return the learning rate of a step that is past the warmup."""


SCHEDULES: Registry[Callable[[OptimConfig, int, int], Schedule]] = Registry("schedule")


def make_schedule(config: OptimConfig, steps: int, steps_per_epoch: int) -> Schedule:
    """Make the schedule that a config names.

    Args:
        config: how the stage is optimised.
        steps: batches of the whole stage.
        steps_per_epoch: batches of an epoch.

    Raises:
        UserError: no schedule is called that.
    """
    return SCHEDULES.get(config.schedule)(config, steps, steps_per_epoch)


@SCHEDULES.register("cosine")
class Cosine(Warmed):
    """Half a cosine from `lr` to `min_lr` (Loshchilov and Hutter 2017, eq. 5, one period)."""

    def after_warmup(self, step: int) -> float:
        """Return the learning rate of a step that is past the warmup."""
        share = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.low + 0.5 * (self.config.lr - self.low) * (1 + math.cos(math.pi * share))


@SCHEDULES.register("constant")
class Constant(Warmed):
    """The same learning rate for every step."""

    def after_warmup(self, step: int) -> float:  # noqa: ARG002
        """Return the learning rate of a step that is past the warmup."""
        return self.config.lr


@SCHEDULES.register("step")
class Step(Warmed):
    """A cut by `decay_rate` every `decay_epochs` epochs of the stage, down to `min_lr`."""

    def after_warmup(self, step: int) -> float:
        """Return the learning rate of a step that is past the warmup."""
        cuts = step // self.steps_per_epoch // self.config.decay_epochs
        return max(self.low, self.config.lr * self.config.decay_rate**cuts)


@SCHEDULES.register("plateau")
class Plateau(Warmed):
    """A cut by `decay_rate` when the held-out score has stood still, down to `min_lr`.

    As torch's `ReduceLROnPlateau(mode="max", patience=decay_epochs)`: that many epochs without a
    gain are borne, the next one cuts.
    """

    def __init__(self, config: OptimConfig, steps: int, steps_per_epoch: int) -> None:
        super().__init__(config, steps, steps_per_epoch)
        self.best = -math.inf
        self.waited = 0
        self.cuts = 0

    def after_warmup(self, step: int) -> float:  # noqa: ARG002
        """Return the learning rate of a step that is past the warmup."""
        return max(self.low, self.config.lr * self.config.decay_rate**self.cuts)

    def after_epoch(self, score: float) -> None:
        """Count the epochs without a gain; cut when there are too many."""
        if score > self.best + GAIN * abs(self.best) or math.isinf(self.best):
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.waited > self.config.decay_epochs:
            self.cuts, self.waited = self.cuts + 1, 0

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs to go on exactly: plain numbers."""
        return {"best": self.best, "waited": self.waited, "cuts": self.cuts}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self.best, self.waited, self.cuts = state["best"], state["waited"], state["cuts"]


@SCHEDULES.register("one_cycle")
class OneCycle(Schedule):
    """Up to `lr` over the first 30 % of the steps, then down to `min_lr`, both on half a cosine.

    Smith and Topin 2018 ("Super-convergence"), as in torch's `OneCycleLR`. It is a warmup, so
    `warmup_epochs` is not read.
    """

    def lr(self, step: int) -> float:
        """Return the learning rate of a step, of a group of scale 1."""
        peak = self.config.lr
        top = max(ONE_CYCLE_RISE * self.steps - 1, 1e-9)
        if step <= top:
            return _half_cosine(peak / ONE_CYCLE_START, peak, step / top)
        return _half_cosine(peak, self.low, (step - top) / max(1e-9, self.steps - 1 - top))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
