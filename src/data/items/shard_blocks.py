"""Shards that lie elsewhere, a block at a time: fetched once for all processes, kept below .cache.

A block is a file `.cache/shards/<key>/000012`, whole or not there; the key changes when the shard
does. Those used least lately go when they take more than the data set allows. While one is fetched,
`000012.lock` lies beside it.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import NamedTuple

from src import paths
from src.artifacts.atomic import atomic_path, file_lock
from src.artifacts.files import sha256_json
from src.data.items.shard_home import ShardHome
from src.errors import UserError

BLOCK = 16 * 2**20  # bytes: a seek of a disk, or a request to a store, is a tenth of its time
AT_ONCE = 8  # blocks that a process fetches side by side
SHARE = 0.25  # of what is free on the disk, where nothing else is said
KEPT = 0.9  # of the limit, after old blocks went
LOOK_EVERY = 8  # fetched blocks between two looks at how many there are

_FETCHED = [0]


class Blocks:
    """The blocks of one shard of a remote home."""

    def __init__(self, home: ShardHome, name: str, size: int) -> None:
        self.home, self.name, self.size = home, name, size
        key = sha256_json([home.join(name), size, home.facts(name)[1], BLOCK])[:24]
        self.folder = paths.shard_blocks(key)

    def read(self, count: int, offset: int) -> bytes:
        """Return bytes of the shard; raises as `ShardHome.read`."""
        parts = []
        end = min(offset + count, self.size)
        while offset < end:
            block, start = divmod(offset, BLOCK)
            part = self._part(block, start, min(BLOCK - start, end - offset))
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    def ask(self, block: int) -> None:
        """Fetch a block in the background, where it is not there; what goes wrong is not said.

        Whoever reads the block then fetches it again, and says it. One that went to make room is
        asked for anew.
        """
        if block * BLOCK >= self.size:
            return
        path, asked = self._path(block), _asked_of(os.getpid())
        if path not in asked.open and not path.exists():
            asked.open.add(path)
            asked.queue.put(partial(self._fetch_quietly, block, asked))

    def _fetch_quietly(self, block: int, asked: "_ToFetch") -> None:
        try:
            with suppress(UserError, OSError):
                self._fetch(block)
        finally:
            asked.open.discard(self._path(block))

    def _part(self, block: int, start: int, count: int) -> bytes:
        while True:
            try:
                fd = os.open(self._path(block), os.O_RDONLY)
            except FileNotFoundError:  # not yet; or it went since, to make room
                self._fetch(block)
                continue
            try:
                data = os.pread(fd, count, start)
            finally:
                os.close(fd)
            if len(data) != count:
                raise UserError(f"{self._path(block)} is damaged: remove {self.folder}")
            return data

    def _path(self, block: int) -> Path:
        return self.folder / f"{block:06d}"

    def _fetch(self, block: int) -> None:
        path = self._path(block)
        with suppress(FileNotFoundError):
            os.utime(path)  # it was used now
            return
        lock = path.with_suffix(".lock")
        with file_lock(lock, "a block of a shard", wait=True):
            try:
                if not path.exists():  # else another process fetched it meanwhile
                    self._fetch_whole(block, path)
            finally:
                # Two who waited for it may now hold two files: at worst a block is fetched twice.
                lock.unlink(missing_ok=True)
        if _FETCHED[0] % LOOK_EVERY == 0:
            make_room(self.home.cache_gb)
        _FETCHED[0] += 1

    def _fetch_whole(self, block: int, path: Path) -> None:
        start = block * BLOCK
        end = min(start + BLOCK, self.size)
        data = self.home.read(self.name, start, end)
        if len(data) != end - start:
            raise UserError(
                f"{self.home.join(self.name)}: {len(data)} bytes came in place of "
                f"{end - start}; it was written again, or is written just now"
            )
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)


class _ToFetch(NamedTuple):
    """What threads of this process take work from, and the blocks of it that are not done yet."""

    queue: SimpleQueue[Callable[[], None]]
    open: set[Path]


@lru_cache(maxsize=1)
def _asked_of(pid: int) -> _ToFetch:  # noqa: ARG001 - no thread outlives a fork
    """Return the work of this process; its end waits for none of the threads."""
    queue: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def work() -> None:
        while True:
            queue.get()()

    for _ in range(AT_ONCE):
        Thread(target=work, daemon=True, name="shards").start()
    return _ToFetch(queue, set())


def make_room(cache_gb: float | None) -> None:
    """Remove the blocks that were used least lately, as many as are beyond the limit."""
    cache = paths.shard_cache()
    blocks = sorted(_blocks(cache), key=lambda one: one[1])
    total = sum(size for size, _, _ in blocks)
    if cache_gb is None:
        limit = SHARE * (shutil.disk_usage(cache).free + total)
    else:
        limit = cache_gb * 1e9
    if total <= limit:
        return
    for size, _, path in blocks:
        if total <= KEPT * limit:
            return
        path.unlink(missing_ok=True)
        total -= size


def _blocks(cache: Path) -> Iterator[tuple[int, int, Path]]:
    for path in cache.glob("*/[0-9][0-9][0-9][0-9][0-9][0-9]"):
        with suppress(FileNotFoundError):
            stat = path.stat()
            yield stat.st_size, stat.st_mtime_ns, path
