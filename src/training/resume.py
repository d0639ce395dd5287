"""What lies on disk of a run already: finished, half done, or of something else."""

import shutil
from pathlib import Path
from typing import Any

from src import paths
from src.artifacts.runs import check_checkpoint, check_oof, read_run
from src.errors import UserError
from src.models.weights import sha256_weights
from src.tensor_files import check_file, read_tensors
from src.training import record
from src.training.job import Job
from src.training.run import Run

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
