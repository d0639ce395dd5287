"""Pictures in tar shards, read in place from any thread and after any fork; blocks read ahead.

A member is called `1536-20480-2899812733/train/x.jpg`: where its bytes begin in the shard, how many
they are, their CRC-32, and what it is called in the tar. Nothing is looked up to read one.
"""

import os
import re
import zlib
from collections import OrderedDict
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from src.data.items.shard_blocks import BLOCK, Blocks
from src.data.items.shard_home import WAYS, ShardHome, home_of_folder
from src.errors import UserError

TAR = ".tar"
OPEN_AT_ONCE = 256  # shards that a process holds open; systems allow 1,024 files
_ASKED = 128 * 2**10  # bytes of a disk's read-ahead, where it does not say
_REMEMBERED = 512  # blocks that a disk was asked for lately and is not asked for again
_PLACE = re.compile(r"(\d{1,15})-(\d{1,12})-(\d{1,10})/")


def place_of(member: str) -> tuple[int, int, int]:
    """Return offset, size and CRC-32 that a member's name says; an OSError for another name."""
    found = _PLACE.match(member)
    if found is None:
        raise FileNotFoundError(f"no member {member!r}: it says no place (OFFSET-SIZE-CRC/NAME)")
    return int(found[1]), int(found[2]), int(found[3])


class TarShard:
    """A shard of a data set, read as `files.Archive` is; `path` is as if it lay in its folder.

    Raises:
        FileNotFoundError: it is not there.
        UserError: it is not what the index says: another size (half copied?), not named, or the
            place where it lies does not answer.
    """

    def __init__(self, path: str) -> None:
        folder, name = os.path.split(path)
        self.path = path
        self.name = name
        self.home = home_of_folder(folder)
        self.size = _checked_size(self.home, name)
        self._blocks = Blocks(self.home, name, self.size) if self.home.is_remote else None

    def read(self, member: str) -> bytes:
        """Return a member's bytes; a UserError where they are not those that were written."""
        offset, size, crc = place_of(member)
        data = self._pread(size, offset)
        if len(data) != size or zlib.crc32(data) != crc:
            raise UserError(
                f"{self.home.join(self.name)}: {member.partition('/')[2]} is not what was written "
                f"there (its CRC does not fit): the shard is damaged, or was written again; {WAYS} "
                f"{self.home.place} says which are whole"
            )
        return data

    def head(self, member: str, count: int) -> bytes:
        """Return a member's first bytes, `count` at most; they are not checked."""
        offset, size, _ = place_of(member)
        return self._pread(min(size, count), offset)

    def stamp(self, member: str) -> tuple[int, int]:
        """Return a member's size and CRC."""
        return place_of(member)[1:]

    def read_ahead(self, member: str) -> None:
        """Have the blocks that a member lies in read, and the one after them; waits for none.

        The blocks of a batch are asked for together, so that a disk reads whole blocks one after
        the other, in place of items here and there; the next one is there when it is wanted.
        """
        offset, size, _ = place_of(member)
        for block in range(offset // BLOCK, (offset + size) // BLOCK + 2):
            if self._blocks is not None:
                self._blocks.ask(block)
                continue
            key = self.path, block
            if key in _LATELY:
                continue
            _LATELY[key] = None
            while len(_LATELY) > _REMEMBERED:
                _LATELY.popitem(last=False)
            if hasattr(os, "posix_fadvise"):  # not on macOS
                handle = _open(self.home, self.name, self.size)
                step = _read_ahead_of(os.fstat(handle.fd).st_dev)
                for start in range(block * BLOCK, min((block + 1) * BLOCK, self.size), step):
                    os.posix_fadvise(handle.fd, start, step, os.POSIX_FADV_WILLNEED)

    def _pread(self, count: int, offset: int) -> bytes:
        if self._blocks is not None:
            return self._blocks.read(count, offset)
        handle = _open(self.home, self.name, self.size)
        return pread(handle.fd, count, offset)


def pread(fd: int, count: int, offset: int) -> bytes:
    """Return bytes of an open file, fewer only where it ends before."""
    parts = []
    while count > 0 and (part := os.pread(fd, count, offset)):
        parts.append(part)
        count, offset = count - len(part), offset + len(part)
    return b"".join(parts)


@lru_cache(maxsize=64)
def _read_ahead_of(device: int) -> int:
    """Return the bytes that the kernel reads ahead of a device: it cuts longer requests to that."""
    number = f"{os.major(device)}:{os.minor(device)}"
    for place in (f"/sys/class/bdi/{number}", f"/sys/dev/block/{number}/../queue"):
        with suppress(OSError, ValueError):
            return max(_ASKED, int(Path(place, "read_ahead_kb").read_text()) * 1024)
    return _ASKED


_LATELY: OrderedDict[tuple[str, int], None] = OrderedDict()


class _Handle:
    """An open file; closed when nobody reads it any more."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


@lru_cache(maxsize=OPEN_AT_ONCE)
def _open(home: ShardHome, name: str, size: int) -> _Handle:
    """Return an open shard, its size looked at."""
    handle = _Handle(home.join(name))
    found = os.fstat(handle.fd).st_size
    if found != size:
        raise _other_size(home, name, found, size)
    return handle


def _checked_size(home: ShardHome, name: str) -> int:
    shards = home.about()["shards"]
    if name not in shards:
        raise FileNotFoundError(f"{home.place}: no shard {name!r} is named there any more")
    size = shards[name]["bytes"]
    found = home.facts(name)[0]
    if found != size:
        raise _other_size(home, name, found, size)
    return size


def _other_size(home: ShardHome, name: str, found: int, size: int) -> UserError:
    return UserError(
        f"{home.join(name)}: {found} bytes, the index says {size}: half copied, or written again "
        f"since; copy it again ({WAYS} {home.place} looks at all of them)"
    )
