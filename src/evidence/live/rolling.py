"""Frame by frame to verdicts on the last seconds: of each person, or of the whole picture."""

import time
from collections import deque
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import numpy as np

from src.evidence.closer import Says
from src.evidence.live.follow import Followed, Follower
from src.evidence.live.reader import SOON
from src.evidence.live.state import STEPS, Life, LiveFace, Rolling
from src.evidence.verdicts import BAND, FEW, UNSURE, WORDS
from src.faces.crop import Face, area
from src.inference.pictures import Look, Picture, PictureJudge

LEAST = 3  # frames; with fewer in its window a verdict is unsure
STAYS = 1.25  # times its area, by which somebody who is being judged is preferred
MOST_LIVES = 1000  # people who are remembered
PICTURE = 0  # the number of what is no person


@dataclass
class Took:
    """What the steps of one frame took, in seconds."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))
    began: float = field(default_factory=time.perf_counter)

    def end(self, step: str) -> None:
        """Count the time since the step before as this one's."""
        now = time.perf_counter()
        self.seconds[step] += now - self.began
        self.began = now


@dataclass
class _OnTrial:
    """A person, or the whole picture."""

    looks: deque[tuple[float, Look]]  # second -> what the nets said
    life: Life
    verdict: Rolling | None = None  # on its looks
    since: float = 0.0  # second up to which `held` counts
    # seconds of each word since the last look: they are its life's once there is another one
    held: dict[str, float] = field(default_factory=dict)

    def hold(self, second: float, longest: float) -> None:
        """Count the verdict up to now, at most `longest` seconds."""
        if self.verdict is not None:
            lasted = min(longest, max(0.0, second - self.since))
            self.held[self.verdict.said] = self.held.get(self.verdict.said, 0.0) + lasted
        self.since = second

    def age(self, second: float) -> bool:
        """Let go of looks up to a second; tells whether there were any."""
        before = len(self.looks)
        while self.looks and self.looks[0][0] <= second:
            self.looks.popleft()
        return len(self.looks) < before


