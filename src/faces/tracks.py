"""One person through the frames of a clip."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from src.faces.boxes import Box, Face, area, between, iou

MIN_IOU = 0.3
SURE = 0.95  # a detector's score from which a face is hardly ever a piece of background
MAX_FACES = 3  # people of an item, at most
MIN_SHARE = 0.25  # of the frames, that a second person must be seen in

Frames = dict[int, list[Face]]  # number of a frame in its clip -> the faces found; an image has 0
Track = dict[int, Face]  # number of a frame -> a person's face in it


class Placed(NamedTuple):
    """Where a person's face is in one frame.

    Attributes:
        face: box and points.
        is_filled: not found in this frame: taken from the frames around it.
    """

    face: Face
    is_filled: bool


def link(frames: Mapping[int, Sequence[Face]]) -> list[Track]:
    """Link the faces of successive frames to tracks, those that overlap most first.

    Greedy: a face joins the track whose last box it overlaps most (IoU of at least `MIN_IOU`),
    each track and each face once a frame; what is left over begins a track of its own. A track
    may pass over frames.

    Args:
        frames: the faces of each frame.

    Returns:
        The tracks, in the order in which they begin.
    """
    tracks: list[Track] = []
    for number, faces in sorted(frames.items()):
        pairs = sorted(
            (
                (iou(_last(track), face.box), t, f)
                for t, track in enumerate(tracks)
                for f, face in enumerate(faces)
            ),
            key=lambda pair: (-pair[0], pair[1], pair[2]),
        )
        taken: set[int] = set()
        for overlap, t, f in pairs:
            if overlap >= MIN_IOU and f not in taken and number not in tracks[t]:
                tracks[t][number] = faces[f]
                taken.add(f)
        tracks += [{number: face} for f, face in enumerate(faces) if f not in taken]
    return tracks


def people(frames: Frames) -> list[Track]:
    """Return the people of an item, the one to be seen most first.

    A track of which no face is sure (`SURE`) counts only where none of the item is. They are
    ranked by their area, summed over the frames; from the second on, each is in at least
    `MIN_SHARE` of the frames.

    Args:
        frames: what was found in each frame looked at; an image has one.

    Returns:
        `MAX_FACES` tracks at most; none where no frame has a face.
    """
    tracks = link(frames)
    if any(_is_sure(track) for track in tracks):
        tracks = [track for track in tracks if _is_sure(track)]
    tracks.sort(key=_size, reverse=True)
    others = [track for track in tracks[1:] if len(track) >= MIN_SHARE * len(frames)]
    return [*tracks[:1], *others][:MAX_FACES]


def place(track: Track, number: int) -> Placed:
    """Return where a person's face is in a frame.

    Between two frames that have it, it moves evenly; before the first and after the last it
    stays where it is there.
    """
    if number in track:
        return Placed(track[number], False)
    before = max((n for n in track if n < number), default=min(track))
    after = min((n for n in track if n > number), default=max(track))
    share = 0.0 if before >= after else (number - before) / (after - before)
    return Placed(between(track[before], track[after], min(1.0, max(0.0, share))), True)


def _last(track: Track) -> Box:
    return track[max(track)].box


def _size(track: Track) -> float:
    return sum(area(face.box) for face in track.values())


def _is_sure(track: Track) -> bool:
    return any(face.score >= SURE for face in track.values())
