"""Files written whole or not at all; what killed processes left half-written is cleared away."""

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from src.errors import UserError, disk_trouble


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


def remove_orphans(folder: Path) -> int:
    """Remove the temporary files that killed processes left in a folder.

    A writer holds a lock on its temporary file, which goes with its process, so no clock is asked
    and no living process loses anything.

    Returns:
        How many were removed.
    """
    removed = 0
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.name.endswith(".tmp")]
    except OSError:
        return 0
    for name in names:
        if _TEMPORARY.fullmatch(name):
            removed += _remove_unlocked(folder / name)
    return removed


def _remove_unlocked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except OSError:  # in use, moved into place just now, or no locks here: left alone
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
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:  # no locks here: then nobody can take it for an orphan either
            return descriptor, Path(name)
        if os.fstat(descriptor).st_nlink:
            return descriptor, Path(name)
        os.close(descriptor)  # a sweep took it for an orphan before it was locked