class Verdicts:
    """Keeps what the nets said of the last seconds, and what follows from it.

    Args:
        judge: the recipe.
        says: turns P(fake) into a word.
        window: seconds that a verdict rests on.
        every: seconds between two frames that are looked at.
        most: people judged at a time, the largest.
        name: of the source.
    """

    def __init__(
        self, judge: PictureJudge, says: Says, window: float, every: float, most: int, name: str
    ) -> None:
        self.judge, self.says, self.window, self.every = judge, says, window, every
        self.most, self.name = most, name
        detector = judge.detector
        self.follower = None if detector is None else Follower(detector.sure, every)
        self.lives: dict[int, Life] = {}  # by number, in the order they came
        self.forgotten = 0  # people whose lives are not kept
        self._subjects: dict[int, _OnTrial] = {}
        self._size: tuple[int, int] | None = None
        self._room = 2 + int(window / every)  # frames of a window, at most

    def see(
        self, picture: Picture, number: int, second: float, took: Took
    ) -> tuple[list[LiveFace], Rolling | None]:
        """Look at a frame, uint8 RGB (height, width, 3): the people, or the picture's verdict."""
        if self.follower is None:
            took.end("detect")
            self._look(picture, [], [PICTURE], number, second, took)
            return [], self._subjects[PICTURE].verdict
        self._fit(self.follower, picture)
        found = self.judge.find(picture)
        people = [one for one in self.follower.follow(found, second) if one.number]
        people.sort(key=self._rank, reverse=True)
        chosen = people[: self.most]
        took.end("detect")
        numbers = [one.number for one in chosen]
        self._look(picture, [one.face for one in chosen], numbers, number, second, took)
        known = [one for one in self.follower.known if one.number]
        known.sort(key=lambda one: (one.last == second, self._rank(one)), reverse=True)
        self._forget({one.number for one in known})
        return [self._shown(one, second) for one in known], None

    def _fit(self, follower: Follower, picture: Picture) -> None:
        """Go on where pictures change their size."""
        size = picture.shape[:2]
        if self._size is not None and size != self._size:
            follower.resize(size[1] / self._size[1], size[0] / self._size[0])
        self._size = size

    def _rank(self, one: Followed) -> float:
        return area(one.face.box) * (STAYS if self._judged(one.number) else 1)

    def _judged(self, who: int) -> bool:
        return who in self._subjects and self._subjects[who].verdict is not None

    def _look(
        self, picture: Picture, faces: Sequence[Face], numbers: Sequence[int], number: int,
        second: float, took: Took,
    ) -> None:  # fmt: skip
        looks = dict(zip(numbers, self.judge.look(picture, faces, self.name, number), strict=True))
        took.end("nets")
        changed = self._age(second)
        for who, look in looks.items():
            if who not in self._subjects:
                life = self.lives.setdefault(who, Life(who, second, second))
                self._subjects[who] = _OnTrial(deque(maxlen=self._room), life, since=second)
            self._subjects[who].looks.append((second, look))
        self._vote(changed | looks.keys(), looks.keys(), second)
        took.end("vote")

    def _age(self, second: float) -> set[int]:
        """Let what is older than the window count no more, of whom nothing is seen now too.

        Returns:
            Whose window is another one and not empty; an empty one has no verdict.
        """
        changed: set[int] = set()
        for who, subject in [*self._subjects.items()]:
            subject.hold(second, max(self.window, self.every))
            if subject.age(second - self.window + SOON):
                changed.add(who)
            if not subject.looks:
                subject.verdict = None
        return {who for who in changed if self._subjects[who].looks}

    def _vote(self, changed: Set[int], judged: Set[int], second: float) -> None:
        """Say what follows from the windows; of people judged now their lives take note."""
        if not changed:
            return
        order = sorted(changed)
        windows = {f"{who}": [look for _, look in self._subjects[who].looks] for who in order}
        votes = self.judge.vote(windows)
        columns = (votes.loc[[*windows], key].tolist() for key in ("prob", "threshold", "pred"))
        for who, prob, threshold, pred in zip(order, *columns, strict=True):
            subject = self._subjects[who]
            subject.verdict = self._verdict(prob, threshold, pred, len(subject.looks))
            if who in judged:
                subject.life.add(subject.verdict, second, subject.held)
                subject.held = {}

    def _verdict(self, prob: float, threshold: float, pred: int, frames: int) -> Rolling:
        leans = str(WORDS[pred])
        reasons = (
            *([BAND] if self.says(prob, threshold, pred) == UNSURE else []),
            *([FEW] if frames < LEAST else []),
        )
        return Rolling(UNSURE if reasons else leans, leans, prob, threshold, frames, reasons)

    def _shown(self, one: Followed, second: float) -> LiveFace:
        subject = self._subjects.get(one.number)
        verdict = None if subject is None else subject.verdict
        return LiveFace(one.number, one.face.box, one.last == second, one.first, verdict)

    def _forget(self, known: set[int]) -> None:
        """Let go of people who are not waited for any more, and of the shortest lives of many."""
        for who in [who for who in self._subjects if who not in known]:
            del self._subjects[who]
        while len(self.lives) > MOST_LIVES:
            gone = [one for one in self.lives.values() if one.number not in known]
            least = min(gone or self.lives.values(), key=lambda one: (one.frames, one.number))
            del self.lives[least.number]
            self.forgotten += 1


def spread(latencies: Sequence[float]) -> dict[str, float]:
    """Return median, 95th percentile and most of latencies in seconds; nothing of none."""
    if not latencies:
        return {}
    median, p95, most = np.percentile(np.array(latencies), [50, 95, 100])
    return {"median": float(median), "p95": float(p95), "most": float(most)}
