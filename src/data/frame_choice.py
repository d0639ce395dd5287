"""Which frames are taken of many, evenly spaced: of a clip, a folder, a list."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BEYOND = "frames beyond frames_per_video"  # why a frame is left aside
_DIGITS = re.compile(r"(\d+)")


def spaced(total: int, count: int) -> NDArray[np.int64]:
    """Return the centres of `count` equal parts of 0..total-1; each once where there are fewer.

    Returns:
        int64 (min(total, count),), ascending, without repeats.
    """
    count = min(total, count)
    return np.array([(2 * k + 1) * total // (2 * count) for k in range(count)], np.int64)


def choose_frames(paths: Sequence[str], count: int | None) -> list[str]:
    """Return `count` of a video's frames, evenly spaced over those that are given; all for None.

    They are ordered as their numbers are: `frame_2` before `frame_10`.
    """
    if count is None or len(paths) <= count:
        return list(paths)
    ordered = sorted(paths, key=_by_numbers)
    return [ordered[place] for place in spaced(len(ordered), count).tolist()]


def _by_numbers(path: str) -> list[tuple[int, str]]:
    parts = _DIGITS.split(path)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
