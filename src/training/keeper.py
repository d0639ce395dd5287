"""Keeps the state of a run on disk: after every epoch, now and then within one, at a stop."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from src import paths
from src.models.weights import Start
from src.training import checkpoint
from src.training.clock import in_words
from src.training.job import Job
from src.training.run import Run
from src.training.stages import epochs_in_all

LOG = logging.getLogger("rvf")
EVERY_SECONDS = 600.0  # within an epoch: what a power cut may cost
COST_SHARE = 50  # a save is not repeated before this many times its own length has passed
SLOW_DISK = 50e6  # bytes/s, a guess until the first save is measured


@dataclass
class Keeper:
    """Saves a run so that it goes on exactly, and says when it is time to.

    Attributes:
        job: the run's names and options.
        run: what changes.
        start: where its weights came from.
        steps: batches of an epoch.
    """

    job: Job
    run: Run
    start: Start
    steps: int

    def __post_init__(self) -> None:
        """Guess how long a save takes, until one is measured."""
        self.began = self.saved = time.monotonic()
        # Weights, their mean, and two moments of an optimizer.
        self.cost = 4 * _bytes(self.run.model.state_dict()) / SLOW_DISK
        self.job.options.clock.keep_back(self.cost)

    def begin_epoch(self) -> None:
        """Start the stopwatch of an epoch, or of the rest of one."""
        self.began = time.monotonic() - self.run.spent

    def end_epoch(self) -> float:
        """Return the seconds that the epoch took, with its evaluation."""
        taken = time.monotonic() - self.began
        self.job.options.clock.epoch_seconds = taken
        return taken

    def after_step(self) -> bool:
        """Save where it is time to; called between two steps. Returns whether to stop."""
        if self.job.options.clock.wanted():
            return True
        if time.monotonic() - self.saved > max(EVERY_SECONDS, COST_SHARE * self.cost):
            self.save()
        return False

    def save(self) -> None:
        """Write the state; within an epoch, with the seconds spent in it."""
        now = time.monotonic()
        self.run.spent = now - self.began if self.run.batch else 0.0
        state = self.run.state(self.job, self.start)
        checkpoint.save_state(paths.run_state(*self.job.names), state)
        self.saved = time.monotonic()
        self.cost = self.saved - now
        self.job.options.clock.keep_back(2 * self.cost)

    def stop(self) -> None:
        """Save, say what is left to do, and raise what ends the command."""
        run, epochs = self.run, epochs_in_all(self.run, self.job)
        self.save()
        done = run.epoch + run.batch / self.steps
        each = (run.seconds + run.spent) / done if done else 0.0
        LOG.info(
            "saved in epoch %d of %d after batch %d of %d; about %s an epoch, %s of training left",
            run.epoch + 1, epochs, run.batch, self.steps, in_words(each),
            in_words(each * (epochs - done)),
        )  # fmt: skip
        self.job.options.clock.leave()


def _bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
