"""What lies on disk of a run already: finished, half done, or of something else."""

import shutil
from typing import Any

from src import paths
from src.artifacts.files import sha256_file
from src.errors import UserError
from src.models.tensors import read_tensors
from src.training import record
from src.training.job import Job

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
    if not options.weights.is_file():
        raise UserError(f"{options.weights}: no such weights file")
    return {"source": "file", "sha256": sha256_file(options.weights)}


def is_finished(job: Job, start: dict[str, Any]) -> bool:
    """Tell whether the run is finished.

    A record whose checkpoint or OOF is gone is taken away: its presence means a finished run.

    Raises:
        UserError: a finished run of another config, fold file or start lies there.
    """
    path = paths.run_record(*job.names)
    if job.options.overwrite or not path.exists():
        return False
    record.check_identity(record.read_record(path), record.identity(job, start), path)
    if paths.oof_csv(*job.names).exists() and paths.checkpoint(*job.names).exists():
        return True
    path.unlink()
    return False


def read_state(job: Job, start: dict[str, Any]) -> dict[str, Any] | None:
    """Read the state of a half-done run; None where there is none, or `--overwrite` was given.

    Raises:
        UserError: a state of another config, fold file or start, or of another precision than
            the one asked for.
    """
    path = paths.run_state(*job.names)
    if job.options.overwrite or not path.exists():
        return None
    try:
        state = read_tensors(path)
    except UserError as error:
        raise UserError(f"{error}; start this fold again with --overwrite") from None
    record.check_identity(state["identity"], record.identity(job, start), path)
    wanted = job.options.precision
    if wanted not in ("auto", state["precision"]):
        raise UserError(
            f"{path}: this run was begun in {state['precision']}; go on without --precision, or "
            "start again with --overwrite"
        )
    return state


def discard(job: Job) -> None:
    """Take away a run that is trained again, the record first."""
    names = job.names
    for path in (paths.run_record(*names), paths.run_state(*names), paths.oof_csv(*names)):
        path.unlink(missing_ok=True)
    paths.oof_views(*names).unlink(missing_ok=True)
    shutil.rmtree(paths.tensorboard_dir(*names), ignore_errors=True)
