"""What a pass over the test items has predicted so far, kept so that another call goes on there."""

import json
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src import paths
from src.artifacts.atomic import atomic_path
from src.inference.stored import Part

EVERY_SECONDS = 60.0
COST_SHARE = 50  # a save is not repeated before this many times its own length has passed
KEPT = ("logits", "readable", "cut")  # of each row: float64 (n_views,), and two flags


class Partial:
    """The rows of a pass that are done, one file a checkpoint in `.cache/`.

    Args:
        parts, views: the checkpoints of the pass, and the views of each.
        marks: returns for each whatever must agree for rows to count (items, precision, batch
            size) as it is known by now; None as long as it is not, and then no rows count.
        cut: (n_rows,), which rows are of a clip that was read only in part; kept too.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        views: Sequence[Sequence[str]],
        marks: Callable[[], Sequence[dict[str, str] | None]],
        cut: NDArray[np.bool_],
    ) -> None:
        self.parts, self.views, self.marks, self.cut = parts, views, marks, cut
        self.files = [paths.partial_views(part.checkpoint_sha256) for part in parts]
        self.done = 0
        self.there = [("", 0)] * len(parts)  # mark and rows of each file at the beginning
        self.saved, self.cost = time.monotonic(), 0.0

    def begin(self, table: NDArray[np.float64], readable: NDArray[np.bool_]) -> int:
        """Fill in the first rows that all checkpoints have, and return how many.

        `table`, (n_rows, all views side by side), and `readable`, (n_rows,), are where the rest
        will be.
        """
        ends = np.cumsum([len(names) for names in self.views])[:-1]
        self.rows = [(logits, readable, self.cut) for logits in np.split(table, ends, axis=1)]
        found = [_read(file, *rows) for file, rows in zip(self.files, self.rows, strict=True)]
        self.there = [(mark, len(rows[0])) for mark, rows in found]
        same = zip(self.there, self._marks(), strict=True)
        self.done = min((count if held == mark else 0 for (held, count), mark in same), default=0)
        for rows, (_, known) in zip(self.rows, found, strict=True):
            for column, values in zip(rows, known, strict=True):
                column[: self.done] = values[: self.done]
        return self.done

    def after_batch(self, done: int) -> None:
        """Take note of the rows that are done; saves now and then."""
        self.done = done
        if time.monotonic() - self.saved > max(EVERY_SECONDS, COST_SHARE * self.cost):
            self.save()

    def save(self) -> None:
        """Write the rows that are done; a file that has more of the same ones is left alone."""
        if not self.done:
            return
        began = time.monotonic()
        each = zip(self.files, self._marks(), self.rows, self.there, strict=True)
        for file, mark, rows, (held, count) in each:
            if mark is None or (held == mark and count > self.done):
                continue
            named = zip(KEPT, rows, strict=True)
            done: dict[str, Any] = {key: column[: self.done] for key, column in named}
            with atomic_path(file) as temporary, temporary.open("wb") as stream:
                np.savez(stream, mark=mark, **done)
        self.saved = time.monotonic()
        self.cost = self.saved - began

    def discard(self) -> None:
        """Take the files away: what they held is written where it belongs."""
        for file in self.files:
            file.unlink(missing_ok=True)

    def _marks(self) -> list[str | None]:
        each = zip(self.marks(), self.parts, self.views, strict=True)
        return [
            None
            if mark is None
            else json.dumps(mark | {"checkpoint": part.checkpoint_sha256, "views": list(names)})
            for mark, part, names in each
        ]


def _read(file: Path, *like: NDArray[Any]) -> tuple[str, list[NDArray[Any]]]:
    """Return the mark and the rows of a file, none where they are not first rows of such arrays."""
    with suppress(Exception):  # absent or damaged, in whatever way: predicted again
        # An array whose header says too few bytes would be read without its checksum.
        with zipfile.ZipFile(file) as archive:
            sound = archive.testzip() is None
        with np.load(file, allow_pickle=False) as content:
            mark, rows = str(content["mark"]), [content[key] for key in KEPT]
        count = len(rows[0])
        kinds = [(array.dtype, array[:count].shape) for array in like]
        if sound and [(array.dtype, array.shape) for array in rows] == kinds:
            return mark, rows
    return "", [array[:0] for array in like]
