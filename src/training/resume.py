"""What lies on disk of a run already: finished, half done, or of something else.

Keeps the state of a run on disk: after every epoch, now and then within one, at a stop.
"""

import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from src import paths
from src.artifacts.runs import check_checkpoint, check_oof, read_run
from src.compute.clock import in_words
from src.errors import UserError
from src.models import checkpoint
from src.models.weights import Start, sha256_weights
from src.tensor_files import check_file, read_tensors
from src.training import record
from src.training.job import Job
from src.training.run import Run
from src.training.stages import epochs_in_all

_STATE_KEYS = frozenset(
    ("identity", "start", "model", "ema", "optimizer", "scaler", "precision", "epoch", "seconds",
     "history", "best")
)  # fmt: skip
_SOURCES = {"hub": "hub", "file": "file", "none": "random"}


def wanted_start(job: Job) -> dict[str, Any]:
    """Return `source` and `sha256` of the weights that a run must have started from.

    A sha256 of None allows any: without flags a finished or half-done run is recognised although
    the hub or the file is out of reach now.

    Raises:
        UserError: both flags, or no such file.
    """
    options = job.options
    if options.weights is not None and options.no_pretrained:
        raise UserError("--weights and --no-pretrained contradict each other; give one")
    if options.no_pretrained:
        return {"source": "random", "sha256": ""}
    if options.weights is None:
        return {"source": _SOURCES[job.config.backbone.pretrained], "sha256": None}
    check_file(options.weights)
    return {"source": "file", "sha256": sha256_weights(options.weights)}


def is_finished(job: Job, start: dict[str, Any]) -> bool:
    """Tell whether the run is finished.

    A record whose checkpoint or OOF is gone is taken away: its presence means a finished run.

    Raises:
        UserError: a finished run of another config, fold file or start lies there, or files of
            several runs were mixed up.
    """
    path = paths.run_record(*job.names)
    if job.options.overwrite or not path.exists():
        return False
    found = read_run(*job.names)
    record.check_identity(found, record.identity(job, start), path)
    predicted = job.is_refit or paths.oof_csv(*job.names).exists()
    if predicted and paths.checkpoint(*job.names).exists():
        check_checkpoint(found)
        if not job.is_refit:
            check_oof(found)
        paths.run_state(*job.names).unlink(missing_ok=True)  # killed between record and state
        return True
    path.unlink()
    return False


def read_state(job: Job, start: dict[str, Any]) -> dict[str, Any] | None:
    """Read the state of a half-done run; None where there is none, or `--overwrite` was given.

    Raises:
        UserError: a damaged state, one of another config, fold file or start, or of another
            precision than the one asked for.
    """
    path = paths.run_state(*job.names)
    if job.options.overwrite or not path.exists():
        return None
    again = "start this fold again with --overwrite"
    try:
        state = read_tensors(path, sealed=True)
    except UserError as error:
        raise UserError(f"{error}; {again}") from None
    if not isinstance(state, dict) or _STATE_KEYS - set(state):
        raise UserError(f"{path}: not the state of a run; {again}")
    record.check_identity(state["identity"], record.identity(job, start), path)
    wanted = job.options.precision
    if wanted not in ("auto", state["precision"]):
        raise UserError(
            f"{path}: this run was begun in {state['precision']}; go on without --precision, or "
            "start again with --overwrite"
        )
    return state


def take_over(run: Run, state: dict[str, Any], path: Path, device: str) -> None:
    """Go on from a state.

    Args:
        run: freshly made; changed in place.
        state: from `read_state`.
        path: where it was read, for messages.
        device: kind of the device that goes on, `cpu` or `cuda`.

    Raises:
        UserError: it was begun in fp16 on a GPU and there is none now, or does not fit the run.
    """
    again = "or start this fold again with --overwrite"
    if state["precision"] == "fp16" and device != "cuda":
        raise UserError(
            f"{path}: this run was begun in fp16, which wants a GPU; go on where there is one, "
            f"{again}"
        )
    try:
        run.restore(state)
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{path}: does not fit this run ({reason}); {again}") from error


def discard(job: Job) -> None:
    """Take away a run that is trained again, the record first."""
    names = job.names
    for path in (paths.run_record(*names), paths.run_state(*names), paths.oof_csv(*names)):
        path.unlink(missing_ok=True)
    paths.oof_views(*names).unlink(missing_ok=True)
    shutil.rmtree(paths.tensorboard_dir(*names), ignore_errors=True)


LOG = logging.getLogger("rvf")
EVERY_SECONDS = 600.0  # within an epoch: what a power cut may cost
COST_SHARE = 50  # a save is not repeated before this many times its own length has passed
SLOW_DISK = 50e6  # bytes/s, a guess until the first save is measured


@dataclass
class Keeper:
    """Saves a run so that it goes on exactly, and says when it is time to."""

    job: Job  # the run's names and options
    run: Run  # what changes
    start: Start  # where its weights came from
    steps: int  # batches of an epoch

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
