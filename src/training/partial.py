"""What a pass over the test items has predicted so far, kept so that another call goes on there."""

import json
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src import paths
from src.artifacts.files import atomic_path
from src.training.fill import Part

EVERY_SECONDS = 60.0
COST_SHARE = 50  # a save is not repeated before this many times its own length has passed


class Partial:
    """The rows of a pass that are done, one file a checkpoint in `.cache/`.

    Args:
        parts: the checkpoints of the pass.
        views: the views of each.
        marks: for each, whatever must agree for rows to count (items, precision, batch size).
    """

    def __init__(
        self, parts: Sequence[Part], views: Sequence[Sequence[str]], marks: Sequence[dict[str, str]]
    ) -> None:
        self.files = [paths.partial_views(part.checkpoint_sha256) for part in parts]
        self.marks = [
            json.dumps({**mark, "checkpoint": part.checkpoint_sha256, "views": list(names)})
            for part, names, mark in zip(parts, views, marks, strict=True)
        ]
        self.ends = np.cumsum([len(names) for names in views])[:-1]
        self.done = 0
        self.saved, self.cost = time.monotonic(), 0.0

    def begin(self, table: NDArray[np.float64], readable: NDArray[np.bool_]) -> int:
        """Fill in the first rows that all checkpoints have, and remember where the rest will be.

        Args:
            table: (n_rows, all views side by side), filled in place.
            readable: (n_rows,), filled in place.

        Returns:
            How many rows are done.
        """
        self.table, self.readable = table, readable
        found = [self._read(file, mark) for file, mark in zip(self.files, self.marks, strict=True)]
        self.done = min((len(logits) for logits, _ in found), default=0)
        for part, (logits, seen) in zip(np.split(table, self.ends, axis=1), found, strict=True):
            part[: self.done] = logits[: self.done]
            readable[: self.done] = seen[: self.done]
        return self.done

    def after_batch(self, done: int) -> None:
        """Take note of the rows that are done; saves now and then."""
        self.done = done
        if time.monotonic() - self.saved > max(EVERY_SECONDS, COST_SHARE * self.cost):
            self.save()

    def save(self) -> None:
        """Write the rows that are done."""
        began = time.monotonic()
        tables = np.split(self.table[: self.done], self.ends, axis=1)
        for file, mark, logits in zip(self.files, self.marks, tables, strict=True):
            with atomic_path(file) as temporary, temporary.open("wb") as stream:
                np.savez(stream, mark=mark, logits=logits, readable=self.readable[: self.done])
        self.saved = time.monotonic()
        self.cost = self.saved - began

    def discard(self) -> None:
        """Take the files away: what they held is written where it belongs."""
        for file in self.files:
            file.unlink(missing_ok=True)

    @staticmethod
    def _read(file: Path, mark: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        try:
            with np.load(file, allow_pickle=False) as content:
                if str(content["mark"]) == mark:
                    return content["logits"], content["readable"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            pass  # absent or damaged: predicted again
        return np.empty((0, 1)), np.empty(0, bool)
