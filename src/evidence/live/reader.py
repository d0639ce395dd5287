"""Frames that are due, one at a time: of a file each in turn, of what is live only the newest.

What is live is read by a thread of its own, as fast as it comes, so that nothing piles up behind
whoever looks; a frame that is due and not fetched before the next one is due makes room for it.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from src.errors import UserError
from src.evidence.live.sources import Caught, LiveSource, LostError
from src.evidence.live.state import LiveEvent

SOON = 1e-3  # seconds: a frame so little before its time is due
BACK = 1.0  # seconds that a film goes back: another one begins; a stream: its clock was set
DRIFT = 5e-4  # seconds a second, at most, by which a stream's clock is slower than ours
ANY_RATE = 25.0  # frames a second of a film that says nothing of it
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # seconds before each try to come back, then the last
EVENTS = 100  # that are kept until somebody fetches them
END, LOST = "end", "lost"


@dataclass(frozen=True)
class Due:
    """A frame that is to be looked at."""

    caught: Caught
    number: int  # among all that came
    second: float  # of the source; more than the one's before
    captured: float  # by `time.monotonic`, when it was there to be seen


@dataclass
class FrameCounts:
    """What came so far."""

    seen: int = 0  # frames
    damaged: int = 0
    dropped: int = 0  # due, and replaced by newer ones
    lost: int = 0  # times that the source came back
    decode: float = 0.0  # seconds spent on getting frames


class Sampler:
    """Says which frames are due, the first that comes and `fps` of each second after it."""

    def __init__(self, fps: float) -> None:
        self.every = 1 / fps
        self._next = self._last = -float("inf")
        self._shift = 0.0

    def steady(self, second: float) -> float:
        """Return when a frame is shown in a time that goes on where that of the source goes back.

        Films that are joined begin anew in the middle.
        """
        if second + self._shift < self._last - BACK:
            self._shift = self._last + self.every - second
        self._last = max(self._last, second + self._shift)
        return second + self._shift

    def is_due(self, second: float) -> bool:
        """Tell whether a frame is, by its second."""
        if second < self._next - SOON:
            return False
        after = self._next + self.every
        self._next = after if after > second else second + self.every
        return True


def each_due(source: LiveSource, fps: float, counts: FrameCounts) -> Iterator[Due]:
    """Yield the frames of a file that are due, each waiting for who looks; the file is open."""
    sampler, last, began = Sampler(fps), -1.0, time.perf_counter()
    for caught in source.frames():
        if caught is None:
            counts.damaged += 1
            continue
        number, counts.seen = counts.seen, counts.seen + 1
        second = sampler.steady(number / ANY_RATE if caught.second is None else caught.second)
        if not sampler.is_due(second):
            continue
        if caught.damaged:
            counts.damaged += 1
            continue
        counts.decode += time.perf_counter() - began
        last = max(second, last + SOON)
        yield Due(caught, number, last, time.monotonic())
        began = time.perf_counter()
    counts.decode += time.perf_counter() - began


class NewestFrame:
    """Reads a source in a thread, and hands over its newest frame that is due.

    Args:
        source: open.
        fps: frames of a second that are due.
        tries: how often in a row a source that comes back is asked for again.
        by_clock: play it by the clock, for what is read faster than it was made.
    """

    def __init__(
        self, source: LiveSource, fps: float, tries: int, *, by_clock: bool = False,
        waits: tuple[float, ...] = WAITS,
    ) -> None:  # fmt: skip
        self.counts = FrameCounts()
        self.ended = ""  # `end` or `lost`, once there is nothing more to come
        self._source, self._sampler, self._tries = source, Sampler(fps), tries
        self._by_clock, self._waits = by_clock, waits
        self._events: deque[LiveEvent] = deque(maxlen=EVENTS)
        self._newest: Due | None = None
        self._there, self._stop = threading.Condition(), threading.Event()
        self._began = time.monotonic()
        self._anchor: float | None = None  # when second 0 of the source was, at the latest
        # when the last frame of a stream came, and its second
        self._known: tuple[float, float] | None = None
        self._last = -1.0
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self, patience: float = 2.0) -> None:
        """Read no more; a thread that waits for the network ends by itself when that answers."""
        self._stop.set()
        self._thread.join(patience)

    def take(self, patience: float) -> Due | None:
        """Return the newest frame, waiting for it so many seconds; None if there was none.

        Raises:
            Exception: whatever went wrong while reading that is no fault of the source.
        """
        with self._there:
            self._there.wait_for(lambda: self._newest is not None or self.ended, patience)
            newest, self._newest = self._newest, None
            if newest is None and self._failure is not None:
                raise self._failure
            return newest

    def events(self) -> list[LiveEvent]:
        """Return what happened since this was last asked."""
        found = []
        while self._events:
            found.append(self._events.popleft())
        return found

    def tell(self, code: str, words: str) -> None:
        """Take note of something that happened."""
        self._events.append(LiveEvent(code, round(time.monotonic() - self._began, 3), words))

    def _run(self) -> None:
        ended = END
        try:
            ended = self._read()
        except BaseException as error:  # noqa: BLE001 - raised again by `take`
            self._failure = error
        finally:
            self._source.close()
            with self._there:
                self.ended = ended
                self._there.notify_all()

    def _read(self) -> str:
        failed = 0
        while True:
            before, why = self.counts.seen, ""
            try:
                if failed:
                    self._source.open()
                    self._anchor = None
                self._read_on()
            except LostError as error:
                why = str(error)
            except UserError as error:
                if not failed:
                    raise
                why = str(error)
            self._source.close()
            if self._stop.is_set() or not why:
                return END
            came = self.counts.seen > before
            failed = 1 if came else failed + 1
            if not self._source.comes_back or failed > self._tries:
                self.tell("lost", f"{self._source.name}: {why}; given up")
                return LOST
            wait = self._waits[min(failed, len(self._waits)) - 1]
            self.tell("lost", f"{self._source.name}: {why}; asked again in {wait:g} s "
                      f"(try {failed} of {self._tries})")  # fmt: skip
            if self._stop.wait(wait):
                return END

    def _read_on(self) -> None:
        """Read frames until the source ends."""
        # By what this thread computes: the rest of the time it waits for the source.
        first, began = True, time.thread_time()
        for caught in self._source.frames():
            self.counts.decode += time.thread_time() - began
            if self._stop.is_set():
                return
            if first and caught is not None:
                first = False
                if self.counts.seen:
                    self.counts.lost += 1
                    self.tell("back", f"{self._source.name}: is back")
            self._take_in(caught)
            began = time.thread_time()

    def _take_in(self, caught: Caught | None) -> None:
        counts = self.counts
        if caught is None:
            counts.damaged += 1
            return
        number, counts.seen = counts.seen, counts.seen + 1
        # A file is as old as its frames say, what is live as the clock does.
        if self._by_clock:
            own = number / ANY_RATE if caught.second is None else caught.second
            second = self._sampler.steady(own)
            captured = self._wait_for(second)
            if captured is None:
                return
        else:
            captured = self._captured(caught)
            second = captured - self._began
        if not self._sampler.is_due(second):
            return
        if caught.damaged:
            counts.damaged += 1
            return
        self._last = max(second, self._last + SOON)
        with self._there:
            counts.dropped += self._newest is not None
            self._newest = Due(caught, number, self._last, captured)
            self._there.notify_all()

    def _captured(self, caught: Caught) -> float:
        """Return when a frame was there to be seen.

        Of a stream that says when its frames were made, a frame is as old as it came later than the
        one that came soonest: what waits in buffers counts.
        """
        now = time.monotonic()
        if caught.second is None:
            return now
        start, before = now - caught.second, self._known
        self._known = now, caught.second
        # Set forward, its clock brings a new start; late frames, however late, bring none.
        if self._anchor is None or before is None or caught.second < before[1] - BACK:
            self._anchor = start
        else:
            self._anchor = min(self._anchor + DRIFT * (now - before[0]), start)
        return self._anchor + caught.second

    def _wait_for(self, second: float) -> float | None:
        """Return when a frame of a film is shown, once it is; None where nobody looks any more."""
        now = time.monotonic()
        if self._anchor is None:
            self._anchor = now - second
        due = self._anchor + second
        return None if due > now and self._stop.wait(due - now) else due
