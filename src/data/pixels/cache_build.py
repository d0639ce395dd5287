"""Making a pixel cache: in parallel, chunk by chunk, so that it can be interrupted."""

import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.artifacts.atomic import file_lock
from src.data.pixels.cache import (
    ABSENT,
    CHUNK_BYTES,
    Marks,
    Stored,
    absence_of,
    cache_key,
    canvas_name,
    finished,
    identity,
    open_cache,
    open_folder,
    probe,
)
from src.data.pixels.images import Canvas
from src.errors import LockedError
from src.machine import cpu_count
from src.progress import track

LOG = logging.getLogger("rvf")
# A chunk that is done: where it starts, and which of its rows are frames that do not exist.
_LINE = re.compile(r"(\d+)(?: ([\d,]+);)?")

Pixels = NDArray[np.uint8]


class Spans(NamedTuple):
    """Rows of which several are frames of one clip, which is better decoded once."""

    # int64 (n_items + 1,), the first row of each item; a chunk holds whole items
    starts: NDArray[np.int64]
    # rows -> the canvas of each, None for a frame that its clip is too short to have
    draw: Callable[[Sequence[int]], Sequence[Pixels | None]]


def build_cache(
    home: Path,
    canvas: Canvas,
    marks: Marks,
    draw: Callable[[int], Pixels],
    spans: Spans | None = None,
) -> Stored:
    """Make a cache, or take over the one that another process has made meanwhile.

    Interrupted at any moment, the next call goes on after the last chunk that was flushed. Older
    caches of the canvas are deleted when the new one is whole; what they hold is not drawn again.

    Args:
        home: where the caches of a data set lie.
        canvas: what is kept.
        marks: of the items, from `mark_items`; at least one.
        draw: returns the canvas of an item, by its place in `marks`; called from threads.
        spans: in place of `draw` where there are clips.

    Raises:
        OSError: the disk is full; nothing stays behind.
        UserError: whatever `draw` raises.
    """
    place, name = home / canvas_name(canvas), cache_key(canvas, marks)
    partial = place / f"{name}.partial"
    with ExitStack() as stack:
        _lock(stack, place / "lock")
        found = open_cache(home, canvas, marks)
        if found is not None:
            return found
        _discard(path for path in place.glob("*.partial") if path != partial)
        try:
            older = _older(place, canvas, marks)
            absent = _fill(partial, canvas, len(marks), draw, spans, older)
            _finish(partial, canvas, marks, absent)
        except OSError:
            _discard([partial])
            raise
        _discard([place / name])  # damaged, else it would have been opened
        partial.rename(place / name)
        found = open_cache(home, canvas, marks)
        if found is None:
            raise OSError(f"{place / name} does not read as it was written")
        old = [folder for folder in finished(place) if folder.name != name]
        if old:
            LOG.info("pixel cache: deleted %d older in %s", len(old), place)
            _discard(old)
    return found


@contextmanager
def decoding_threads() -> Iterator[ThreadPoolExecutor]:
    """Lend a pool; when this is left, by whatever way, no thread of it is at work any more."""
    pool = ThreadPoolExecutor(cpu_count())  # decoders work without the GIL
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _lock(stack: ExitStack, path: Path) -> None:
    try:
        stack.enter_context(file_lock(path, "the pixel cache"))
    except LockedError:
        LOG.info("pixel cache: another process builds it, waiting")
        stack.enter_context(file_lock(path, "the pixel cache", wait=True))


