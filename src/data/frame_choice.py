"""Which frames of a folder or a list are items: some of each video, evenly spaced."""

import re
from collections.abc import Sequence

from src.data.video import spaced

BEYOND = "frames beyond frames_per_video"  # why a frame is left aside
_DIGITS = re.compile(r"(\d+)")


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
