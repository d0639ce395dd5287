"""How many cores and how much memory this process may use: the machine's, or its container's."""

import atexit
import ctypes
import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60  # v1 writes "no limit" as a number of pages just below 2^63 bytes
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of mallopt(3)
_MAPPED_FROM = 1 << 30  # bytes; larger blocks still go back to the system when they are freed
_COLLECTED_EVERY = 50_000, 20, 100  # new objects, and generations; Python's own: 700, 10, 10
_KEPT = 2**31 - 1  # bytes at the top of the heap; more does not fit mallopt's int


class _Files(NamedTuple):
    """Where a version of cgroups says what; `reclaimed` is what MemAvailable counts as free."""

    folder: str
    limit: str
    used: str
    reclaimed: tuple[str, str]


_V2 = _Files("", "memory.max", "memory.current", ("active_file ", "inactive_file "))
_V1 = _Files(
    "memory",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_active_file ", "total_inactive_file "),
)


def cpu_count() -> int:
    """Return the cores this process may use, at least 1.

    Counts affinity (`taskset`), a container's CPU quota and LOKY_MAX_CPU_COUNT; works where
    `os.sched_getaffinity` does not exist (macOS).
    """
    import joblib  # 0.2 s to import, and this module is in a low room

    return int(joblib.cpu_count())


@contextmanager
def decoding_threads() -> Iterator[ThreadPoolExecutor]:
    """Lend a pool; when this is left, by whatever way, no thread of it is at work any more."""
    pool = ThreadPoolExecutor(cpu_count())  # decoders work without the GIL
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def available_memory() -> int:
    """Return the bytes that can be had without swapping: the machine's or the container's."""
    import psutil

    free = psutil.virtual_memory().available
    inside = cgroup_memory()
    return free if inside is None else min(free, inside)


def cgroup_memory(proc: Path = _PROC, mount: Path = _MOUNT) -> int | None:
    """Return the bytes left under the tightest memory limit of this process's cgroups.

    Args:
        proc: the file that names the process's cgroups.
        mount: where cgroup file systems are mounted, v2 at its top or v1 below `memory/`.

    Returns:
        Bytes, at least 0; None without a limit (or without cgroups: macOS).
    """
    left: list[int] = []
    for own, files in _own_groups(proc):
        # In a container the path may be the host's, of which only the top is mounted here.
        for path in (own, *own.parents):
            found = _left(mount / files.folder / path, files)
            if found is not None:
                left.append(found)
    return min(left, default=None)


def _own_groups(proc: Path) -> list[tuple[Path, _Files]]:
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            found.append((Path(path.lstrip("/")), _V2))
        elif "memory" in controllers.split(","):
            found.append((Path(path.lstrip("/")), _V1))
    return found


def _left(folder: Path, files: _Files) -> int | None:
    try:
        most = int((folder / files.limit).read_text())  # "max": no limit
        now = int((folder / files.used).read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
        cache = sum(int(line.split()[1]) for line in lines if line.startswith(files.reclaimed))
    except (OSError, ValueError, IndexError):
        return None
    return None if most >= _UNLIMITED else max(0, most - max(0, now - cache))


def keep_freed_memory() -> bool:
    """Let malloc keep freed memory for the next arrays of that size instead of giving it back.

    A net's activations are allocated and freed with every layer, a search's columns with every
    trial. By default glibc maps and unmaps each of them, and the kernel must clear every page
    again: on a virtual machine that was two thirds of the time of EfficientNet-B0, and half of that
    of an exact threshold among 100,000 rows. The price is that the process stays at its peak size.
    Nothing that is computed changes. Workers that are forked later inherit it. Returns whether the
    C library took it; False where it is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _MAPPED_FROM)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT))


@cache
def collect_less() -> None:
    """Let Python look less often for cycles of objects that nobody reaches, and not at its exit.

    Each look goes through objects of which torch and timm bring hundreds of thousands that stay: of
    the imports of a training that was a fifth, and at the exit another second. What is still there
    at the exit is not collected; the memory goes with the process.
    """
    gc.set_threshold(*_COLLECTED_EVERY)
    atexit.register(gc.freeze)
