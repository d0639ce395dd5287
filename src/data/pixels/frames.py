"""Which frames of an item are seen: numbers for the frames of a mixed list of images and clips.

A clip has *slots*, evenly spaced over it, as many as training or evaluation wants, whichever is
more; they are what a cache keeps. Evaluation looks at some of the slots, training draws from some.
An image has one of each, so where there are only images all numbers are those of the items.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.config import FramesConfig
from src.data.items.files import VIDEO_SUFFIXES
from src.texts import Texts

Rows = NDArray[np.int64]
_ENDS = tuple(VIDEO_SUFFIXES)
IMAGE = -1  # in place of the number of a frame: below that of a clip's first
BEYOND = "frames beyond frames_per_video"  # why a frame is left aside
_DIGITS = re.compile(r"(\d+)")


def spaced(total: int, count: int) -> Rows:
    """Return the centres of `count` equal parts of 0..total-1; each once where there are fewer."""
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


class FrameRows(NamedTuple):
    """Rows that evaluation looks at."""

    rows: Rows  # int64 (n,), numbers as `FrameNumbers` gives them
    place: Rows  # int64 (n,), place of each row's item among the items that were asked for
    frame: Rows  # int64 (n,), which of a clip's evaluation frames it is; `IMAGE` for an image


class FrameNumbers:
    """Numbers of the slots and of the evaluation frames of a list of items."""

    def __init__(self, paths: Sequence[str], frames: FramesConfig) -> None:
        self.frames = frames
        self.slots = max(frames.train, frames.eval)
        self.is_clip = _clips_among(paths)
        self.has_clips = bool(self.is_clip.any())
        self.slot_starts = _starts(self.is_clip, self.slots)
        same = not self.has_clips or self.slots == frames.eval
        self.eval_starts = self.slot_starts if same else _starts(self.is_clip, frames.eval)

    def eval_rows(self, items: Rows) -> FrameRows:
        """Return the rows of some items that evaluation looks at, item by item."""
        if not self.has_clips:
            return FrameRows(items, np.arange(len(items)), np.full(len(items), IMAGE))
        clip = self.is_clip[items]
        counts = np.where(clip, self.frames.eval, 1)
        place = np.repeat(np.arange(len(items)), counts)
        number = np.arange(len(place)) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = self.eval_starts[items][place] + number
        return FrameRows(rows, place, np.where(clip[place], number, IMAGE))

    def item_of(self, rows: Sequence[int], *, slots: bool = False) -> Rows:
        """Return the items that evaluation rows (or slots) are of."""
        if not self.has_clips:
            return np.asarray(rows, np.int64)
        starts = self.slot_starts if slots else self.eval_starts
        return np.searchsorted(starts, np.asarray(rows, np.int64), side="right") - 1

    def by_item(
        self, rows: Sequence[int], *, slots: bool = False
    ) -> Iterator[tuple[int, list[int]]]:
        """Yield each item with those of the evaluation rows (or slots) in a row that are its."""
        items = self.item_of(rows, slots=slots).tolist()
        for item, part in groupby(zip(items, rows, strict=True), key=lambda pair: pair[0]):
            yield item, [row for _, row in part]

    def eval_slots(self, held: int) -> Rows:
        """Return which of the `held` slots that a clip has evaluation looks at, in order."""
        return spaced(held, self.frames.eval)

    def train_slots(self, held: int) -> Rows:
        """Return which of the `held` slots that a clip has training draws from."""
        return spaced(held, self.frames.train)


def _clips_among(paths: Sequence[str]) -> NDArray[np.bool_]:
    if isinstance(paths, Texts):
        return paths.ends_with(_ENDS)
    return np.array([path.lower().endswith(_ENDS) for path in paths], bool)


def _starts(is_clip: NDArray[np.bool_], count: int) -> Rows:
    """Return the first row of each item, and the number of all rows."""
    starts = np.zeros(len(is_clip) + 1, np.int64)
    np.cumsum(np.where(is_clip, count, 1), out=starts[1:])
    return starts
