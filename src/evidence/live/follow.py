"""People followed from frame to frame as they come, by the rules by which clips are looked back at.

Online: what a face is called is never taken back. Who is out of sight too long comes back as
somebody new, and a number is never given twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.faces.crop import Box, Face, moved, scaled
from src.faces.tracks import goes_on

STEP = 0.5  # seconds that count as from one frame looked at of a clip to the next
HOLD = 4.0  # seconds out of sight after which nobody is waited for
# Seconds, at most, that somebody out of sight is expected to go on as before.
GLIDE = 0.5


@dataclass(eq=False)
class Followed:
    """One person."""

    face: Face  # where it was last seen
    first: float  # second of the source at which it was first seen
    last: float  # and last
    number: int = 0  # from 1; 0 as long as no sure face was seen
    pace: tuple[float, float] = (0.0, 0.0)  # px a second, of the middle of its box

    def expected(self, second: float) -> Face:
        """Return where it would be if it went on as it last did."""
        ahead = min(GLIDE, second - self.last)
        return moved(self.face, ahead * self.pace[0], ahead * self.pace[1])

    def see(self, face: Face, second: float) -> None:
        """Take note of where it is now."""
        since = second - self.last
        if 0 < since <= GLIDE:
            (x, y), (u, v) = _middle(self.face.box), _middle(face.box)
            self.pace = (u - x) / since, (v - y) / since
        else:
            self.pace = 0.0, 0.0
        self.face, self.last = face, second


class Follower:
    """Knows people again.

    Args:
        sure: score from which a face is hardly ever a piece of background; nobody has a number
            before one of theirs was that sure.
        step: seconds between two frames that are looked at.
    """

    def __init__(self, sure: float, step: float) -> None:
        self.sure, self.step = sure, max(STEP, step)
        self.hold = max(HOLD, 2 * step)
        self.known: list[Followed] = []
        self.given = 0  # how many numbers

    def follow(self, faces: Sequence[Face], second: float) -> list[Followed]:
        """Return who each face of a frame is; seconds never go back.

        As `src.faces.tracks.link`, with half a second for a frame looked at: the nearest first,
        each person once. Which pairs may be of one head is asked of where people were, which of
        them are nearest of where they would be now: two who pass each other keep their names.
        """
        self.known = [one for one in self.known if second - one.last <= self.hold]
        before = [one for one in self.known if one.last < second]
        found: list[Followed | None] = [None] * len(faces)
        taken: set[int] = set()
        for _, who, place in sorted(self._pairs(before, faces, second)):
            if who in taken or found[place] is not None:
                continue
            taken.add(who)
            found[place] = before[who]
            before[who].see(faces[place], second)
        people = []
        for face, known in zip(faces, found, strict=True):
            one = known
            if one is None:
                one = Followed(face, second, second)
                self.known.append(one)
            if not one.number and face.score >= self.sure:
                self.given += 1
                one.number = self.given
            people.append(one)
        return people

    def resize(self, across: float, down: float) -> None:
        """Go on in pictures that are so many times as wide and as high."""
        for one in self.known:
            one.face = scaled(one.face, across, down)
            one.pace = one.pace[0] * across, one.pace[1] * down

    def _pairs(
        self, before: Sequence[Followed], faces: Sequence[Face], second: float
    ) -> list[tuple[float, int, int]]:
        """Return how far off, the place among people, and among faces, of what may be one head."""
        if not faces:
            return []
        boxes, found = np.array([face.box for face in faces], np.float64), []
        for who, one in enumerate(before):
            gap = np.full(len(faces), max(1.0, (second - one.last) / self.step))
            places = [k for _, k in goes_on(np.array(one.face.box), boxes, gap)]
            guess = np.array(one.expected(second).box)
            far = {k: off for off, k in goes_on(guess, boxes, gap)}
            found += [(far.get(k, np.inf), who, k) for k in places]
        return found


def _middle(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
