"""How a file comes to be: whole or not at all, by one process at a time, going on after a stop.

`atomic_path` for what is written at once, `GrowingFile` for what takes so long that a killed
process must not begin again, `own_folder` for tools that want a folder, `file_lock` round any of
them. What killed processes leave is cleared away by the next one; locks go with their process.
"""

import fcntl
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from src.errors import LockedError, UserError, disk_trouble

# Seconds that a lock is waited for: before filelock 3.30 loaders of a killed run keep it a while.
PATIENCE = 8.0


def _umask() -> int:
    """Return what the process takes off new files' rights, without setting it where it can."""
    with suppress(OSError):
        found = re.search(r"(?m)^Umask:\s*([0-7]+)$", Path("/proc/self/status").read_text())
        if found is not None:
            return int(found[1], 8)
    umask = os.umask(0o077)  # at import, before any thread could make a file in between
    os.umask(umask)
    return umask


MODE = 0o666 & ~_umask()
_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp", re.DOTALL)
_SWEPT: set[tuple[int, Path]] = set()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full, read-only or forbidden disk into a UserError that names `path`."""
    try:
        yield
    except UserError:  # its text may quote a system's error, and says already what to do
        raise
    except Exception as error:
        # Not only OSError: safetensors and torch have kinds of their own for a full disk.
        trouble = disk_trouble(error)
        if trouble is None:
            raise
        raise UserError(f"{path}: not written, {trouble}") from error


@contextmanager
def file_lock(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path`, which stays, for the length of the block.

    Raises:
        LockedError: another process holds it, and it shall not `wait` for that; says `what` is
            guarded.
        UserError: the file system has no locks.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=-1 if wait else PATIENCE)
        try:
            lock.acquire(poll_interval=0.2)
        except Timeout:
            raise LockedError(f"another process is at work on {what}; left it alone") from None
        except (OSError, NotImplementedError) as error:
            if disk_trouble(error) is not None:
                raise
            raise UserError(
                f"{path}: this file system has no locks ({error}); put the artefacts on another "
                "one (RVF_ROOT)"
            ) from None
    try:
        yield
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Tell whether a process holds the lock file `path` right now."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # none has ever held it
        return False
    try:
        # Shared, so that those who look are never taken for one who holds it.
        return _lock(descriptor, shared=True) is False
    finally:
        os.close(descriptor)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it there with `os.replace` if all went well.

    An exception inside the block (a full disk, Ctrl-C) leaves no file behind. What a killed
    process leaves is removed by the next one that writes into the folder.

    Raises:
        UserError: the disk is full, read-only or forbidden; names `path`.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(path.parent)
        descriptor, temporary = _make_temporary(path)
        try:
            yield temporary
            temporary.chmod(MODE)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(descriptor)


def remove_orphans(folder: Path) -> int:
    """Remove the temporary files that killed processes left in a folder; returns how many.

    A writer holds a lock on its temporary file, so no clock is asked and no living process loses
    anything.
    """
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.name.endswith(".tmp")]
    except OSError:
        return 0
    return sum(_remove_unlocked(folder / name) for name in names if _TEMPORARY.fullmatch(name))


@contextmanager
def own_folder(home: Path, prefix: str) -> Iterator[Path]:
    """Yield a fresh folder in `home`, which goes at the end; those of killed processes go before.

    The names of all such folders there begin with `prefix`.
    """
    home.mkdir(parents=True, exist_ok=True)
    gate = os.open(home, os.O_RDONLY)
    try:
        # Held while others are swept: a folder is not taken for an orphan before it is locked.
        swept = _lock(gate, wait=True)
        for left in home.glob(f"{prefix}*") if swept else ():
            _remove_unlocked(left)
        own = Path(tempfile.mkdtemp(dir=home, prefix=prefix))
        lock = os.open(own, os.O_RDONLY)
        _lock(lock)
    finally:
        os.close(gate)
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        os.close(lock)


class GrowingFile:
    """A file of known size written from start to end, record by record; a context manager.

    What is unfinished lies in `.NAME.part` beside it, locked by its writer, with the checksum of
    each record in `.NAME.sums`: one counts only if it reads back as it was written, also after the
    power failed. A later process goes on after the last of these; a part whose header differs is
    begun again. After the last record the file moves into place; after any error, the part stays.

    Args:
        path: of the finished file.
        header: its first bytes, which identify what it is.
        ends: where each record ends, bytes after the header, ascending.
        reserve: take the space at once, so that a full disk is found out before the work.
    """

    def __init__(
        self, path: Path, header: bytes, ends: Sequence[int], *, reserve: bool = False
    ) -> None:
        self.path, self.header, self.reserve = path, header, reserve
        self.ends = [len(header) + end for end in ends]
        self.size = self.ends[-1] if ends else len(header)  # bytes of the finished file
        self.done = 0  # records that an earlier process had written
        self._sums: FileIO | None = None

    def __enter__(self) -> Self:
        """Open the part, go on with it where it is of this file.

        Raises:
            LockedError: another process is writing it.
            UserError: the disk has too little room, or nothing can be written there.
        """
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
            try:
                self._resume()
                self._check_room()
            except BaseException:
                self._close()
                raise
        return self

    def add(self, record: memoryview | bytes) -> None:
        """Write the bytes of the next record.

        Raises:
            ValueError: it does not end where it should.
            UserError: the disk is full.
        """
        if self._file.tell() + memoryview(record).nbytes != self.ends[self._next]:
            raise ValueError(f"record {self._next} of {self.path} has another size")
        with disk_errors(self.path):
            self._write(memoryview(record))
            if self._sums is not None:
                self._sums.write(_sum_of(record))
        self._next += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Move the finished file into place; keep the part after any error."""
        try:
            if kind is None:
                if self._next != len(self.ends):
                    raise ValueError(f"{self._next} of {len(self.ends)} records were written")
                with disk_errors(self.path):
                    os.fsync(self._file.fileno())
                    self._part.replace(self.path)
                    self._beside("sums").unlink(missing_ok=True)
        finally:
            self._close()

    @property
    def is_there(self) -> bool:
        """Whether the finished file, with this very header, lies at the path."""
        if not self.path.is_file() or self.path.stat().st_size != self.size:
            return False
        with self.path.open("rb") as file:
            return file.read(len(self.header)) == self.header

    @property
    def _part(self) -> Path:
        return self._beside("part")

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{suffix}")

    def _close(self) -> None:
        self._file.close()
        if self._sums is not None:
            self._sums.close()

    def _open(self) -> None:
        """Open the part and lock it: the one that lies there now.

        Between opening and locking, another process may have finished it and moved it away: then
        what was locked is its finished file.
        """
        while True:
            try:
                part = os.open(self._part, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:  # /proc and the like, where nobody makes files
                raise UserError(
                    f"{self.path}: not written, no file can be made there; choose another folder"
                ) from None
            self._file = os.fdopen(part, "r+b", buffering=0)
            if _lock(part) is False:
                self._file.close()
                raise LockedError(f"{self.path}: another process is writing it")
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(part), self._part.stat()):
                    return
            self._file.close()

    def _resume(self) -> None:
        self._sums = self._beside("sums").open("a+b", buffering=0)
        self._sums.seek(0)
        sums = self._sums.read().splitlines(keepends=True)
        if self._file.read(len(self.header)) == self.header:
            for start, end, known in zip([len(self.header), *self.ends], self.ends, sums):  # noqa: B905 - some are missing
                if _sum_of(self._file.read(end - start)) != known:
                    break
                self.done += 1
        self._next = self.done
        self._sums.truncate(sum(map(len, sums[: self.done])))
        if not self.done:
            self._file.truncate(0)
            self._file.seek(0)
            self._write(memoryview(self.header))
        keep = self.ends[self.done - 1] if self.done else len(self.header)
        self._file.truncate(keep)
        self._file.seek(keep)

    def _write(self, data: memoryview) -> None:
        # Without a buffer: what a full disk did not take would be tried again at the end.
        data = data.cast("B")
        while data.nbytes:
            data = data[self._file.write(data) :]

    def _check_room(self) -> None:
        missing = self.size - self._file.tell()
        free = shutil.disk_usage(self.path.parent).free
        if missing > free:
            raise UserError(
                f"{self.path}: not written, {missing / 1e6:.0f} MB are still to be written and "
                f"{free / 1e6:.0f} MB are free; free some space, or write it to another disk"
            )
        if self.reserve and self.size and hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(self._file.fileno(), 0, self.size)


