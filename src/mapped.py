"""Files that are mapped: what many processes read lies in memory once, and can be given back.

A pass over all rows touches every page, which then counts as memory of each process that did it.
Given back, pages stay where the system keeps files, and come again when they are looked at.
"""

import mmap
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    import pyarrow as pa

_MAPPED: WeakSet[mmap.mmap] = WeakSet()


def map_file(path: str | Path) -> "pa.BufferReader":
    """Return a file to be read by Arrow without a copy; mapped as long as anything of it is used.

    Raises:
        OSError: it cannot be read.
        ValueError: it is empty.
    """
    import pyarrow as pa  # slow to import

    with Path(path).open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    _MAPPED.add(mapped)
    return pa.BufferReader(pa.py_buffer(mapped))


def give_back() -> None:
    """Let the pages of all mapped files go, after a pass over many of them; nothing is lost."""
    if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
        for mapped in list(_MAPPED):
            mapped.madvise(mmap.MADV_DONTNEED)
