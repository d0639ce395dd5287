"""Whether the ranks of a run are alive: each says so now and then, and a silent one ends them all.

A process that ends closes its sockets, which the others feel at once. A machine without power or
cable closes none, nor does a process that is stopped: these are told by their silence alone.
"""

import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

EVERY = 10.0  # seconds from beat to beat
SILENT = 30  # beats of one's own without one of the other: five minutes
ANSWER_SECONDS = 5.0  # that who keeps the beats has, at the end, to say who was the first to end


class Heartbeat:
    """Beats for one rank, and listens for the one before it; the last listens for the first.

    Whoever is missed has one listener, whose own end closes sockets, so that all end. Silence is
    counted in one's own beats: a run that is stopped as a whole (Ctrl-Z, a laptop that sleeps) is
    not lost.

    Args:
        store: torch's, of this thread's own: a wait of another one would hold it up.
        rank: who beats.
        ranks: how many there are.
        ends: tells that this rank ends, and returns whether it is to say why; see `ranks.told`.
    """

    def __init__(self, store: Any, rank: int, ranks: int, ends: Callable[[], bool]) -> None:  # noqa: ANN401
        self.store, self.rank, self.before, self.ends = store, rank, (rank - 1) % ranks, ends
        self._over, self._heard = threading.Event(), threading.Event()
        for work in (self._beat, self._listen):
            threading.Thread(target=work, daemon=True).start()

    def stop(self) -> None:
        """Beat and listen no longer."""
        self._over.set()

    def _beat(self) -> None:
        """Beat, and look for beats: where nobody answers, this thread alone is held up."""
        last = 0
        try:
            self.store.set(f"host/{self.rank}", socket.gethostname())
            while not self._over.wait(EVERY):
                self.store.add(f"beat/{self.rank}", 1)
                seen = self.store.add(f"beat/{self.before}", 0)
                if seen != last:
                    self._heard.set()
                last = seen
        except RuntimeError:  # who kept the beats is gone, and is missed
            return

    def _listen(self) -> None:
        silent = 0
        while not self._over.wait(EVERY):
            silent = 0 if self._heard.is_set() else silent + 1
            self._heard.clear()
            if silent >= SILENT:
                self._end()

    def _end(self) -> None:
        """End this process, whose own work may wait for ever: there is no way to raise in it."""
        says, host = threading.Event(), [""]
        says.set()  # where nobody answers

        def ask() -> None:
            if not self.ends():
                says.clear()
            if self.store.check([name := f"host/{self.before}"]):
                host[0] = f" on {self.store.get(name).decode()}"

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(ANSWER_SECONDS)
        if says.is_set():
            sys.stderr.write(
                f"nothing was heard of rank {self.before}{host[0]} for {EVERY * SILENT:.0f} s "
                "(stopped? its machine or the network lost?), so all ranks end; the same command, "
                "with as many ranks or with others, goes on from what was saved\n"
            )
        sys.stderr.flush()
        os._exit(1)