def _sum_of(record: memoryview | bytes) -> bytes:
    """Return the line that says what a record is."""
    return b"%08x\n" % zlib.crc32(record)


def _lock(descriptor: int, *, wait: bool = False, shared: bool = False) -> bool | None:
    """Lock an open file or folder; False where another process holds it, None without locks.

    By its descriptor, which filelock of before 3.30 cannot do: what is locked must be the very file
    that will be written, not whatever has its name.
    """
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(descriptor, kind | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove_unlocked(path: Path) -> bool:
    """Remove a temporary file or folder whose writer is gone; tells whether it did."""
    try:
        kind = os.O_RDONLY if path.is_dir() else os.O_RDWR
        descriptor = os.open(path, kind | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        if not _lock(descriptor):  # in use, or no locks here
            return False
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    except OSError:  # moved into place just now
        return False
    finally:
        os.close(descriptor)
    return True


def _sweep_once(folder: Path) -> None:
    key = (os.getpid(), folder)
    if key not in _SWEPT:
        _SWEPT.add(key)
        remove_orphans(folder)


def _make_temporary(path: Path) -> tuple[int, Path]:
    """Make an empty file beside `path` and lock it; returns the descriptor that holds the lock."""
    while True:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        # Without locks nobody can take it for an orphan either.
        if _lock(descriptor, wait=True) is None or os.fstat(descriptor).st_nlink:
            return descriptor, Path(name)
        os.close(descriptor)  # a sweep took it for an orphan before it was locked
