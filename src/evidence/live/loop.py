"""A source watched from its first frame to its last, or until somebody stops it."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from src.errors import UserError
from src.evidence.closer import Says, draw_face, jpeg
from src.evidence.live.reader import WAITS, Due, FrameCounts, NewestFrame, each_due
from src.evidence.live.rolling import PICTURE, Took, Verdicts, spread
from src.evidence.live.sources import LiveSource
from src.evidence.live.state import NO_FACE, LiveEvent, LiveFace, LiveState, Summary
from src.inference.pictures import Picture, PictureJudge

LATENCIES = 10_000  # the last ones, of which the summary tells
PATIENCE = 0.25  # seconds between two looks at whether a source is stalled
SIDE = 640  # px of the longer side of a snapshot
OnState = Callable[[LiveState], None]
OnEvent = Callable[[LiveEvent], None]


@dataclass(frozen=True)
class Watching:
    """What is asked of a live source."""

    fps: float = 5.0  # frames of each second that are looked at
    window: float = 5.0  # seconds that a verdict rests on
    faces: int = 4  # people who are judged at a time, the largest
    realtime: bool = False  # play a file by the clock, and let frames go
    stall: float = 5.0  # seconds without a frame after which it is said
    tries: int = 5  # how often in a row a source that is lost is asked for again
    seconds: float | None = None  # by the clock, after which it ends; None: never

    def __post_init__(self) -> None:
        """Refuse what makes no sense; raises a UserError."""
        for flag, value, low, high in (
            ("--fps", self.fps, 0.05, 120.0), ("--window", self.window, 0.1, 600.0),
            ("--faces", self.faces, 1, 100), ("--stall", self.stall, 0.1, 3600.0),
            ("--tries", self.tries, 0, 1_000_000), ("--seconds", self.seconds or 1, 0.01, 1e9),
        ):  # fmt: skip
            if not low <= value <= high:
                raise UserError(f"{flag} {value:g}: want {low:g} to {high:g}")


class Watcher:
    """Watches one source by a recipe, once.

    Args:
        judge: the recipe.
        says: turns P(fake) into a word.
        source: what is watched, open; it is closed at the end.
        asked: how.
        on_state: called with each frame that was looked at.
        on_event: called with what happens to the source.
    """

    def __init__(
        self, judge: PictureJudge, says: Says, source: LiveSource, asked: Watching,
        on_state: OnState, on_event: OnEvent = lambda _: None,
    ) -> None:  # fmt: skip
        self.source, self.asked = source, asked
        self.on_state, self.on_event = on_state, on_event
        self.summary = Summary(source.name)  # of what was seen so far, also where it is broken off
        self.waits = WAITS  # seconds before each try to come back
        every = 1 / asked.fps
        self._verdicts = Verdicts(judge, says, asked.window, every, asked.faces, source.name)
        self._counts = FrameCounts()
        self._latencies: deque[float] = deque(maxlen=LATENCIES)
        self._size: tuple[int, int] | None = None
        self._began, self._stop = time.monotonic(), threading.Event()
        self._first: float | None = None
        self._decoded = 0.0

    def run(self) -> Summary:
        """Watch until the source ends, is lost, or the time is over.

        Ended by an exception, `summary` tells of what was seen.

        Raises:
            UserError: a net or the detector fails.
        """
        self._began = time.monotonic()
        self.summary.ended = ended = "stopped"
        try:
            by_thread = self.source.is_live or self.asked.realtime
            ended = self._newest() if by_thread else self._each()
        finally:
            self.source.close()
            self._sum_up(ended)
        return self.summary

    def stop(self) -> None:
        """Watch no more than the frame that is being looked at; of another thread."""
        self._stop.set()

    def _each(self) -> str:
        for due in each_due(self.source, self.asked.fps, self._counts):
            self._look(due)
            if why := self._over():
                return why
        return "end"

    def _newest(self) -> str:
        by_clock = not self.source.is_live
        reader = NewestFrame(
            self.source, self.asked.fps, self.asked.tries, by_clock=by_clock, waits=self.waits
        )
        self._counts = reader.counts
        stalled, last = False, time.monotonic()
        reader.start()
        try:
            while True:
                due = reader.take(PATIENCE)
                for event in reader.events():
                    self.on_event(event)
                if due is not None:
                    last = time.monotonic()
                    if stalled:
                        stalled = False
                        self._tell("back", f"{self.source.name}: frames come again")
                    self._look(due)
                elif reader.ended:
                    return reader.ended
                elif not stalled and time.monotonic() - last > self.asked.stall:
                    stalled = True
                    self._tell("stalled", f"{self.source.name}: no frame for "
                               f"{self.asked.stall:g} s")  # fmt: skip
                if why := self._over():
                    return why
        finally:
            reader.stop()

    def _over(self) -> str:
        """Return why it is over before the source is; "" where it is not."""
        longest = self.asked.seconds
        if self._stop.is_set():
            return "stopped"
        late = longest is not None and time.monotonic() - self._began >= longest
        return "time" if late else ""

    def _tell(self, code: str, words: str) -> None:
        self.on_event(LiveEvent(code, round(time.monotonic() - self._began, 3), words))

    def _look(self, due: Due) -> None:
        """Look at a frame and tell of it."""
        took, counts = Took(), self._counts
        picture = due.caught.draw()
        took.end("decode")
        if picture is None:
            counts.damaged += 1
            return
        took.seconds["decode"] += counts.decode - self._decoded
        self._decoded = counts.decode
        size = picture.shape[:2]
        if self._size is not None and size != self._size:
            self._tell("size", f"{self.source.name}: {size[1]} x {size[0]} pixels from here on")
        self._size = size
        faces, whole = self._verdicts.see(picture, due.number, due.second, took)
        latency = time.monotonic() - due.captured
        self._count(due, latency, took)
        self.on_state(
            LiveState(
                due.number, round(due.second, 3), size[1], size[0], round(latency, 4),
                tuple(faces), whole, "" if faces or whole is not None else NO_FACE,
                counts.seen, self.summary.looked_at, counts.dropped, counts.damaged, counts.lost,
                {step: round(value, 4) for step, value in took.seconds.items()},
                partial(_snapshot, picture, tuple(faces)),
            )
        )  # fmt: skip

    def _count(self, due: Due, latency: float, took: Took) -> None:
        summary = self.summary
        summary.looked_at += 1
        self._latencies.append(latency)
        self._first = due.second if self._first is None else self._first
        summary.covered = due.second - self._first
        for step, value in took.seconds.items():
            summary.took[step] += value

    def _sum_up(self, ended: str) -> None:
        summary, counts, lives = self.summary, self._counts, self._verdicts.lives
        summary.ended, summary.seconds = ended, time.monotonic() - self._began
        summary.seen, summary.dropped = counts.seen, counts.dropped
        summary.damaged, summary.lost = counts.damaged, counts.lost
        summary.took["decode"] += counts.decode - self._decoded
        summary.latency = spread(self._latencies)
        summary.picture = lives.get(PICTURE)
        summary.people = [life for who, life in lives.items() if who != PICTURE]
        summary.unlisted = self._verdicts.forgotten


def _snapshot(picture: Picture, faces: tuple[LiveFace, ...]) -> bytes:
    """Return a frame as a small JPEG, those in it numbered."""
    seen = [face for face in faces if face.seen]
    marked = np.array(picture) if seen else picture
    for face in seen:
        draw_face(marked, face.box, face.number - 1)
    return jpeg(marked, SIDE)
