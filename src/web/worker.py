"""A process of its own that looks at files: what breaks or hangs a decoder ends it, and no more.

The recipe stays in its memory. It answers one file at a time, so that nothing of one answer can
come into another; several at once are several processes.
"""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from src.errors import UserError, disk_trouble, memory_trouble, message_of
from src.evidence.evidence import FileEvidence
from src.web.refusal import RequestRefusedError

LOG = logging.getLogger("rvf")
START_SECONDS = 600.0  # to load a recipe
TICK = 0.1  # seconds between looks at whether the client is still there
OnStep = Callable[[str], None]
LookAt = Callable[[Path, str, OnStep], FileEvidence]  # as `Looker.look`


class About(NamedTuple):
    """What looks."""

    recipe: str
    dataset: str
    models: tuple[str, ...]


class DroppedError(Exception):
    """Nobody waits for the answer any more."""


class Worker:
    """Starts the process, asks it, and starts it again when it has ended.

    Args:
        make: returns what looks, and says of itself with what; is called in the process, so it must
            be picklable.
        seconds: that a file may take.
        threads: of the process; None: as many as it likes.
    """

    def __init__(
        self, make: Callable[[], tuple[LookAt, About]], seconds: float, threads: int | None = None
    ) -> None:
        self._make, self.seconds, self._threads = make, seconds, threads
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._number = 0
        self._stopped = False
        self.about: About | None = None

    @property
    def ready(self) -> bool:
        """Tell whether the process is there with its recipe."""
        return self._process is not None and self._process.is_alive()

    @property
    def pid(self) -> int | None:
        """The number of the process."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process and wait until its recipe is loaded.

        Raises:
            UserError: what `make` says, or that the process ended.
        """
        context = multiprocessing.get_context("spawn")  # a fork would inherit the server's sockets
        self._pipe, theirs = context.Pipe()
        process = context.Process(
            target=_work, args=(theirs, self._make, self._threads), name="looker", daemon=True
        )
        resource_tracker.ensure_running()  # which sets the mask too, and not back
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()  # with the mask: Ctrl-C is for the server, which ends this one
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._process = process
        if self._stopped:  # meanwhile
            self._end()
        try:
            if not self._pipe.poll(START_SECONDS):
                raise UserError(f"the recipe was not loaded within {START_SECONDS:.0f} s")
            what, value = self._pipe.recv()
        except (EOFError, OSError):
            raise UserError(f"the process that looks at files {self._end()}") from None
        if what != "ready":
            self._end()
            raise UserError(value)
        self.about = value

    def look(
        self, path: Path, name: str, on_step: OnStep, dropped: threading.Event
    ) -> FileEvidence:
        """Return what is found of a file.

        Args:
            path: the file.
            name: what it is called for people.
            on_step: told each step.
            dropped: set when nobody waits any more; the look ends with its step.

        Raises:
            UserError: as `Looker.look`.
            DroppedError: it was dropped.
            RequestRefusedError: the time is over, or the process has ended; the next file has
                a new one.
        """
        if not self.ready:
            self._restart()
        assert self._pipe is not None
        self._number += 1
        try:
            self._pipe.send(("look", self._number, path, name))
            return self._answer(on_step, dropped)
        except (EOFError, OSError):
            how = self._end()
            if self._stopped:
                raise RequestRefusedError(503, "stopping") from None
            LOG.warning("the process that looked at a file %s; the next file has a new one", how)
            raise RequestRefusedError(503, "ended", how=how) from None

    def _answer(self, on_step: OnStep, dropped: threading.Event) -> FileEvidence:
        assert self._pipe is not None
        until = time.monotonic() + self.seconds
        told = False
        while True:
            if dropped.is_set() and not told:
                self._pipe.send(("drop", self._number, None, None))
                told = True
            if time.monotonic() > until:
                self._end()
                raise RequestRefusedError(422, "too_long", seconds=f"{self.seconds:.0f}")
            if not self._pipe.poll(TICK):
                continue
            what, value = self._pipe.recv()
            if what == "step":
                on_step(value)
            elif what == "done":
                return value
            elif what == "dropped":
                raise DroppedError
            elif what == "mistake":
                raise UserError(value)
            else:
                raise RequestRefusedError(500, "fault", what=value)

    def _restart(self) -> None:
        try:
            self.start()
        except UserError as error:
            raise RequestRefusedError(503, "not_ready", again=30, why=str(error)) from None

    def stop(self) -> None:
        """End the process, whatever it does."""
        self._stopped = True
        self._end()

    def _end(self) -> str:
        """End the process; returns how it had ended by itself, for people."""
        process, self._process = self._process, None
        if process is None:
            return "was ended"
        process.join(0.5)
        code = process.exitcode
        if code is None:
            process.kill()
            process.join()
            return "was ended"
        return f"ended by signal {-code}" if code < 0 else f"ended with code {code}"


def _work(pipe: Connection, make: Callable[[], tuple[LookAt, About]], threads: int | None) -> None:
    """Answer files until the other end is closed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if threads is not None:
        _share_cores(threads)
    try:
        look, about = make()
        pipe.send(("ready", about))
    except Exception as error:  # noqa: BLE001 - is said by the server
        pipe.send(("mistake", _words(error) or _logged(error)))
        return
    try:
        while True:
            what, number, path, name = pipe.recv()
            if what == "look":  # else it is too late to drop what is answered
                pipe.send(_looked(pipe, look, number, path, name))
    except (EOFError, OSError):
        return


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _share_cores(threads: int) -> None:
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def _looked(pipe: Connection, look: LookAt, number: int, path: Path, name: str) -> tuple[str, Any]:
    def tell(step: str) -> None:
        while pipe.poll():
            what, which, *_ = pipe.recv()
            if (what, which) == ("drop", number):
                raise DroppedError
        pipe.send(("step", step))

    try:
        return "done", look(path, name, tell)
    except DroppedError:
        return "dropped", None
    except Exception as error:  # noqa: BLE001 - is said by the server
        words = _words(error)
        return ("fault", _logged(error)) if words is None else ("mistake", words)


def _words(error: Exception) -> str | None:
    """Return what an error says to people; None for one that should not be."""
    if isinstance(error, UserError):
        return message_of(error)
    return disk_trouble(error) or memory_trouble(error)


def _logged(error: Exception) -> str:
    LOG.error("an error that should not be", exc_info=error)
    return type(error).__name__
