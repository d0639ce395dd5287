"""What tells an item from another of the same name, so that it never gets the other's boxes."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

from src.data.cache import mark_items
from src.data.sources import stamp_of
from src.data.walk import IN_ZIP

PIECE = 4096  # bytes read at the beginning, in the middle and at the end of a file
TOGETHER = 256  # items that a thread takes at once


def mark_contents(
    root: Path, items: Sequence[str], names: Sequence[str], pool: Executor
) -> list[int]:
    """Return a 64-bit mark of each item; it changes with its name, size, time stamp and bytes.

    Boxes are kept by the folder's name, and two folders of one name may hold other pictures under
    equal paths, of equal size and time. Some of a file's bytes are therefore looked at, and not
    where the folder lies: a search of hours outlives a move of the data.

    Args:
        root: folder of the data set.
        items: manifest paths.
        names: what is marked in place of each path.
        pool: of threads; on a network drive each file is waited for.

    Raises:
        UserError: a file is gone.
    """
    starts = range(0, len(items), TOGETHER)
    parts = pool.map(lambda start: _stamps(root, items[start : start + TOGETHER]), starts)
    return mark_items(names, (stamp for part in parts for stamp in part)).tolist()


def _stamps(root: Path, items: Sequence[str]) -> list[tuple[int, ...]]:
    # Without the ctime, which a copy of the data set does not keep: its bytes are looked at.
    return [(*stamp_of(root, path)[:2], *contents_of(root, path)) for path in items]


def contents_of(root: Path, path: str) -> tuple[int, ...]:
    """Return a number that follows from pieces of a file, 0 for one that cannot be read.

    Nothing for a member of a zip: its stamp is a CRC of all its bytes.
    """
    if IN_ZIP.match(path) is not None:
        return ()
    try:
        pieces = _pieces(os.path.normpath(f"{root}/{path}"))
    except OSError:
        return (0,)
    return (int.from_bytes(hashlib.blake2b(pieces, digest_size=8).digest(), "little"),)


def _pieces(file: str) -> bytes:
    """Return a short file whole, of a longer one three pieces.

    Bitmaps of equal size may begin and end in equal black bars; containers begin and end in tables.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        if size <= 3 * PIECE:
            return os.pread(descriptor, 3 * PIECE, 0)
        places = (0, (size - PIECE) // 2, size - PIECE)
        return b"".join([os.pread(descriptor, PIECE, place) for place in places])
    finally:
        os.close(descriptor)
