"""Pixels on disk: what was decoded once is mapped into memory by every later run.

A cache is a folder, `<home>/<canvas>/<key>/`, moved into place when it is whole:
`pixels.u8` (n, size, size, 3), `items.npy` (a mark for each of the n items), `about.json`.
"""

import hashlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import PIL
import simplejpeg
from numpy.typing import NDArray

from src.artifacts.files import sha256_json
from src.data.pixels.images import Canvas
from src.faces.detectors import face_key

LOG = logging.getLogger("rvf")
VERSION = 1  # of decoding and resizing: a cache of another version is not used
CHUNK_BYTES = 2**24  # of a record of the growing file, which counts as a whole
PROBES = 64  # rows whose checksum is looked at when a cache is opened
DISK_SHARE = 0.9  # of what is free may be filled
MISSING, ABSENT = -1, -2  # in place of a row: not in this cache; known not to exist
UNFINISHED = ".unfinished"  # ends the name of a cache's folder while it is made
_NOT_THERE = np.uint64(0x5DEECE66D1CE4E5B)  # turns the mark of a frame into that of its absence

Marks = NDArray[np.uint64]


class NoRoomError(Exception):
    """The pixels cannot be kept there; the message says why."""


class Stored(NamedTuple):
    """An open cache."""

    pixels: NDArray[np.uint8]  # uint8 (n, size, size, 3), read-only, mapped
    # row in `pixels` of each item that was asked for, int64; `ABSENT` for a frame that its clip is
    # too short to have
    rows: NDArray[np.int64]


def mark_items(paths: Iterable[str], stamps: Iterable[tuple[int, ...]]) -> Marks:
    """Return a 64-bit mark of each item, which changes with its path, size or stamp."""
    texts = (f"{path}\0{stamp}" for path, stamp in zip(paths, stamps, strict=True))
    digests = (hashlib.blake2b(t.encode(errors="surrogateescape"), digest_size=8) for t in texts)
    return np.frombuffer(b"".join(one.digest() for one in digests), "<u8").astype(np.uint64)


def missing_space(home: Path, canvas: Canvas, marks: Marks) -> str:
    """Say why the cache of these items cannot be written below `home`; "" where it can."""
    need = 3 * canvas.size**2 * len(marks)
    partial = home / canvas_name(canvas) / f"{cache_key(canvas, marks)}{UNFINISHED}"
    need -= sum(file.stat().st_size for file in partial.glob("*pixels.u8*"))  # by an earlier build
    return no_room(home, need)


def begun(home: Path, canvas: Canvas) -> bool:
    """Tell whether any cache of a canvas is there, whole or not."""
    return any(folder.is_dir() for folder in (home / canvas_name(canvas)).glob("*"))


def no_room(home: Path, need: int) -> str:
    """Say why so many bytes cannot be written below `home`; "" where they can."""
    place = home
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        return f"{place} is not writable"
    free = shutil.disk_usage(place).free
    if need <= DISK_SHARE * free:
        return ""
    return f"{gb(need)} do not fit into {DISK_SHARE:.0%} of the {gb(free)} free on disk"


def gb(count: float) -> str:
    """Return a number of bytes as `1.23 GB`."""
    return f"{count / 1e9:.3g} GB"


def open_cache(home: Path, canvas: Canvas, marks: Marks) -> Stored | None:
    """Open a whole cache that holds all these items; None where there is none.

    A cache of more items will do. A damaged one counts as none.
    """
    for folder in finished(home / canvas_name(canvas)):
        found = open_folder(folder, canvas, marks)
        if found is not None and (found.rows != MISSING).all():
            return found
    return None


def canvas_name(canvas: Canvas) -> str:
    """Return the folder name of a canvas: `squash_256_bicubic`."""
    name = f"{canvas.geometry}_{canvas.size}_{canvas.interpolation}"
    if canvas.reencode is not None:
        name += f"_q{canvas.reencode}"
    return name if canvas.face is None else f"{name}_face_{sha256_json(face_key(canvas.face))[:8]}"


def identity(canvas: Canvas) -> list[Any]:
    """Return what decides the pixels of an item, beside its file."""
    way = list(canvas[:3] if canvas.reencode is None else [*canvas[:4], "OpenCV's JPEG"])
    if canvas.face is not None:
        way += face_key(canvas.face)
    return [VERSION, way, cv2.__version__, simplejpeg.__version__, PIL.__version__]


def cache_key(canvas: Canvas, marks: Marks) -> str:
    """Return the folder name of the cache of exactly these items, in this order."""
    items = hashlib.sha256(marks.tobytes()).hexdigest()
    return sha256_json([identity(canvas), CHUNK_BYTES, items])[:16]


def finished(place: Path) -> list[Path]:
    """Return the folders of a canvas that were moved into place, damaged or not."""
    return sorted(f for f in place.glob("*") if f.is_dir() and not f.suffix)


def open_folder(folder: Path, canvas: Canvas, marks: Marks) -> Stored | None:
    """Map a cache after cheap checks: its size, its list of items, the checksums of a few rows.

    `MISSING` is the row of an item it does not hold; None if it is damaged or of another version.
    """
    try:
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        items = np.load(folder / "items.npy")
        shape = (len(items), canvas.size, canvas.size, 3)
        if about["identity"] != identity(canvas):
            return None
        pixels = np.asarray(np.memmap(folder / "pixels.u8", np.uint8, "r"))
        listed = (items.ndim, items.dtype) == (1, np.uint64)
        if not listed or zlib.crc32(items.tobytes()) != about["items"]:
            raise ValueError("its list of items")
        pixels = pixels.reshape(shape)
        if probe(pixels) != about["probes"]:
            raise ValueError("its pixels")
    except Exception as error:  # noqa: BLE001 - NumPy reads a header as code: anything may come
        LOG.warning("pixel cache: %s is damaged (%s), so it is not used", folder, error)
        return None
    rows = _locate(items, marks)
    if (rows == MISSING).any():
        rows[(rows == MISSING) & (_locate(items, absence_of(marks)) != MISSING)] = ABSENT
    return Stored(pixels, rows)


def absence_of(marks: Marks) -> Marks:
    """Return the marks that stand in `items.npy` where a clip has no such frame."""
    return marks ^ _NOT_THERE


def _locate(items: Marks, wanted: Marks) -> NDArray[np.int64]:
    if np.array_equal(items[: len(wanted)], wanted):  # as most caches are read
        return np.arange(len(wanted))
    order = np.argsort(items, kind="stable")
    places = np.searchsorted(items, wanted, sorter=order)
    rows = order[np.minimum(places, len(items) - 1)]
    return np.where(items[rows] == wanted, rows, MISSING)


def probe(pixels: NDArray[np.uint8]) -> list[int]:
    """Return the CRC-32 of a few rows spread over the whole."""
    rows = np.unique(np.linspace(0, len(pixels) - 1, PROBES).astype(np.int64))
    return [zlib.crc32(pixels[row].tobytes()) for row in rows]
