"""One person through the frames of a clip."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.faces.crop import Face, area, between, iou

MIN_IOU = 0.3
SURE = 0.95  # MTCNN's score from which a face is hardly ever a piece of background
MAX_FACES = 3  # people of an item, at most
MIN_SHARE = 0.25  # of the frames, that a second person must be seen in
REACH = 2.0  # sides of its box that a head may move from one frame looked at to the next
GROWTH = 1.5  # times as long the side of its box may be afterwards, or before
PAUSE = 4  # frames looked at, after which a face that comes up may be anybody's

_TINY = 1e-9  # square pixels, of a box without any

Boxes = NDArray[np.float64]
Frames = dict[int, list[Face]]  # number of a frame in its clip -> the faces found; an image has 0
Track = dict[int, Face]  # number of a frame -> a person's face in it


class Placed(NamedTuple):
    """Where a person's face is in one frame."""

    face: Face  # box and points
    is_filled: bool  # not found in this frame: taken from the frames around it


def link(frames: Mapping[int, Sequence[Face]]) -> list[Track]:
    """Link the faces of each frame looked at to tracks, each of one head as far as boxes tell.

    A face goes on in one of a later frame that overlaps it (IoU of at least `MIN_IOU`), or, at
    most `PAUSE` frames looked at later, in one of similar size (`GROWTH`) that is as near as a
    head gets in so many frames (`REACH`). Greedy over the whole clip, by frames between plus
    sides between: the nearest pair first, and each face goes on once and is gone on to once.
    Faces of one frame are never linked, so that people who are seen together stay apart. The
    tracks come in the order in which they begin.
    """
    numbers = sorted(frames)
    faces = [(k, face) for k, number in enumerate(numbers) for face in frames[number]]
    following: dict[int, int] = {}
    before: dict[int, int] = {}
    for one, other in _pairs(faces):
        if one not in following and other not in before:
            following[one], before[other] = other, one
    tracks = []
    for place in (first for first in range(len(faces)) if first not in before):
        track: Track = {}
        one: int | None = place
        while one is not None:
            step, face = faces[one]
            track[numbers[step]] = face
            one = following.get(one)
        tracks.append(track)
    return tracks


def people(frames: Frames, sure: float = SURE) -> list[Track]:
    """Return the people of an item, `MAX_FACES` at most, the one to be seen most first.

    A track of which no face has a score of at least `sure` counts only where none of the item is.
    They are ranked by their area, summed over the frames; from the second on, each is in at least
    `MIN_SHARE` of the frames, and in one together with the first: who never is may be the first
    after a cut. In a frame without a person's face, the person takes the largest sure face that
    is nobody else's of those returned.
    """
    tracks = link(frames)
    if any(_is_sure(track, sure) for track in tracks):
        tracks = [track for track in tracks if _is_sure(track, sure)]
    tracks.sort(key=_size, reverse=True)
    others = [
        track
        for track in tracks[1:]
        if len(track) >= MIN_SHARE * len(frames) and not track.keys().isdisjoint(tracks[0])
    ]
    kept = [*tracks[:1], *others][:MAX_FACES]
    for number, faces in frames.items():
        _share_out(kept, number, [face for face in faces if face.score >= sure])
    return kept


def place(track: Track, number: int) -> Placed:
    """Return where a person's face is in a frame.

    Between two frames that have it, it moves evenly, or is where it is in the nearer one if no
    head moves so far (a cut); before the first and after the last it stays where it is there.
    """
    if number in track:
        return Placed(track[number], False)
    before = max((n for n in track if n < number), default=min(track))
    after = min((n for n in track if n > number), default=max(track))
    share = 0.0 if before >= after else (number - before) / (after - before)
    share = min(1.0, max(0.0, share))
    shift, growth = _compare(np.array(track[before].box), np.array(track[after].box))
    if shift > REACH * PAUSE or growth > GROWTH:
        share = float(share >= 0.5)  # halfway lies what is neither the one nor the other
    return Placed(between(track[before], track[after], share), True)


def goes_on(box: Boxes, others: Boxes, gap: Boxes) -> list[tuple[float, int]]:
    """Return the places of the boxes in which a head may go on, each after how far off it is.

    As `link` has it: by frames between plus sides between.

    Args:
        box: (4,), where it was.
        others: (n, 4), where faces are later.
        gap: (n,), how many frames looked at later, above 0.
    """
    shift, growth = _compare(box, others)
    moved = (growth <= GROWTH) & (shift <= REACH * gap) & (gap <= PAUSE)
    near = shift < 2  # farther apart, no boxes of faces overlap by `MIN_IOU`
    return [
        (float(gap[k] + shift[k]), k)
        for k in np.flatnonzero(moved | near).tolist()
        if moved[k] or iou(tuple(box.tolist()), tuple(others[k].tolist())) >= MIN_IOU
    ]


def _pairs(faces: Sequence[tuple[int, Face]]) -> list[tuple[int, int]]:
    """Return the places of faces that may be of one head, the nearest first.

    Each face stands with the place of its frame among those looked at, ascending.
    """
    step = np.array([step for step, _ in faces])
    box = np.array([face.box for _, face in faces], np.float64)
    found: list[tuple[float, int, int]] = []
    for one in range(len(faces)):  # a table of all pairs would fill the memory in a crowd
        later = int(np.searchsorted(step, step[one], "right"))
        gap = step[later:] - step[one]
        found += [(far, one, later + k) for far, k in goes_on(box[one], box[later:], gap)]
    return [(one, other) for _, one, other in sorted(found)]


def _share_out(kept: Sequence[Track], number: int, sure: Sequence[Face]) -> None:
    """Give a frame's sure faces that are nobody's to those whom it lacks, the largest first."""
    owned = [track[number] for track in kept if number in track]
    free = [face for face in sure if face not in owned]
    free.sort(key=lambda face: area(face.box), reverse=True)
    lacking = [track for track in kept if number not in track]
    for track, face in zip(lacking, free, strict=False):
        track[number] = face


def _compare(one: Boxes, other: Boxes) -> tuple[Boxes, Boxes]:
    """Compare boxes (..., 4): sides of the larger between their middles, times as long a side."""
    sides = [np.sqrt(np.maximum((b[..., 2:] - b[..., :2]).prod(-1), _TINY)) for b in (one, other)]
    large, small = np.maximum(*sides), np.minimum(*sides)
    ways = (one[..., :2] + one[..., 2:] - other[..., :2] - other[..., 2:]) / 2
    return np.hypot(ways[..., 0], ways[..., 1]) / large, large / small


def _size(track: Track) -> float:
    return sum(area(face.box) for face in track.values())


def _is_sure(track: Track, sure: float) -> bool:
    return any(face.score >= sure for face in track.values())
