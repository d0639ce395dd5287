"""Making a pixel cache: in parallel, chunk by chunk, so that it can be interrupted."""

import json
import logging
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from src.artifacts.files import file_lock
from src.data.cache import (
    CHUNK_BYTES,
    Marks,
    Stored,
    cache_key,
    canvas_name,
    finished,
    identity,
    open_cache,
    open_folder,
    probe,
)
from src.data.images import Canvas
from src.errors import LockedError
from src.machine import cpu_count
from src.progress import track

LOG = logging.getLogger("rvf")


def build_cache(
    home: Path, canvas: Canvas, marks: Marks, draw: Callable[[int], NDArray[np.uint8]]
) -> Stored:
    """Make a cache, or take over the one that another process has made meanwhile.

    Interrupted at any moment, the next call goes on after the last chunk that was flushed. Older
    caches of the canvas are deleted when the new one is whole; what they hold is not drawn again.

    Args:
        home: where the caches of a data set lie.
        canvas: what is kept.
        marks: of the items, from `mark_items`; at least one.
        draw: returns the canvas of an item, by its place in `marks`; called from threads.

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
            _fill(partial, canvas, marks, draw, _older(place, canvas, marks))
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
    marks: Marks,
    draw: Callable[[int], NDArray[np.uint8]],
    older: Stored | None,
) -> None:
    shape = (len(marks), canvas.size, canvas.size, 3)
    item = math.prod(shape[1:])
    step = max(1, CHUNK_BYTES // item)
    partial.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(partial / "pixels.u8", os.O_RDWR | os.O_CREAT, 0o644)

    def pixels_of(row: int) -> NDArray[np.uint8]:
        known = -1 if older is None else older.rows[row]
        return older.pixels[known] if older is not None and known >= 0 else draw(row)

    def fill(start: int) -> int:
        block = np.stack([pixels_of(row) for row in range(start, min(start + step, len(marks)))])
        _write_at(descriptor, block, start * item)
        return start

    try:
        whole = os.fstat(descriptor).st_size == len(marks) * item
        done = _done(partial / "done.txt") if whole else set()
        _reserve(descriptor, len(marks) * item)
        left = [start for start in range(0, len(marks), step) if start not in done]
        # The threads end first: a number that is closed goes to the next file that is opened.
        with (partial / "done.txt").open("a") as record, decoding_threads() as pool:
            record.write("\n")  # what a killed process began to write counts for nothing
            chunks = pool.map(fill, left)
            for start in track(chunks, "decoding", total=len(left), unit=f"x{step} img"):
                record.write(f"{start}\n")
                record.flush()
                os.fsync(record.fileno())
    finally:
        os.close(descriptor)
    pixels = np.asarray(np.memmap(partial / "pixels.u8", np.uint8, "r", shape=shape))
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


def _done(record: Path) -> set[int]:
    if not record.is_file():
        return set()
    lines = record.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    return {int(line) for line in lines if line.isdecimal()}