def _discard(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _older(place: Path, canvas: Canvas, marks: Marks) -> Stored | None:
    """Return the whole cache that holds most of these items; -1 is the row of the others."""
    opened = [open_folder(folder, canvas, marks) for folder in finished(place)]
    found = [stored for stored in opened if stored is not None and (stored.rows >= 0).any()]
    return max(found, key=lambda stored: int((stored.rows >= 0).sum()), default=None)


def _fill(
    partial: Path,
    canvas: Canvas,
    count: int,
    draw: Callable[[int], Pixels],
    spans: Spans | None,
    older: Stored | None,
) -> list[int]:
    """Draw all rows into the file; returns those that do not exist."""
    item = 3 * canvas.size**2
    ends = _chunks(count, max(1, CHUNK_BYTES // item), None if spans is None else spans.starts)
    partial.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(partial / "pixels.u8", os.O_RDWR | os.O_CREAT, 0o644)

    def fill(start: int) -> tuple[int, list[int]]:
        rows = range(start, ends[start])
        found = _known(rows, older)
        lacking = [row for row in rows if row not in found]
        if spans is None:
            found |= {row: draw(row) for row in lacking}
        elif lacking:
            found |= zip(lacking, spans.draw(lacking), strict=True)
        absent = [row for row in rows if found[row] is None]
        empty = np.zeros((canvas.size, canvas.size, 3), np.uint8) if absent else None
        block = np.stack([empty if (one := found[row]) is None else one for row in rows])  # type: ignore[arg-type]
        _write_at(descriptor, block, start * item)
        return start, absent

    try:
        whole = os.fstat(descriptor).st_size == count * item
        done = _done(partial / "done.txt") if whole else {}
        _reserve(descriptor, count * item)
        left = [start for start in ends if start not in done]
        # The threads end first: a number that is closed goes to the next file that is opened.
        with (partial / "done.txt").open("a") as record, decoding_threads() as pool:
            record.write("\n")  # what a killed process began to write counts for nothing
            chunks = pool.map(fill, left)
            unit = f"x{max(ends[0], 1)} img"
            for start, absent in track(chunks, "decoding", total=len(left), unit=unit):
                done[start] = absent
                more = f" {','.join(map(str, absent))};" if absent else ""
                record.write(f"{start}{more}\n")
                record.flush()
                os.fsync(record.fileno())
    finally:
        os.close(descriptor)
    return sorted(row for start in ends for row in done[start])


def _chunks(count: int, step: int, starts: NDArray[np.int64] | None) -> dict[int, int]:
    """Return the first row of each chunk -> the row after its last: `step` rows, items whole."""
    if starts is None:
        return {start: min(start + step, count) for start in range(0, count, step)}
    ends, start = {}, 0
    for one, end in zip(starts[1:].tolist(), [*starts[2:].tolist(), count + step + 1], strict=True):
        if end - start > step:  # the next item does not fit any more
            ends[start] = one
            start = one
    return ends


def _known(rows: range, older: Stored | None) -> dict[int, Pixels | None]:
    """Return the rows that an older cache holds, or of which it knows that they do not exist."""
    if older is None:
        return {}
    places = zip(rows, older.rows[rows.start : rows.stop].tolist(), strict=True)
    return {
        row: older.pixels[place] if place >= 0 else None
        for row, place in places
        if place >= 0 or place == ABSENT
    }


def _finish(partial: Path, canvas: Canvas, marks: Marks, absent: list[int]) -> None:
    """Write the list of what the pixels are of, and checksums."""
    shape = (len(marks), canvas.size, canvas.size, 3)
    pixels = np.asarray(np.memmap(partial / "pixels.u8", np.uint8, "r", shape=shape))
    if absent:
        marks = marks.copy()
        marks[absent] = absence_of(marks[absent])
    with (partial / "items.npy").open("wb") as file:
        np.save(file, marks)
        _flush(file)
    about = {
        "identity": identity(canvas),
        "items": zlib.crc32(marks.tobytes()),
        "probes": probe(pixels),
    }
    with (partial / "about.json").open("wb") as file:
        file.write(json.dumps(about).encode())
        _flush(file)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())  # before the folder is moved into place, else it may lie there empty


def _reserve(descriptor: int, size: int) -> None:
    """Take the space now: a full disk is found out before anything is decoded."""
    os.ftruncate(descriptor, size)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        os.posix_fallocate(descriptor, 0, size)


def _write_at(descriptor: int, block: NDArray[np.uint8], place: int) -> None:
    view = block.data.cast("B")
    while view:
        written = os.pwrite(descriptor, view, place)
        view, place = view[written:], place + written
    os.fsync(descriptor)  # only then does the chunk count


def _done(record: Path) -> dict[int, list[int]]:
    """Return the chunks that are done, by first row, and the rows of each that do not exist."""
    if not record.is_file():
        return {}
    lines = record.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    found = [match for match in map(_LINE.fullmatch, lines) if match]
    return {int(m[1]): [int(row) for row in (m[2] or "").split(",") if row] for m in found}
