"""SHA-256 of files, computed once: remembered while a file's size, times and inode stay."""

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from src import paths
from src.artifacts.files import sha256_file, write_text
from src.errors import UserError

SETTLED_NS = 2_000_000_000  # a file that changed less than this ago may change again unnoticed
MOST = 20_000  # files remembered; the oldest are forgotten first


def fingerprint_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits; large files are read only once.

    What is remembered is keyed by device, inode, size and both times of change. The inode's own
    time (ctime) cannot be set back, so that a file exchanged for another of the same size and date
    is read again. A file that changed within the last two seconds is never remembered.

    Raises:
        OSError: the file cannot be read.
    """
    found = path.stat()
    mark = [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]

    def make() -> tuple[str, bool]:
        sha256, newest = sha256_file(path), max(found.st_mtime_ns, found.st_ctime_ns)
        return sha256, settled(newest) and path.stat().st_ctime_ns == found.st_ctime_ns

    return remembered(str(path.resolve()), mark, make)


def settled(newest_ns: int) -> bool:
    """Tell whether what changed at a time would change again with another time."""
    return time.time_ns() - newest_ns > SETTLED_NS


def remembered(place: str, mark: list[Any], make: Callable[[], tuple[str, bool]]) -> str:
    """Return the fingerprint of a place that was made at this mark before, else make it.

    A mark holds what JSON does; `make` gives the fingerprint, and whether it may be remembered.
    """
    known = _remembered().get(place)
    if known is not None and known[:-1] == mark:
        return known[-1]
    sha256, lasting = make()
    if lasting:
        _remember(place, [*mark, sha256])
    return sha256


@cache
def _remembered_in(file: Path, pid: int) -> dict[str, list[Any]]:  # noqa: ARG001 - a fork rereads
    return _read(file)


def _remembered() -> dict[str, list[Any]]:
    return _remembered_in(paths.fingerprint_cache(), os.getpid())


def _read(file: Path) -> dict[str, list[Any]]:
    """Return what is remembered; a damaged or missing file remembers nothing."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    whole = isinstance(found, dict) and all(
        isinstance(mark, list) and len(mark) > 1 and isinstance(mark[-1], str)
        for mark in found.values()
    )
    return found if whole else {}


def _remember(place: str, mark: list[Any]) -> None:
    """Write down a fingerprint, beside those that other processes found meanwhile."""
    file = paths.fingerprint_cache()
    known = _remembered()
    known.update(_read(file) | {place: mark})
    for oldest in list(known)[: max(0, len(known) - MOST)]:
        del known[oldest]
    with suppress(UserError):  # a full or read-only disk: then it is computed again
        write_text(file, json.dumps(known))
