"""Where the scores of each epoch go beside the log: TensorBoard, Weights & Biases, nowhere.

A tracker is one registered function that opens a run and returns what takes its scores. Packages
are imported when one is opened. Nothing is sent anywhere by default: what a package writes stays
on the disk unless its own variables (`WANDB_MODE=online`) say otherwise.
"""

import hashlib
import importlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from src import paths
from src.errors import UserError, disk_trouble
from src.registry import Registry

DEFAULT = "tensorboard"
PACKAGES = ("tensorboard", "wandb")  # trackers that are packages, to be installed by these names

# What speaks to the outside on its own account, switched off before the package is imported.
QUIET = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "DO_NOT_TRACK": "true"}


class Tracked(NamedTuple):
    """The run that is tracked."""

    names: tuple[str, str, str, paths.FoldName]  # data set, scheme, model, fold
    config: dict[str, Any]  # the model's config, as nested dicts
    again: bool = False  # it is trained once more under its name, so that nothing is gone on with


class Tracker(NamedTuple):
    """An open run of a tracker."""

    # takes scores by name, and the epoch they are of
    log: Callable[[dict[str, float], int], object]
    close: Callable[[], object]  # writes what is still in memory


TRACKERS: Registry[Callable[[Tracked], Tracker]] = Registry("tracker")


@TRACKERS.register("none")
def none(run: Tracked) -> Tracker:  # noqa: ARG001
    """Keep nothing beside the log and the record."""
    return Tracker(lambda scores, epoch: None, lambda: None)  # noqa: ARG005


@TRACKERS.register("tensorboard")
def tensorboard(run: Tracked) -> Tracker:
    """Write event files beside the checkpoint: `tensorboard --logdir checkpoints`."""
    from torch.utils.tensorboard import SummaryWriter

    _leave_errors_to_the_caller()
    writer = SummaryWriter(str(paths.tensorboard_dir(*run.names)))

    def log(scores: dict[str, float], epoch: int) -> None:
        for name, value in scores.items():
            writer.add_scalar(name, value, epoch)

    return Tracker(log, writer.close)


def _leave_errors_to_the_caller() -> None:
    """Keep TensorBoard's writing thread from printing a traceback where the disk is full.

    The writer's next call raises the error again, which is where it gets its words.
    """
    told = threading.excepthook
    if told.__module__ == __name__:  # an earlier run's
        return

    def hook(met: threading.ExceptHookArgs) -> None:
        error = met.exc_value
        is_its = type(met.thread).__module__.startswith("tensorboard.")
        if not is_its or error is None or disk_trouble(error) is None:
            told(met)

    threading.excepthook = hook


@TRACKERS.register("wandb")
def wandb(run: Tracked) -> Tracker:
    """Write a Weights & Biases run: offline unless `WANDB_MODE` is set; `wandb sync` sends it."""
    check_tracker("wandb")
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    package = importlib.import_module("wandb")
    home = paths.run_dir(*run.names[:3])
    home.mkdir(parents=True, exist_ok=True)
    # A resumed run has its id again.
    words = "\0".join([*map(str, run.names), str(time.time_ns()) if run.again else ""])
    opened = package.init(
        project=os.environ.get("WANDB_PROJECT", "rvf"),
        name=f"{run.names[2]} fold {run.names[3]}",
        group="/".join(run.names[:3]),
        id=hashlib.sha256(words.encode()).hexdigest()[:16],
        resume="allow",
        config=run.config,
        dir=str(home),
        mode=os.environ.get("WANDB_MODE", "offline"),
        reinit="finish_previous",
    )
    return Tracker(lambda scores, epoch: opened.log(scores, step=epoch), opened.finish)


def check_tracker(name: str) -> None:
    """Check a tracker before anything is computed; loads no package.

    Raises:
        UserError: unknown tracker, or one whose package is not installed.
    """
    from src.artifacts.packages import is_installed  # NumPy, which no parser waits for

    TRACKERS.get(name)
    if name in PACKAGES and name not in sys.modules and not is_installed(name):
        raise UserError(
            f"--track {name}: the package is not installed: pip install {name}; without it, "
            f"--track {DEFAULT} or --track none"
        )
