"""What is said of each epoch: a log line, and an entry of the tracker."""

import logging
from typing import Any

from src.training.job import Job
from src.training.trackers import TRACKERS, Tracked

LOG = logging.getLogger("rvf")
SHOWN = ("accuracy", "macro_f1", "f1_real", "f1_fake", "precision", "recall", "auc")


class EpochLog:
    """One log line and one entry of the tracker (`--track`) an epoch."""

    def __init__(self, job: Job) -> None:
        tracked = Tracked(job.names, job.config.as_dict(), job.options.overwrite)
        self.tracker = TRACKERS.get(job.options.track)(tracked)

    def write(self, entry: dict[str, Any], epochs: int, seconds: float) -> None:
        """Report one epoch of the history.

        Args:
            entry: of the history: `epoch`, `loss`, `items_per_second`, scores, perhaps `stage`.
            epochs: that the run will have.
            seconds: the epoch took.
        """
        number = int(entry["epoch"])
        scores = " ".join(f"{name} {entry[name]:.4f}" for name in SHOWN if name in entry)
        scores = f"held out at 0.5: {scores}" if scores else "nothing held out"
        stage = f"{entry['stage']} " if entry.get("stage") else ""
        LOG.info(
            "%sepoch %d/%d loss %.4f | %s | %.0f img/s %.0f s",
            stage, number, epochs, entry["loss"], scores, entry["items_per_second"], seconds,
        )  # fmt: skip
        numbers = {k: float(v) for k, v in entry.items() if isinstance(v, int | float)}
        self.tracker.log(numbers, number)

    def close(self) -> None:
        """Write what is still in memory."""
        self.tracker.close()
