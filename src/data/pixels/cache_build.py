"""Making a pixel cache: in parallel, chunk by chunk, so that it can be interrupted."""

import io
import json
import logging
import os
import shutil
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.artifacts.atomic import GrowingFile, file_lock
from src.data.pixels.cache import (
    ABSENT,
    CHUNK_BYTES,
    UNFINISHED,
    Marks,
    NoRoomError,
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
from src.errors import LockedError, UserError
from src.machine import cpu_count, decoding_threads
from src.progress import track

LOG = logging.getLogger("rvf")

Pixels = NDArray[np.uint8]
# Rows -> the canvas of each, None for a frame that its clip is too short to have.
Draw = Callable[[Sequence[int]], Sequence[Pixels | None]]


def build_cache(
    home: Path, canvas: Canvas, marks: Marks, draw: Draw, starts: NDArray[np.int64]
) -> Stored:
    """Make a cache below `home`, or take over the one that another process has made meanwhile.

    Interrupted at any moment, the next call goes on after the last whole chunk. Older caches of the
    canvas are deleted when the new one is whole; what they hold is not drawn again. Rows are places
    in `marks`; `starts`, int64 (n_items + 1,), is the first row of each item, for a clip is better
    decoded once: `draw`, called from threads, is asked for whole items.

    Raises:
        NoRoomError: the disk is full; nothing stays behind.
        UserError: whatever `draw` raises.
    """
    place, name = home / canvas_name(canvas), cache_key(canvas, marks)
    partial = place / f"{name}{UNFINISHED}"
    with ExitStack() as stack:
        _lock(stack, place / "lock")
        found = open_cache(home, canvas, marks)
        if found is not None:
            return found
        _discard(path for path in place.glob("*.*") if path.is_dir() and path != partial)
        try:
            _fill(partial / "pixels.u8", canvas, marks, draw, starts)
            with _room():
                _describe(partial, canvas, marks)
                _discard([place / name])  # damaged, else it would have been opened
                partial.rename(place / name)
        except NoRoomError:
            _discard([partial])
            raise
        found = open_cache(home, canvas, marks)
        if found is None:
            raise NoRoomError(f"{place / name} does not read as it was written")
        old = [folder for folder in finished(place) if folder.name != name]
        if old:
            LOG.info("pixel cache: deleted %d older in %s", len(old), place)
            _discard(old)
    return found


def _lock(stack: ExitStack, path: Path) -> None:
    try:
        stack.enter_context(file_lock(path, "the pixel cache"))
    except LockedError:
        LOG.info("pixel cache: another process builds it, waiting")
        stack.enter_context(file_lock(path, "the pixel cache", wait=True))


@contextmanager
def _room() -> Iterator[None]:
    """Say of a disk that does not take what is written that it has no room."""
    try:
        yield
    except (OSError, UserError) as error:
        raise NoRoomError(f"the pixel cache could not be written ({error})") from None


def _discard(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _fill(path: Path, canvas: Canvas, marks: Marks, draw: Draw, starts: NDArray[np.int64]) -> None:
    """Draw all rows into the file; one that does not exist holds its mark, over and over."""
    item = 3 * canvas.size**2
    chunks = _chunks(starts.tolist(), max(1, CHUNK_BYTES // item))
    older = _older(path.parent.parent, canvas, marks)

    def absent(row: int) -> Pixels:
        mark = np.frombuffer(absence_of(marks[row : row + 1]).tobytes(), np.uint8)
        return np.resize(mark, (canvas.size, canvas.size, 3))

    def draw_chunk(rows: range) -> Pixels:
        found = _known(rows, older)
        lacking = [row for row in rows if row not in found]
        found |= zip(lacking, draw(lacking), strict=True)
        return np.stack([absent(row) if (one := found[row]) is None else one for row in rows])

    file = GrowingFile(path, b"", [item * rows.stop for rows in chunks], reserve=True)
    if file.is_there:  # killed before it was described
        return
    with ExitStack() as stack:
        with _room():
            stack.enter_context(file)
        left = chunks[file.done :]
        blocks = _drawn(draw_chunk, left)
        unit = f"x{len(chunks[0])} img"
        for block in track(blocks, "decoding", total=len(left), unit=unit):
            with _room():
                file.add(block.data)


def _drawn(draw_chunk: Callable[[range], Pixels], chunks: Sequence[range]) -> Iterator[Pixels]:
    """Yield the chunks in order, drawn in threads; few of them wait, for each takes memory."""
    waiting: deque[Future[Pixels]] = deque()
    with decoding_threads() as pool:
        for rows in chunks:
            waiting.append(pool.submit(draw_chunk, rows))
            if len(waiting) > 2 * cpu_count():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _chunks(starts: list[int], step: int) -> list[range]:
    """Return the rows of each chunk: `step` of them, items whole."""
    found, start = [], 0
    for one, end in zip(starts[1:], [*starts[2:], starts[-1] + step + 1], strict=True):
        if end - start > step:  # the next item does not fit any more
            found.append(range(start, one))
            start = one
    return found


def _older(place: Path, canvas: Canvas, marks: Marks) -> Stored | None:
    """Return the whole cache that holds most of these items; -1 is the row of the others."""
    opened = [open_folder(folder, canvas, marks) for folder in finished(place)]
    found = [stored for stored in opened if stored is not None and (stored.rows >= 0).any()]
    return max(found, key=lambda stored: int((stored.rows >= 0).sum()), default=None)


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


def _describe(partial: Path, canvas: Canvas, marks: Marks) -> None:
    """Write the list of what the pixels are of, and checksums."""
    shape = (len(marks), canvas.size, canvas.size, 3)
    pixels = np.asarray(np.memmap(partial / "pixels.u8", np.uint8, "r", shape=shape))
    begin = pixels.reshape(len(marks), -1)[:, : marks.itemsize].copy().view(marks.dtype)[:, 0]
    marks = np.where(begin == absence_of(marks), absence_of(marks), marks)
    items = io.BytesIO()
    np.save(items, marks)
    about = {
        "identity": identity(canvas),
        "items": zlib.crc32(marks.tobytes()),
        "probes": probe(pixels),
    }
    for name, data in (
        ("items.npy", items.getvalue()),
        ("about.json", json.dumps(about).encode()),
    ):
        with (partial / name).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # before the folder is moved, else it may lie there empty
