"""What is known of a live source at one moment, and of all of it at its end, as plain values.

docs/watch.md says what each key means.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SCHEMA = 1
STEPS = ("decode", "detect", "nets", "vote")
NO_FACE = "no_face"  # why nothing is said


@dataclass(frozen=True)
class Rolling:
    """A verdict on the last seconds."""

    said: str  # `real`, `fake`, `unsure`
    leans: str  # `real` or `fake`: on which side of the threshold it is
    prob: float  # P(fake) by the recipe's rule, over the frames of the window
    threshold: float  # from which on the rule says fake
    frames: int  # of the window that it rests on
    reasons: tuple[str, ...] = ()  # codes of why it is unsure


@dataclass(frozen=True)
class LiveFace:
    """One person who is followed."""

    number: int  # from 1; never given twice
    box: tuple[float, float, float, float]  # px of the frame: x0, y0, x1, y1, where last seen
    seen: bool  # in this frame; else it was in one of the last seconds
    since: float  # second of the source at which it was first seen
    verdict: Rolling | None  # None: not judged in the window


@dataclass(frozen=True)
class LiveState:
    """One frame that was looked at, and what is said now."""

    frame: int  # its number among the frames of the source, from 0
    second: float  # of the source at which it is shown
    width: int
    height: int
    latency: float  # seconds from its capture to this verdict
    faces: tuple[LiveFace, ...]  # those followed, first those in this frame, the largest first
    picture: Rolling | None  # where the recipe sees whole pictures and crops no faces
    no_verdict: str  # code of why nothing is said; ""
    seen: int  # frames that came so far
    looked_at: int  # of these, with this one
    dropped: int  # that were due, and made room for newer ones
    damaged: int  # frames or packets that could not be decoded as they were meant
    lost: int  # how often the source was gone and came back
    seconds: dict[str, float]  # by step of `STEPS`, what this frame took
    snapshot: Callable[[], bytes] | None = None  # a small JPEG of the frame, faces numbered

    def record(self) -> dict[str, Any]:
        """Return it for a line of JSON."""
        found = {key: value for key, value in vars(self).items() if key != "snapshot"}
        found["faces"] = [asdict(face) for face in self.faces]
        found["picture"] = None if self.picture is None else asdict(self.picture)
        return {"schema": SCHEMA, "type": "state", **found}


@dataclass(frozen=True)
class LiveEvent:
    """Something that happened to the source."""

    code: str  # `stalled`, `back`, `lost`, `size`
    second: float  # since the start, by the clock
    words: str  # for people

    def record(self) -> dict[str, Any]:
        """Return it for a line of JSON."""
        return {"schema": SCHEMA, "type": "event", **asdict(self)}


@dataclass
class Life:
    """What was said of one person, or of the whole picture, over all its time."""

    number: int  # of the person; 0: the picture
    first: float  # second of the source
    last: float
    frames: int = 0  # that were judged
    # seconds of the source at which each word was the verdict
    said: dict[str, float] = field(
        default_factory=lambda: {"real": 0.0, "fake": 0.0, "unsure": 0.0}
    )
    final: str = ""  # the last verdict
    prob: float | None = None  # the last one
    most: float | None = None  # the highest P(fake) of a verdict

    def add(self, verdict: Rolling, second: float, held: Mapping[str, float]) -> None:
        """Take note of a verdict, and for how many seconds each word was one since the last."""
        for word, seconds in held.items():
            self.said[word] += seconds
        self.last, self.frames = second, self.frames + 1
        self.final, self.prob = verdict.said, verdict.prob
        self.most = verdict.prob if self.most is None else max(self.most, verdict.prob)


@dataclass
class Summary:
    """All of a source."""

    source: str  # its name, without what opens it
    ended: str = ""  # `end`, `lost`, `stopped`, `time`; "": it has not begun
    seconds: float = 0.0  # by the clock
    covered: float = 0.0  # of the source, from its first frame that was looked at to its last
    seen: int = 0
    looked_at: int = 0
    dropped: int = 0
    damaged: int = 0
    lost: int = 0
    latency: dict[str, float] = field(default_factory=dict)  # `median`, `p95`, `most`, in seconds
    took: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))
    people: list[Life] = field(default_factory=list)  # those followed, in the order they came
    unlisted: int = 0  # people of whom only the number is kept
    picture: Life | None = None

    def record(self) -> dict[str, Any]:
        """Return it for a line of JSON."""
        return {"schema": SCHEMA, "type": "summary", **asdict(self)}
