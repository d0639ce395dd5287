"""What lies on disk of a run: finished, half done, or of something else; and its state, kept there.

The state is saved after every epoch, now and then within one, and at a stop.
"""

import logging
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from src import paths
from src.artifacts.runs import check_checkpoint, check_oof, read_run
from src.compute import ranks
from src.compute.clock import in_words
from src.errors import UserError
from src.models import checkpoint
from src.models.weights import Start, sha256_weights
from src.tensor_files import check_file, read_tensors
from src.training.job import Job
from src.training.run import COUNTS, SUMS, Run

LOG = logging.getLogger("rvf")
EVERY_SECONDS = 600.0  # within an epoch: what a power cut may cost
COST_SHARE = 50  # a save is not repeated before this many times its own length has passed
SLOW_DISK = 50e6  # bytes/s, a guess until the first save is measured
AGAIN = "start this fold again with --overwrite"
_STATE_KEYS = {
    *("identity", "start", "model", "optimizer", "scaler", "schedule", "terms"),
    *COUNTS,
    *SUMS,
}


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
        source = job.config.backbone.pretrained
        return {"source": "random" if source == "none" else source, "sha256": None}
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
    check_identity(found, job.identity(start), path)
    predicted = job.is_refit or paths.oof_csv(*job.names).exists()
    if predicted and paths.checkpoint(*job.names).exists():
        check_checkpoint(found)
        if not job.is_refit:
            check_oof(found)
        paths.run_state(*job.names).unlink(missing_ok=True)  # killed between record and state
        return True
    path.unlink()
    return False


def check_identity(found: dict[str, Any], want: dict[str, Any], path: Path) -> None:
    """Raise a UserError that says what differs between a run on disk and the one asked for.

    `found` is a record or the identity in a state, read from `path`; `want` is a `Job.identity`, of
    which a start whose sha256 is None may be any of its source.
    """
    _check_words(found, path)
    differs = []
    if found["config_sha256"] != want["config_sha256"]:
        differs.append("the model's config has changed since")
    if found["folds_sha256"] != want["folds_sha256"]:
        differs.append("the fold file has changed since")
    elif found["data_sha256"] != want["data_sha256"]:
        differs.append("files of the data set have changed since (their sizes differ)")
    if found.get("pseudo") != want["pseudo"]:
        differs.append(
            "its pseudo-labels have changed since (the recipe, or its members' test predictions)"
        )
    if want["teachers"] is not None and found.get("teachers") != want["teachers"]:
        differs.append("its teachers have changed since")
    differs += _of_its_folds(found, want)
    if found.get("merged_from") is not None:
        differs.append("it was merged from others, not trained")
    began, wanted = found["start"], want["start"]
    same_file = wanted["sha256"] in (None, began["sha256"])
    if began["source"] != wanted["source"] or not same_file:
        differs.append(
            f"it started from other weights ({began['source']}, asked for: {wanted['source']})"
        )
    if differs:
        raise UserError(
            f"{path} is of another run: {'; '.join(differs)}. Train it again with --overwrite, or "
            "give the variant its own name (--as NEW_NAME, or a new config file)"
        )


def _of_its_folds(found: dict[str, Any], want: dict[str, Any]) -> list[str]:
    """Return what differs in what a refit borrows from its folds."""
    differs = []
    if found.get("stop_after") != want["stop_after"]:
        differs.append(
            f"the mean of the folds' kept epochs was {found.get('stop_after')}, now "
            f"{want['stop_after']}"
        )
    if found.get("paces") != want["paces"]:
        differs.append("its folds make another number of epochs now")
    return differs


def _check_words(found: Any, path: Path) -> None:  # noqa: ANN401 - whatever a file held
    start = found.get("start") if isinstance(found, dict) else None
    prints = ("config_sha256", "data_sha256", "folds_sha256")
    words = [
        *(found.get(key) for key in prints if isinstance(found, dict)),
        *(start.get(key) for key in ("source", "sha256") if isinstance(start, dict)),
    ]
    if len(words) != 5 or not all(isinstance(word, str) for word in words):
        raise UserError(
            f"{path}: does not say what it was trained from (damaged?); train it again with "
            "--overwrite"
        )


