"""What a data set was understood from: folders, archives, tables and files, and how each was found.

A folder's times change when a file comes, goes or is renamed, not when one is written over in
place; so files have marks of their own.
"""

import os
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISDIR
from typing import NamedTuple

from src.artifacts.fingerprints import SETTLED_NS

FOLDER, ABSENT = -1, -2  # in place of a size
NEVER = 2**63 - 1  # when something changed of which no file here tells
_TAIL = 2**16  # last bytes of an archive: what its directory ends with


class Mark(NamedTuple):
    """How one file or folder was found."""

    path: str  # absolute
    size: int  # bytes; `FOLDER` or `ABSENT`
    stamp: int  # `times_of` it; 0 where it is absent
    tail: int  # CRC-32 of its last bytes, of an archive; -1 of anything else


def times_of(stat: os.stat_result) -> int:
    """Return an int64 of both times of a file's change, never -1; equal in every process.

    The inode's own time (ctime) cannot be set back, so that a file exchanged for another of equal
    size and date is told from it. Inode numbers are left out: network drives make them up anew.
    """
    return hash((stat.st_mtime_ns, stat.st_ctime_ns))  # of whole numbers: no random seed in it


def mark(path: str, *, archive: bool = False) -> Mark:
    """Look at a file or folder now; one that cannot be looked at counts as absent."""
    try:
        stat = os.stat(path)  # noqa: PTH116 - pathlib is slow for a million files
        tail = _tail_of(path, stat.st_size) if archive else -1
    except OSError:
        return Mark(path, ABSENT, 0, -1)
    return Mark(path, FOLDER if S_ISDIR(stat.st_mode) else stat.st_size, times_of(stat), tail)


def still(marks: Iterable[Mark]) -> bool:
    """Tell whether everything is found as it was."""
    return all(mark(old.path, archive=old.tail >= 0) == old for old in marks)


def _tail_of(path: str, size: int) -> int:
    """Read an archive's end: some network drives know no ctime, and copying keeps the date."""
    with open(path, "rb") as file:  # noqa: PTH123
        file.seek(max(0, size - _TAIL))
        return zlib.crc32(file.read(_TAIL))


@dataclass
class Basis:
    """What a data set is being understood from; added to while it is listed and read."""

    marks: list[Mark] = field(default_factory=list)
    newest_ns: int = 0  # when the last of all that was seen changed
    began_ns: int = field(default_factory=time.time_ns)

    def add(self, path: str | Path, *, archive: bool = False) -> None:
        """Mark a folder before it is listed, or a file before it is read."""
        where = os.path.abspath(path)  # noqa: PTH100 - links stay, they may lead elsewhere later
        self.marks.append(mark(where, archive=archive))
        if self.marks[-1].size != ABSENT:
            self.note(os.stat(where))  # noqa: PTH116

    def note(self, stat: os.stat_result) -> None:
        """Take note of when a file changed."""
        self.newest_ns = max(self.newest_ns, stat.st_mtime_ns, stat.st_ctime_ns)

    @property
    def settled(self) -> bool:
        """Whether nothing changed so shortly before that it might again, with the same times."""
        return self.began_ns - self.newest_ns > SETTLED_NS
