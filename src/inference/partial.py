"""What a pass over the test items has predicted so far, kept so that another call goes on there."""

import json
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src import paths
from src.artifacts.atomic import atomic_path
from src.inference.stored import Part

EVERY_SECONDS = 60.0
_DTYPES = (np.float64, np.bool_, np.bool_)
COST_SHARE = 50  # a save is not repeated before this many times its own length has passed


class Partial:
    """The rows of a pass that are done, one file a checkpoint in `.cache/`.

    Args:
        parts: the checkpoints of the pass.
        views: the views of each.
        marks: returns for each whatever must agree for rows to count (items, precision, batch
            size) as it is known by now; None as long as it is not, and then no rows count.
        cut: (n_rows,), which rows are of a clip that was read only in part; kept too.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        views: Sequence[Sequence[str]],
        marks: Callable[[], Sequence[dict[str, str] | None]],
        cut: NDArray[np.bool_] | None = None,
    ) -> None:
        self.cut = np.zeros(0, bool) if cut is None else cut
        self.files = [paths.partial_views(part.checkpoint_sha256) for part in parts]
        self.parts, self.views, self.marks = parts, views, marks
        self.ends = np.cumsum([len(names) for names in views])[:-1]
        self.done = 0
        self.there = [("", 0)] * len(parts)  # mark and rows of each file at the beginning
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
        self.cut = self.cut if len(self.cut) else np.zeros(len(table), bool)
        found = []
        for place, (file, mark) in enumerate(zip(self.files, self._marks(), strict=True)):
            held, logits, seen, cut = self._read(file, len(self.views[place]), len(table))
            self.there[place] = held, len(logits)
            same = len(logits) if held == mark else 0
            found.append((logits[:same], seen[:same], cut[:same]))
        self.done = min((len(logits) for logits, _, _ in found), default=0)
        parts = np.split(table, self.ends, axis=1)
        for part, (logits, seen, cut) in zip(parts, found, strict=True):
            part[: self.done] = logits[: self.done]
            readable[: self.done] = seen[: self.done]
            self.cut[: self.done] = cut[: self.done]
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
        tables = np.split(self.table[: self.done], self.ends, axis=1)
        rows_done = {"readable": self.readable[: self.done], "cut": self.cut[: self.done]}
        for file, mark, logits, (held, rows) in zip(
            self.files, self._marks(), tables, self.there, strict=True
        ):
            if mark is None or (held == mark and rows > self.done):
                continue
            with atomic_path(file) as temporary, temporary.open("wb") as stream:
                np.savez(stream, mark=mark, logits=logits, **rows_done)
        self.saved = time.monotonic()
        self.cost = self.saved - began

    def discard(self) -> None:
        """Take the files away: what they held is written where it belongs."""
        for file in self.files:
            file.unlink(missing_ok=True)

    def _marks(self) -> list[str | None]:
        both = zip(self.parts, self.views, strict=True)
        more = [
            {"checkpoint": part.checkpoint_sha256, "views": list(names)} for part, names in both
        ]
        return [
            None if mark is None else json.dumps({**mark, **own})
            for mark, own in zip(self.marks(), more, strict=True)
        ]

    @staticmethod
    def _read(
        file: Path, n_views: int, n_rows: int
    ) -> tuple[str, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        with suppress(Exception):  # absent or damaged, in whatever way: predicted again
            # An array whose header says too few bytes would be read without its checksum.
            with zipfile.ZipFile(file) as archive:
                sound = archive.testzip() is None
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
                mark, logits, seen = (content[key] for key in ("mark", "logits", "readable"))
                cut = content["cut"]
            rows = len(logits)
            fits = logits.shape == (rows, n_views) and rows <= n_rows
            fits = fits and seen.shape == cut.shape == (rows,)
            if sound and fits and (logits.dtype, seen.dtype, cut.dtype) == _DTYPES:
                return str(mark), logits, seen, cut
        return "", np.empty((0, n_views)), np.empty(0, bool), np.empty(0, bool)
