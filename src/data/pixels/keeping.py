"""Where decoded pixels are kept, on the disk or in memory, and whether there is room for them."""

import fcntl
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.data.pixels.cache import ABSENT, Marks, Stored, gb, missing_space, open_cache
from src.data.pixels.cache_build import Spans, build_cache, decoding_threads
from src.data.pixels.images import Canvas
from src.data.pixels.reader import ItemReader
from src.errors import UserError
from src.machine import available_memory
from src.progress import track

LOG = logging.getLogger("rvf")
RAM_SHARE = 0.4  # of the memory that is free
OWN_SHARE = 0.02  # of it; so much every process may hold, more only one of them

_CLAIMS: dict[Path, int] = {}  # descriptors, open as long as the process: the lock goes with it


class NoRoomError(Exception):
    """The pixels cannot be kept there; the message says why."""


def keep(
    items: ItemReader, siblings: Sequence[str], home: Path | None, cache: str
) -> tuple[str, list[Stored] | None]:
    """Decode all items once, onto the disk or into memory; says in the log where and why.

    Args:
        items: what is kept.
        siblings: see `keep_on_disk`.
        home: folder of the data set's pixel caches; None keeps nothing on disk.
        cache: `disk`, `ram`, `none`, or `auto`: the first of these for which there is room.

    Returns:
        Where the pixels are now, and they themselves, one for each canvas; None where they are
        decoded each time.

    Raises:
        UserError: see `PixelSource.preload`.
    """
    reasons = []
    ways = {
        "disk": lambda: keep_on_disk(items, siblings, home),
        "ram": lambda: keep_in_ram(items, home, forced=cache == "ram"),
    }
    for how, way in ways.items():
        if cache in ("auto", how):
            try:
                return how, way()
            except NoRoomError as error:
                if cache == how:
                    why = f"--cache {how}: {error}; --cache auto takes what is possible"
                    raise UserError(why) from None
                reasons.append(str(error))
    items.find_faces()  # before there are loader processes, each of which would look
    why = "; ".join(reasons) or "--cache none"
    LOG.info("pixels: decoded anew in every epoch (%s)", why)
    return "none", None


def keep_on_disk(items: ItemReader, siblings: Sequence[str], home: Path | None) -> list[Stored]:
    """Return the caches on disk of all items, one for each canvas; those that lack are made.

    Args:
        items: what is kept.
        siblings: paths of other items that a new cache holds too where there is room.
        home: folder of the data set's pixel caches; None keeps nothing on disk.

    Raises:
        NoRoomError: there is no folder, or no space on the disk.
        UserError: an item cannot be decoded; names it.
    """
    if home is None or not len(items):
        raise NoRoomError("no folder for a cache")
    marks = items.marks()
    kept = [open_cache(home, canvas, marks) for canvas in items.canvases]
    lacking = [c for c, found in zip(items.canvases, kept, strict=True) if found is None]
    whole = items
    if lacking and siblings:
        both = _with_siblings(items, siblings)
        wanted = both.marks()
        if not any(missing_space(home, canvas, wanted) for canvas in lacking):
            whole, marks = both, wanted
    for canvas in lacking:
        reason = missing_space(home, canvas, marks)
        if reason:
            raise NoRoomError(reason)
        need = gb(3 * canvas.size**2 * len(marks))
        LOG.info("pixels: %d items of %d px take %s on disk", len(whole), canvas.size, need)
    for number, canvas in enumerate(items.canvases):
        if kept[number] is None:
            try:
                kept[number] = _build(whole, home, canvas, marks)
            except OSError as error:
                raise NoRoomError(f"the pixel cache could not be written ({error})") from None
    own = slice(items.numbers.slot_starts[-1])  # siblings come last
    return [Stored(one.pixels, one.rows[own]) for one in kept if one is not None]


def _with_siblings(items: ItemReader, siblings: Sequence[str]) -> ItemReader:
    mine = set(items.paths)
    more = [*items.paths, *(path for path in siblings if path not in mine)]
    return ItemReader(items.root, more, items.canvases, items.numbers.frames, items.cuts)


def _build(items: ItemReader, home: Path, canvas: Canvas, marks: Marks) -> Stored:
    """Make the cache of one canvas of all items; see `build_cache`."""
    items.find_faces()
    single = ItemReader(items.root, items.paths, [canvas], items.numbers.frames, items.cuts)
    spans = None
    if items.numbers.has_clips:
        spans = Spans(items.numbers.slot_starts, single.read_slots)
    return build_cache(home, canvas, marks, lambda item: single.slots_or_stop(item)[0][0], spans)


def keep_in_ram(items: ItemReader, home: Path | None, *, forced: bool) -> list[Stored]:
    """Return the pixels of all items, decoded into memory, one array for each canvas.

    Args:
        items: what is kept.
        home: folder of the data set's pixel caches, where processes agree on who holds them in
            memory; None has nobody to agree with.
        forced: whatever other processes hold.

    Raises:
        NoRoomError: they do not fit, or another process holds them.
        UserError: an item cannot be decoded; names it.
    """
    free = available_memory()
    if items.nbytes > RAM_SHARE * free:
        raise NoRoomError(
            f"{gb(items.nbytes)} do not fit into {RAM_SHARE:.0%} of the {gb(free)} of memory"
        )
    if not forced and items.nbytes > OWN_SHARE * free and not _claim(home):
        raise NoRoomError("another process holds these pixels in memory")
    items.find_faces()
    starts = items.numbers.slot_starts
    ram = [np.empty((starts[-1], c.size, c.size, 3), np.uint8) for c in items.canvases]
    rows = np.arange(starts[-1])

    def fill(item: int) -> None:
        start = starts[item]
        drawn = items.slots_or_stop(item)
        rows[start + len(drawn) : starts[item + 1]] = ABSENT
        for place, canvases in enumerate(drawn, start):
            for array, canvas in zip(ram, canvases, strict=True):
                array[place] = canvas

    with decoding_threads() as pool:
        for _ in track(pool.map(fill, range(len(items))), "decoding", total=len(items), unit="img"):
            pass
    for array in ram:
        array.flags.writeable = False  # as a cache on disk is
    return [Stored(array, rows) for array in ram]


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
