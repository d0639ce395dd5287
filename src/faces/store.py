"""Boxes on disk: found once for an item, used by every model that crops faces.

`<folder>/<name>.parquet`: one row a face, or one with face -1 for a frame without one. Parts are
written now and then, so that a killed process loses a few seconds; a finished search has one file.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from src.artifacts.atomic import atomic_path
from src.faces.crop import Face
from src.faces.tracks import Frames

NOTHING = -1  # in place of a face's number
_TYPES = {"mark": np.uint64, "path": object, "frame": np.int32, "face": np.int16} | dict.fromkeys(
    ("x0", "y0", "x1", "y1", "score", *(f"p{k}" for k in range(10))), np.float64
)
COLUMNS = list(_TYPES)
_WHOLE = "boxes"


class Found(NamedTuple):
    """What was found in one item."""

    mark: int  # changes with the item's path, size, time stamp or bytes, and the frames looked at
    path: str  # of the item, for people
    frames: Frames  # the faces of each frame looked at


def read_boxes(folder: Path) -> dict[int, Frames]:
    """Return the faces by mark of every item whose search was written.

    A damaged file counts as none: its items are searched again.
    """
    found: dict[int, Frames] = {}
    for table in _tables(_files(folder)):
        found |= _as_frames(table)
    return found


def write_part(folder: Path, items: Sequence[Found]) -> None:
    """Write the faces of some items beside those that are there already."""
    numbers = [int(f.stem) for f in _files(folder) if f.stem.isdecimal()]
    _write(folder / f"{max(numbers, default=-1) + 1:06d}.parquet", _as_table(items))


def join_parts(folder: Path) -> None:
    """Put all parts into one file; an item found twice keeps what was found last."""
    files = _files(folder)
    if len(files) < 2:
        return
    tables = [table.assign(part=number) for number, table in enumerate(_tables(files))]
    if tables:
        whole = pd.concat(tables, ignore_index=True)
        last = whole["part"] == whole.groupby("mark")["part"].transform("max")
        _write(folder / f"{_WHOLE}.parquet", whole.loc[last, COLUMNS].reset_index(drop=True))
    for file in files:
        if file.stem != _WHOLE:
            file.unlink()


def _files(folder: Path) -> list[Path]:
    """Return the joined file, then the parts, oldest first."""
    files = sorted(folder.glob("*.parquet"))
    return sorted(files, key=lambda file: (file.stem != _WHOLE, file.stem))


def _tables(files: Iterable[Path]) -> Iterator[pd.DataFrame]:
    for file in files:
        try:
            table = pd.read_parquet(file, page_checksum_verification=True)
        except (OSError, ValueError, NotImplementedError, LookupError, TypeError):
            continue
        if list(table.columns) == COLUMNS:
            yield table


def _write(file: Path, table: pd.DataFrame) -> None:
    with atomic_path(file) as temporary:
        table.to_parquet(temporary, index=False, write_page_checksum=True)


def _as_table(items: Iterable[Found]) -> pd.DataFrame:
    rows = [
        (item.mark, item.path, frame, *_row(number, face))
        for item in items
        for frame, faces in item.frames.items()
        for number, face in (enumerate(faces) if faces else [(NOTHING, None)])
    ]
    return pd.DataFrame(rows, columns=pd.Index(COLUMNS)).astype(_TYPES)


def _row(number: int, face: Face | None) -> tuple[float, ...]:
    if face is None:
        return (NOTHING, *[np.nan] * 15)
    points = [value for point in face.points or () for value in point] or [np.nan] * 10
    return (number, *face.box, face.score, *points)


def _as_frames(table: pd.DataFrame) -> dict[int, Frames]:
    found: dict[int, Frames] = {}
    numbers = table[COLUMNS[4:]].to_numpy(np.float64).tolist()
    rows = zip(table["mark"].tolist(), table["frame"].tolist(), table["face"].tolist(), strict=True)
    for (mark, frame, face), values in zip(rows, numbers, strict=True):
        faces = found.setdefault(mark, {}).setdefault(frame, [])
        if face != NOTHING:
            faces.append(_face(values))
    return found


def _face(values: Sequence[float]) -> Face:
    x0, y0, x1, y1, score, *marks = values
    points = None if np.isnan(marks[0]) else tuple(zip(marks[::2], marks[1::2], strict=True))
    return Face((x0, y0, x1, y1), score, points)
