"""Items to square uint8 canvases: each file is decoded once, and kept where there is room."""

import fcntl
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from src.data import images
from src.data.cache import Marks, Stored, gb, mark_items, missing_space, open_cache
from src.data.cache_build import build_cache, decoding_threads
from src.data.images import Canvas
from src.data.sources import read_bytes, stamp_of
from src.errors import UserError
from src.machine import available_memory
from src.progress import track

LOG = logging.getLogger("rvf")
RAM_SHARE = 0.4  # of the memory that is free
OWN_SHARE = 0.02  # of it; so much every process may hold, more only one of them

cv2.setNumThreads(1)  # parallelism lies in workers and torch; nested pools slow both

_CLAIMS: dict[Path, int] = {}  # descriptors, open as long as the process: the lock goes with it


class PixelSource:
    """Canvases of a list of items.

    Args:
        root: folder of the data set.
        paths: manifest paths of the items, in the order of their row numbers.
        canvases: the distinct canvases wanted of each item.
        siblings: paths that other runs will want; a cache on disk that is made anew holds them
            too where there is room, so that it serves those runs as well.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        canvases: Sequence[Canvas],
        siblings: Sequence[str] = (),
    ) -> None:
        self.root = root
        self.paths = list(paths)
        self.canvases = list(dict.fromkeys(canvases))
        self._siblings = list(siblings)
        self._kept: list[Stored] | None = None

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.paths)

    @property
    def is_kept(self) -> bool:
        """Tell whether reading an item decodes nothing any more."""
        return self._kept is not None

    @property
    def nbytes(self) -> int:
        """Return how much all canvases take."""
        return sum(3 * canvas.size**2 for canvas in self.canvases) * len(self)

    def read(self, row: int) -> list[NDArray[np.uint8]]:
        """Return one item's canvases, uint8 (size, size, 3) each, in the order of `canvases`.

        They may be read-only.

        Raises:
            UnreadableImageError: the item cannot be decoded.
        """
        if self._kept is not None:
            return [kept.pixels[kept.rows[row]] for kept in self._kept]
        return images.make_canvases(read_bytes(self.root, self.paths[row]), self.canvases)

    def read_or_stop(self, row: int) -> list[NDArray[np.uint8]]:
        """Return one item's canvases; raises a UserError naming the item that is unreadable."""
        try:
            return self.read(row)
        except images.UnreadableImageError as error:
            raise UserError(
                f"{self.root / self.paths[row]}: {error}; it was readable when the folds were "
                "made: put the file back"
            ) from None

    def stack(self, rows: Sequence[int]) -> NDArray[np.uint8]:
        """Return the first canvas of several items, uint8 (n, size, size, 3), a copy.

        Raises:
            UserError: an item cannot be decoded; names it.
        """
        if self._kept is not None:
            kept = self._kept[0]
            return np.take(kept.pixels, kept.rows[list(rows)], axis=0)
        return np.stack([self.read_or_stop(row)[0] for row in rows])

    def preload(self, home: Path | None = None, cache: str = "auto") -> str:
        """Decode everything once, onto the disk or into memory; says in the log where and why.

        Args:
            home: folder of the data set's pixel caches; None keeps nothing on disk.
            cache: `disk`, `ram`, `none`, or `auto`: the first of these for which there is room.

        Returns:
            Where the pixels are now: `disk`, `ram`, or `none` (decoded each time they are read).

        Raises:
            UserError: an item cannot be decoded; names it. `disk` or `ram` was asked for, and
                there is no room.
        """
        reasons = []
        ways = {
            "disk": lambda: self._keep_on_disk(home),
            "ram": lambda: self._keep_in_ram(home, forced=cache == "ram"),
        }
        for how, keep in ways.items():
            if cache in ("auto", how):
                reason = keep()
                if not reason:
                    return how
                reasons.append(reason)
                if cache == how:
                    raise UserError(f"--cache {how}: {reason}; --cache auto takes what is possible")
        why = "; ".join(reasons) or "--cache none"
        LOG.info("pixels: decoded anew in every epoch (%s)", why)
        return "none"

    def _keep_on_disk(self, home: Path | None) -> str:
        if home is None or not len(self):
            return "no folder for a cache"
        marks = self._marks(self.paths)
        kept = [open_cache(home, canvas, marks) for canvas in self.canvases]
        lacking = [c for c, found in zip(self.canvases, kept, strict=True) if found is None]
        paths = self.paths
        if lacking and self._siblings:
            mine = set(paths)
            more = [*paths, *(path for path in self._siblings if path not in mine)]
            wanted = self._marks(more)
            if not any(missing_space(home, canvas, wanted) for canvas in lacking):
                paths, marks = more, wanted
        for canvas in lacking:
            reason = missing_space(home, canvas, marks)
            if reason:
                return reason
            need = gb(3 * canvas.size**2 * len(paths))
            LOG.info("pixels: %d items of %d px take %s on disk", len(paths), canvas.size, need)
        for number, canvas in enumerate(self.canvases):
            if kept[number] is None:
                single = PixelSource(self.root, paths, [canvas])
                try:
                    kept[number] = build_cache(
                        home, canvas, marks, lambda row, one=single: one.read_or_stop(row)[0]
                    )
                except OSError as error:
                    return f"the pixel cache could not be written ({error})"
        own = slice(len(self))  # siblings come last
        self._kept = [Stored(one.pixels, one.rows[own]) for one in kept if one is not None]
        return ""

    def marks(self) -> Marks:
        """Return a 64-bit mark of each item, which changes with its path, size or stamp."""
        return self._marks(self.paths)

    def _marks(self, paths: Sequence[str]) -> Marks:
        return mark_items(paths, (stamp_of(self.root, path) for path in paths))

    def _keep_in_ram(self, home: Path | None, *, forced: bool) -> str:
        free = available_memory()
        if self.nbytes > RAM_SHARE * free:
            return f"{gb(self.nbytes)} do not fit into {RAM_SHARE:.0%} of the {gb(free)} of memory"
        if not forced and self.nbytes > OWN_SHARE * free and not _claim(home):
            return "another process holds these pixels in memory"
        ram = [np.empty((len(self), c.size, c.size, 3), np.uint8) for c in self.canvases]

        def fill(row: int) -> None:
            for array, canvas in zip(ram, self.read_or_stop(row), strict=True):
                array[row] = canvas

        with decoding_threads() as pool:
            for _ in track(
                pool.map(fill, range(len(self))), "decoding", total=len(self), unit="img"
            ):
                pass
        rows = np.arange(len(self))
        for array in ram:
            array.flags.writeable = False  # as a cache on disk is
        self._kept = [Stored(array, rows) for array in ram]
        return ""


def _claim(home: Path | None) -> bool:
    """Tell whether this process may hold a data set in memory: of several at once, one may."""
    if home is None:
        return True
    path = home / "ram.lock"
    if path not in _CLAIMS:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _CLAIMS[path] = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError:  # nowhere to leave a note: each for itself
            return True
    try:
        # Of this process alone: loader processes that outlive it for a moment do not hold it.
        fcntl.lockf(_CLAIMS[path], fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
