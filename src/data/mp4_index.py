"""How many frames the index of an MP4 (MOV, M4V, 3GP) shows: samples less what an edit list hides.

A trim without encoding anew keeps the samples before its first key frame, and often those behind
its end; players, and FFmpeg, leave them out.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MAX_INDEX = 64 << 20  # bytes; 4 hours at 60 frames a second have less than a fifth
MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")  # with which one may begin
Span = tuple[int, int]


def shown_frames(path: Path, limit: int) -> int | None:
    """Return how many frames an MP4's only video track shows, without decoding anything.

    Args:
        path: the file, of whatever kind.
        limit: of samples; what lists more is not looked into.

    Returns:
        None where this cannot be told: no MP4, cut into fragments, several video tracks, damaged.
    """
    try:
        index = _index(path)
        return None if index is None else _shown(index, limit)
    except (struct.error, ValueError, KeyError):
        return None


def _file_boxes(path: Path) -> Iterator[tuple[bytes, int, int]]:
    """Yield the outermost boxes of an MP4: name, start of the content, end."""
    size = path.stat().st_size
    place = 0
    with path.open("rb") as stream:
        while place + 8 <= size:
            stream.seek(place)
            name, start, end = read_box(stream.read(16), 0, size - place)
            yield name, place + start, place + end
            place += end


def _index(path: Path) -> bytes | None:
    for name, start, end in _file_boxes(path):
        if name == b"moov" and end - start <= MAX_INDEX:
            with path.open("rb") as stream:
                stream.seek(start)
                found = stream.read(end - start)
            return found if len(found) == end - start else None
    return None


def read_box(data: bytes, place: int, room: int) -> tuple[bytes, int, int]:
    """Return name, start of the content and end of the box at a place.

    A size of 0 means all that follows, `room` bytes.

    Raises:
        ValueError, struct.error: there is no box.
    """
    size, name = struct.unpack_from(">I4s", data, place)
    head = 8
    if size == 1:
        head, size = 16, struct.unpack_from(">Q", data, place + 8)[0]
    size = size or room
    if size < head or not name.strip(b"\xa9").isascii() or name == bytes(4):
        raise ValueError(f"no box at {place}")
    return name, place + head, place + size


def _inside(data: bytes, span: Span) -> list[tuple[bytes, Span]]:
    """Return the boxes within a box; what follows a broken one is left out."""
    place, found = span[0], []
    while place + 8 <= span[1]:
        if data[place : place + 4] == bytes(4):  # the end of QuickTime's lists
            break
        name, start, end = read_box(data, place, span[1] - place)
        found.append((name, (start, min(end, span[1]))))
        place = end
    return found


def _child(data: bytes, span: Span, *names: bytes) -> Span:
    """Return the first box along a path of names; KeyError where there is none."""
    for name in names:
        span = dict(reversed(_inside(data, span)))[name]
    return span


def _shown(data: bytes, limit: int) -> int | None:
    top = _inside(data, (0, len(data)))
    if any(name == b"mvex" for name, _ in top):
        return None
    tracks = [span for name, span in top if name == b"trak" and _handler(data, span) == b"vide"]
    if len(tracks) != 1:
        return None
    times = _times(data, _child(data, tracks[0], b"mdia", b"minf", b"stbl"), limit)
    if times is None:
        return None
    edits = _edits(data, tracks[0], _scale(data, _child(data, (0, len(data)), b"mvhd")))
    if not edits:
        return len(times)
    return sum(int(((times >= begin) & (times < end)).sum()) for begin, end in edits)


def _handler(data: bytes, track: Span) -> bytes:
    start, _ = _child(data, track, b"mdia", b"hdlr")
    return data[start + 8 : start + 12]


def _scale(data: bytes, header: Span) -> int:
    """Return the ticks a second of an mvhd or mdhd."""
    scale = struct.unpack_from(">I", data, header[0] + (20 if data[header[0]] else 12))[0]
    if not scale:
        raise ValueError("no time scale")
    return scale


def _times(data: bytes, table: Span, limit: int) -> NDArray[np.int64] | None:
    """Return when each sample is shown, in the track's ticks; None without or with too many."""
    lasting = _pairs(data, _child(data, table, b"stts"))
    if not 0 < lasting[:, 0].sum() <= limit:
        return None
    steps = np.repeat(lasting[:, 1], lasting[:, 0])
    times = np.cumsum(steps) - steps
    if any(name == b"ctts" for name, _ in _inside(data, table)):
        moved = _pairs(data, _child(data, table, b"ctts"))
        if not 0 < moved[:, 0].sum() <= limit:
            return None
        later = np.repeat(moved[:, 1].astype(np.uint32).astype(np.int32), moved[:, 0])
        number = min(len(later), len(times))
        times[:number] += later[:number]
    return times


def _pairs(data: bytes, box: Span) -> NDArray[np.int64]:
    """Return the run lengths and values of an stts or ctts, int64 (runs, 2)."""
    count = struct.unpack_from(">I", data, box[0] + 4)[0]
    if box[0] + 8 + 8 * count > box[1]:
        raise ValueError("the table is longer than its box")
    return np.frombuffer(data, ">u4", 2 * count, box[0] + 8).reshape(-1, 2).astype(np.int64)


def _edits(data: bytes, track: Span, movie_scale: int) -> list[tuple[int, float]]:
    """Return begin and end, in the track's ticks, of what is shown; [] where all of it is."""
    try:
        start, end = _child(data, track, b"edts", b"elst")
    except KeyError:
        return []
    scale = _scale(data, _child(data, track, b"mdia", b"mdhd"))
    form = ">QqI" if data[start] else ">IiI"
    count = struct.unpack_from(">I", data, start + 4)[0]
    if start + 8 + count * struct.calcsize(form) > end:
        raise ValueError("the edit list is longer than its box")
    found = []
    for number in range(count):
        lasts, begin, _ = struct.unpack_from(form, data, start + 8 + number * struct.calcsize(form))
        if begin >= 0:  # -1: nothing is shown for so long
            ticks = (lasts * scale + movie_scale // 2) // movie_scale
            found.append((begin, begin + ticks if lasts else float("inf")))
    return found
