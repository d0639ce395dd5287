"""Landmarks of faces as canvases show them: found once, kept on disk beside the pixels.

They are known by the canvas's own pixels: whatever crop, clip or archive these came from, equal
pixels have equal points.
"""

import hashlib
import logging
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.artifacts.atomic import atomic_path
from src.config import FaceConfig
from src.data.pixels.reader import ItemReader
from src.errors import UserError
from src.faces.crop import Picture, area
from src.faces.detectors import detect_each, detector_of, shrink
from src.faces.mesh import COUNT, landmarks
from src.faces.mesh import Landmarks as Points
from src.machine import decoding_threads
from src.progress import track

LOG = logging.getLogger("rvf")
TOGETHER = 32  # items that are looked at side by side
A_PART = 2048  # canvases of a file on disk: what a killed process may lose
FACE = FaceConfig()  # a canvas may be a crop: its face is looked for anew, by the default detector


class Landmarks:
    """The 468 points of the largest face of canvases, where they show one.

    `home` is the folder of the data set's landmarks; None keeps nothing on disk.
    """

    def __init__(self, home: Path | None) -> None:
        self._home = None if home is None else home / detector_of(FACE).identity
        # float16, for there are many: to a quarter of a pixel at 512 px
        self._known: dict[bytes, NDArray[np.float16] | None] = {}

    def find(self, source: ItemReader, items: Sequence[int], canvas: int = 0) -> list[int]:
        """Look for the points of items' canvases, in every frame; return items that show no face.

        Raises:
            UserError: an item cannot be decoded; the package of the nets is not installed.
        """
        earlier = dict(_read_parts(self._home))
        lost: list[int] = []
        new: dict[bytes, NDArray[np.float16] | None] = {}
        parts = [items[start : start + TOGETHER] for start in range(0, len(items), TOGETHER)]
        with decoding_threads() as pool:
            for part in track(parts, "landmarks", unit="batch"):
                drawn = list(pool.map(source.slots_or_stop, part))
                canvases = [slot[canvas] for slots in drawn for slot in slots]
                keys = list(pool.map(key_of, canvases))
                self._known |= {key: earlier[key] for key in keys if key in earlier}
                left = {k: c for k, c in zip(keys, canvases, strict=True) if k not in self._known}
                points = map(_packed, pool.map(points_of, left.values()))
                found = dict(zip(left, points, strict=True))
                self._known |= found
                new |= found
                ends = iter(keys)
                for item, slots in zip(part, drawn, strict=True):
                    if all(self._known[next(ends)] is None for _ in slots):
                        lost.append(item)
                if len(new) >= A_PART:
                    _write_part(self._home, new)
                    new = {}
        _write_part(self._home, new)
        return lost

    def of(self, canvas: Picture) -> Points | None:
        """Return the points of a canvas's face, float64 (468, 2) of x, y in its pixels.

        None where it shows none. A canvas that was not searched is looked at now.
        """
        key = key_of(canvas)
        if key not in self._known:
            self._known[key] = _packed(points_of(canvas))
        found = self._known[key]
        return None if found is None else found.astype(np.float64)


def key_of(canvas: Picture) -> bytes:
    """Return what a canvas is known by: a digest of its pixels and its shape."""
    digest = hashlib.blake2b(canvas.tobytes(), digest_size=8)
    digest.update(str(canvas.shape).encode())
    return digest.digest()


def points_of(canvas: Picture) -> Points | None:
    """Return the points of the largest face in a picture (uint8 RGB); None where there is none."""
    detector = detector_of(FACE)
    faces = detect_each(detector, [shrink(canvas, detector)])[0]
    if not faces:
        return None
    return landmarks(canvas, max(faces, key=lambda face: area(face.box)))


def _packed(points: Points | None) -> NDArray[np.float16] | None:
    return None if points is None else points.astype(np.float16)


def _read_parts(home: Path | None) -> Iterator[tuple[bytes, NDArray[np.float16] | None]]:
    """Yield what was found earlier; a damaged file counts as none."""
    for file in sorted(home.glob("*.npz")) if home is not None and home.is_dir() else ():
        try:
            with file.open("rb") as data, np.load(data) as part:
                keys, points = part["keys"], part["points"]
            shape, kinds = (len(keys), COUNT, 2), (keys.dtype, points.dtype)
            if points.shape != shape or kinds != (np.uint64, np.float16):
                raise ValueError("other contents")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            LOG.warning("landmarks: %s is damaged (%s): its faces are looked for anew", file, error)
            continue
        for key, marks in zip(keys, points, strict=True):
            yield key.tobytes(), None if np.isnan(marks).any() else marks.copy()


def _write_part(home: Path | None, new: dict[bytes, NDArray[np.float16] | None]) -> None:
    """Write what was found into a file of its own, where that can be."""
    if home is None or not new:
        return
    keys = np.frombuffer(b"".join(new), np.uint64)
    none = np.full((COUNT, 2), np.nan, np.float16)
    points = np.stack([none if one is None else one for one in new.values()])
    name = hashlib.blake2b(keys.tobytes(), digest_size=8).hexdigest()
    try:
        with atomic_path(home / f"{name}.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, keys=keys, points=points)
    except (OSError, UserError) as error:
        LOG.info("landmarks: looked for anew each time, for they cannot be kept (%s)", error)
