"""Which files are frames of one video by their names, and which of a video's frames are items."""

import re
from collections.abc import Sequence

from src.data.video import spaced

BEYOND = "frames beyond frames_per_video"  # why a frame is left aside
_DIGITS = re.compile(r"(\d+)")
# `v0_frame12`, `v0-frame-12`, `v0frame12`, `v0_f0012`, `v0.mp4_12`, a face's number behind.
_FRAME = re.compile(
    r"(?P<video>.+?)(?:[_\s-]frame[_\s-]*\d+|(?<=\d)frame\d+|[_\s-]f\d{3,}"
    r"|\.(?:mp4|avi|mov|mkv|webm|mpe?g)[_-]\d+)(?:[_-]face[_-]?\d+)?",
    re.IGNORECASE,
)


def choose_frames(paths: Sequence[str], count: int | None) -> list[str]:
    """Return `count` of a video's frames, evenly spaced over those that are given; all for None.

    They are ordered as their numbers are: `frame_2` before `frame_10`.
    """
    if count is None or len(paths) <= count:
        return list(paths)
    ordered = sorted(paths, key=_by_numbers)
    return [ordered[place] for place in spaced(len(ordered), count).tolist()]


def video_of_frame(stem: str) -> str:
    """Return the video that a file's name (without suffix) says it is a frame of; "" for none.

    A number alone says nothing: `img_001` is a numbered picture.
    """
    found = _FRAME.fullmatch(stem)
    return "" if found is None else found["video"]


def _by_numbers(path: str) -> list[tuple[int, str]]:
    parts = _DIGITS.split(path)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