def read_state(job: Job, start: dict[str, Any]) -> dict[str, Any] | None:
    """Read the state of a half-done run; None where there is none, or `--overwrite` was given.

    Raises:
        UserError: a damaged state, one of another config, fold file or start, or of another
            precision than the one asked for.
    """
    path = paths.run_state(*job.names)
    if job.options.overwrite or not path.exists():
        return None
    try:
        state = read_tensors(path, sealed=True)
    except UserError as error:
        raise UserError(f"{error}; {AGAIN}") from None
    if not isinstance(state, dict) or _STATE_KEYS - set(state):
        raise UserError(f"{path}: not the state of a run; {AGAIN}")
    check_identity(state["identity"], job.identity(start), path)
    wanted = job.options.precision
    if wanted not in ("auto", state["precision"]):
        raise UserError(
            f"{path}: this run was begun in {state['precision']}; go on without --precision, or "
            "start again with --overwrite"
        )
    return state


def take_over(run: Run, state: dict[str, Any], device: str) -> None:
    """Let a fresh run go on from a state, on a kind of device (`cpu`, `cuda`).

    Raises:
        UserError: it was begun in fp16 on a GPU and there is none now, or does not fit the run.
    """
    path = paths.run_state(*run.job.names)
    if state["precision"] == "fp16" and device != "cuda":
        raise UserError(
            f"{path}: this run was begun in fp16, which wants a GPU; go on where there is one, "
            f"or {AGAIN}"
        )
    try:
        run.load_state_dict(state)
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{path}: does not fit this run ({reason}); or {AGAIN}") from error
    batch = f", batch {run.batch}" if run.batch else ""
    LOG.info("resumed after epoch %d of %d%s", run.epoch, run.epochs, batch)


def discard(job: Job) -> None:
    """Take away a run that is trained again, the record first."""
    for path in (paths.run_record, paths.run_state, paths.oof_csv, paths.oof_views):
        path(*job.names).unlink(missing_ok=True)
    shutil.rmtree(paths.tensorboard_dir(*job.names), ignore_errors=True)


class StateFile:
    """The state of a run on disk: saved so that it goes on exactly, when it is time to."""

    def __init__(self, run: Run, start: Start) -> None:
        self.run, self.start, self.clock = run, start, run.job.options.clock
        self.began = self.saved = time.monotonic()
        # Weights, their mean, and two moments of an optimizer; until a save is measured.
        tensors = run.model.state_dict().values()
        self.cost = 4 * sum(one.numel() * one.element_size() for one in tensors) / SLOW_DISK
        self.clock.keep_back(self.cost)

    def begin_epoch(self) -> None:
        """Start the stopwatch of an epoch, or of the rest of one."""
        self.began = time.monotonic() - self.run.spent

    def end_epoch(self) -> float:
        """Return the seconds that the epoch took, with its evaluation."""
        self.clock.epoch_seconds = time.monotonic() - self.began
        return self.clock.epoch_seconds

    def is_due(self) -> bool:
        """Tell whether it is time to save, within an epoch."""
        return time.monotonic() - self.saved > max(EVERY_SECONDS, COST_SHARE * self.cost)

    def save(self) -> None:
        """Write the state; within an epoch, with the seconds spent in it.

        It is that of one process: sums of ranks were brought together before, and one rank writes.
        The others wait for it: torchrun would end it in mid-save for one of them that ends.
        """
        ranks.led(self.write)

    def write(self) -> None:
        """Write the state where this rank leads, and wait for nobody."""
        if not ranks.leads():
            return
        now = time.monotonic()
        job, start = self.run.job, asdict(self.start)
        self.run.spent = now - self.began if self.run.batch else 0.0
        state = {"identity": job.identity(start), "start": start, **self.run.state_dict()}
        checkpoint.save_state(paths.run_state(*job.names), state)
        self.saved = time.monotonic()
        self.cost = self.saved - now
        self.clock.keep_back(2 * self.cost)

    def stop(self) -> None:
        """Save, say what is left to do, and raise what ends the command."""
        run, epochs = self.run, self.run.epochs
        self.save()
        done = run.epoch + run.batch / run.steps
        each = (run.seconds + run.spent) / done if done else 0.0
        LOG.info(
            "saved in epoch %d of %d after batch %d of %d; about %s an epoch, %s of training left",
            run.epoch + 1, epochs, run.batch, run.steps, in_words(each),
            in_words(each * (epochs - done)),
        )  # fmt: skip
        self.clock.leave()
