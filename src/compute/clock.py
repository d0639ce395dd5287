"""When to stop: a limit of time, SIGTERM, Ctrl-C; and a stop that the same command goes on from."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import psutil

from src.compute import ranks
from src.errors import UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
# Kept back for leaving: loader processes end, libraries shut down (6 s measured on busy cores).
LEAVING_SECONDS = 10.0
# SLURM and a terminal signal a rank as well as torchrun, which hands the signal on: it is one.
REPEAT_SECONDS = 2.0


class TimeUpError(KeyboardInterrupt):
    """The time of `--max-hours` is over; what cleans up after Ctrl-C does so here too."""


def _age() -> float:
    return max(0.0, time.time() - psutil.Process().create_time())


_STARTED = time.monotonic() - _age()  # once, and from there on a clock that nobody can set


def process_seconds() -> float:
    """Return the seconds since this process started, imports included."""
    return time.monotonic() - _STARTED


def cpu_seconds() -> float:
    """Return the CPU time of this process, and of those that it started and that have ended."""
    return sum(os.times()[:4])


def in_words(seconds: float) -> str:
    """Return a length of time as people say it: `3.2 h`, `12 min`, `40 s`."""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


class Clock:
    """Says when to stop; within `running`, signals and the end of the time are obeyed.

    A signal raises at once, as Ctrl-C does (every file is written whole or not at all). Within
    `noting` the first one is only noted, so that a training step ends before the state is saved;
    a second one raises. `max_hours` count from the start of the process; a UserError refuses a
    limit that ends before anything could be done.
    """

    raised = False  # a signal has ended what was being done, whatever came of it
    heard = (0, 0.0)  # the last signal, and when: of all clocks, for one ends within another

    def __init__(self, max_hours: float | None = None) -> None:
        if max_hours is not None and max_hours * 3600 <= LEAVING_SECONDS:
            raise UserError(
                f"--max-hours {max_hours:g} is {max_hours * 3600:.0f} s, and {LEAVING_SECONDS:.0f} "
                "of them are kept back for leaving; give more"
            )
        self.max_hours = max_hours
        self.epoch_seconds = 0.0  # what the last epoch took; the next fold's will take the same
        self._reserve = 0.0
        self.asked: int | None = None  # the signal that was noted
        self._noting = self._armed = False

    def left(self) -> float:
        """Return the seconds until work must stop; infinite without a limit."""
        if self.max_hours is None:
            return float("inf")
        return self.max_hours * 3600 - LEAVING_SECONDS - self._reserve - process_seconds()

    def keep_back(self, seconds: float) -> None:
        """Let work stop this long before the limit, for what must be saved then."""
        self._reserve = seconds
        if self._armed:
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, self.left()))

    def wanted(self) -> bool:
        """Tell whether a stop was asked for or the time is over."""
        return self.asked is not None or self.left() < 0

    def call(self) -> int:
        """Return the signal that asks for a stop, SIGALRM where the time is over; 0 for none."""
        return self.asked or (int(signal.SIGALRM) if self.left() < 0 else 0)

    def heed(self, number: int) -> None:
        """Stop as if this process had been sent a signal that another one has; 0 is none."""
        if number and not self.asked:
            Clock.heard = number, time.monotonic()
        self.asked = self.asked or number or None

    def check_room(self, what: str) -> None:
        """Raise a TimeUpError where a run would not come as far as the end of an epoch.

        The first run of a process always begins: nothing is measured yet, and it goes on later
        from wherever it comes to.
        """
        if self.left() < self.epoch_seconds:
            raise TimeUpError(
                f"{what} is not begun: an epoch takes about {in_words(self.epoch_seconds)}, and "
                f"{in_words(max(0.0, self.left()))} are left of --max-hours {self.max_hours:g}"
            )

    def leave(self) -> None:
        """Raise what ends the command."""
        raise self._end(self.asked or signal.SIGALRM)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Obey SIGINT, SIGTERM, SIGHUP and the limit for the length of the block."""
        if threading.current_thread() is not threading.main_thread():
            yield  # Python delivers signals to the main thread only
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:  # `nohup` and `&` in a script ask to be left alone
                signal.signal(number, self._on_signal)
        try:
            if self.max_hours is not None:
                signal.signal(signal.SIGALRM, self._on_signal)
                self._armed = True
                self.keep_back(self._reserve)
            yield
        finally:
            self._armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Only note the first signal within the block; `wanted` tells."""
        self._noting = True
        try:
            yield
        finally:
            self._noting = False

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGALRM:
            self._armed = False  # once is enough, and saving must not be cut off
            if self.asked is not None:
                return
        if self._is_repeat(number):
            return
        if self._noting and self.asked is None:
            self.asked = number
            return
        if number != signal.SIGALRM:
            Clock.raised = True
        raise self._end(number)

    def _is_repeat(self, number: int) -> bool:
        """Tell whether a rank is told once more, by another way, what it has just been told."""
        (last, when), now = Clock.heard, time.monotonic()
        Clock.heard = number, now
        return ranks.asked() > 1 and number == last and now - when < REPEAT_SECONDS

    def _end(self, number: int) -> KeyboardInterrupt:
        if number != signal.SIGALRM:
            return KeyboardInterrupt()
        return TimeUpError(
            f"time is up after {in_words(process_seconds())} (--max-hours {self.max_hours:g})"
        )
