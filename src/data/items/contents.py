"""What the files of items hold, as one fingerprint; read once, remembered while no file changes."""

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from stat import S_ISREG

import pandas as pd

from src.artifacts.fingerprints import fingerprint_of, remembered, settled
from src.data.items.files import IN_ZIP
from src.data.items.manifest import Dataset
from src.data.items.parquet_rows import PARQUET
from src.machine import cpu_count
from src.progress import track

UNREADABLE = "unreadable"


def contents_sha256(dataset: Dataset, table: pd.DataFrame) -> str:
    """Return the SHA-256 of what the files of some rows of the manifest hold, in their order."""
    files = table["path"].tolist()
    rows = dataset.items.index.get_indexer(table.index)
    stamps = [str(stamp) for stamp in dataset.stamps[rows].tolist()]
    mark = hashlib.sha256("\0".join([dataset.sha256, *files, *stamps]).encode())
    # One entry a split: what is predicted is all of one.
    place = f"{dataset.root.resolve()} {'/'.join(sorted(set(table['split'])))}"

    def make() -> tuple[str, bool]:
        found, newest = _read_all(dataset.root, files, stamps)
        return hashlib.sha256("\n".join(found).encode()).hexdigest(), settled(newest)

    return remembered(place, [mark.hexdigest()], make)


def _read_all(root: Path, files: list[str], stamps: list[str]) -> tuple[list[str], int]:
    """Return a fingerprint of each item, and when the last of the files changed."""
    inside = [IN_ZIP.match(file) for file in files]
    archives = {found[1] for found in inside if found and found[1].lower().endswith(PARQUET)}
    known = {name: fingerprint_of(Path(os.path.normpath(root / name))) for name in archives}

    def read(file: str, found: re.Match[str] | None, stamp: str) -> tuple[str, int]:
        if found is None:
            return _read(os.path.normpath(root / file))
        # Of a row the whole file's, of a member of a zip the CRC of all its bytes.
        return (f"{known[found[1]]} {found[2]}" if found[1] in known else stamp), 0

    with ThreadPoolExecutor(cpu_count()) as pool:  # hashing and reading release the GIL
        done = track(
            pool.map(read, files, inside, stamps), "comparing", total=len(files), unit="files"
        )
        found = list(done)
    return [sha256 for sha256, _ in found], max((newest for _, newest in found), default=0)


def _read(file: str) -> tuple[str, int]:
    """Return the SHA-256 of a file, and when it changed last."""
    try:
        if not S_ISREG(os.stat(file).st_mode):  # noqa: PTH116 - a pipe would be waited for
            return UNREADABLE, 0
        with open(file, "rb") as opened:  # noqa: PTH123 - for a million files
            changed = os.fstat(opened.fileno()).st_ctime_ns
            return hashlib.file_digest(opened, "sha256").hexdigest(), changed
    except OSError:
        return UNREADABLE, 0
