"""Clips to frames: evenly spaced over the whole clip, read from its start to its end, never sought.

A seek lands where the container's index says, and on a damaged file OpenCV hands out stale frames
as good ones. A pass from the start gives frame i as frame i, or none.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.data.video_decoders import DECODERS, ClipInfo, Picture, UnreadableVideoError

MAX_DECODED = 500_000  # frames looked at, whatever a header says: 4.6 hours at 30 a second
MISSING_SHARE = 0.02  # of the announced frames; containers count, and round, so many wrongly
MISSING_FRAMES = 2

Pick = Callable[[int], Sequence[int]]


class Clip(NamedTuple):
    """Frames of a clip.

    Attributes:
        frames: uint8 RGB (height, width, 3), or whatever `convert` made of them; in order.
        indices: int64, which frames of the clip these are.
        announced: number of frames in the header; 0 where it says nothing.
        decoded: number of frames that can be decoded.
        problem: "" or in words what is wrong with a clip that was read only in part.
    """

    frames: list[Any]
    indices: NDArray[np.int64]
    announced: int
    decoded: int
    problem: str


def spaced(total: int, count: int) -> NDArray[np.int64]:
    """Return the centres of `count` equal parts of 0..total-1; each once where there are fewer.

    Returns:
        int64 (min(total, count),), ascending, without repeats.
    """
    count = min(total, count)
    return np.array([(2 * k + 1) * total // (2 * count) for k in range(count)], np.int64)


def probe(path: Path, decoder: str = "opencv") -> ClipInfo:
    """Return what a clip's header announces.

    Raises:
        UnreadableVideoError: no clip, or one that announces an absurd length.
    """
    stream = DECODERS.get(decoder)(path)
    stream.close()
    return stream.info


def read_frames(
    path: Path,
    count: int,
    *,
    pick: Pick | None = None,
    convert: Callable[[Picture, int], Any] | None = None,
    decoder: str = "opencv",
) -> Clip:
    """Return frames evenly spaced over a whole clip: the centres of `count` equal parts.

    A clip of fewer frames gives each of them once. Where fewer can be decoded than the header
    announces (a file that was cut off, a header that lies), they are spaced over those that can.

    Args:
        path: the file.
        count: of frames.
        pick: how many frames there will be -> which of them are wanted; None wants all.
        convert: applied to each wanted frame and its number at once, so that full frames need
            not be kept.
        decoder: name in `DECODERS`.

    Raises:
        UnreadableVideoError: not a clip, no video stream, an absurd length, or not one frame that
            can be decoded.
    """
    announced = probe(path, decoder).announced
    places = _wanted(announced, count, pick)
    frames, decoded = _one_pass(path, places, convert, decoder)
    right = _wanted(decoded, count, pick)
    if not np.array_equal(places, right):
        places = right
        frames, _ = _one_pass(path, places, convert, decoder)
    found = [place for place in places.tolist() if place in frames]
    if not found:
        what = f"0 of {announced} announced frames" if announced else "not one frame"
        raise UnreadableVideoError(f"{what} can be decoded (no video stream, or damaged)")
    problem = _problem(announced, decoded, len(places) - len(found))
    kept = [frames[place] for place in found]
    return Clip(kept, np.array(found, np.int64), announced, decoded, problem)


def _wanted(total: int, count: int, pick: Pick | None) -> NDArray[np.int64]:
    places = spaced(total, count)
    return places if pick is None or not len(places) else places[list(pick(len(places)))]


def _one_pass(
    path: Path,
    places: NDArray[np.int64],
    convert: Callable[[Picture, int], Any] | None,
    decoder: str,
) -> tuple[dict[int, Any], int]:
    """Return the frames at these places, as far as they can be decoded, and how many there are."""
    wanted, found, number = set(places.tolist()), {}, 0
    stream = DECODERS.get(decoder)(path)
    try:
        while number < MAX_DECODED and stream.grab():
            if number in wanted:
                frame = stream.retrieve()
                if frame is not None:
                    found[number] = frame if convert is None else convert(frame, number)
            number += 1
    finally:
        stream.close()
    return found, number


def _problem(announced: int, decoded: int, lost: int) -> str:
    if decoded >= MAX_DECODED:
        return f"only its first {decoded} frames were looked at"
    if announced - decoded > max(MISSING_FRAMES, MISSING_SHARE * announced):
        return f"decoded {decoded} of {announced} frames"
    return f"{lost} of the wanted frames cannot be decoded" if lost else ""
