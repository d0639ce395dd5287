"""The queue: which upload is looked at now, which wait, and what became of them."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from src.errors import UserError
from src.evidence.evidence import FileEvidence
from src.web.refusal import RequestRefusedError
from src.web.uploads import Upload
from src.web.worker import DroppedError, Worker

GRACE = 5.0  # seconds that a look under way may still take when the server stops
WAITING, LOOKING, DONE = "waiting", "looking", "done"
HEARTBEAT = 10.0  # seconds after which a state is told again, so that no proxy thinks it is over


class Ticket:
    """One upload in the queue. It belongs to the event loop."""

    def __init__(self, upload: Upload) -> None:
        self.upload = upload
        self.state, self.step = WAITING, ""
        self.place = 0  # in the queue, from 1; 0: not in it
        self.dropped = threading.Event()
        self.task: asyncio.Task[FileEvidence] | None = None
        self._changed = asyncio.Event()

    def tell(self) -> None:
        """Wake who follows."""
        self._changed.set()

    def see(self, step: str) -> None:
        """Note a step that has begun."""
        self.step = step
        self.tell()

    async def follow(self) -> AsyncIterator[dict[str, object]]:
        """Yield the state, and again whenever it changes, until the look is over."""
        while self.state != DONE:
            self._changed.clear()
            if self.state == WAITING:
                yield {"state": WAITING, "place": self.place}
            else:
                yield {"state": LOOKING, "step": self.step}
            if self.state != DONE:
                try:
                    await asyncio.wait_for(self._changed.wait(), HEARTBEAT)
                except TimeoutError:
                    continue

    async def answer(self) -> FileEvidence:
        """Return what was found; raises RequestRefusedError or UserError."""
        assert self.task is not None
        try:
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            if self.task.cancelled():  # the queue was emptied, and not who waits here
                raise RequestRefusedError(503, "stopping") from None
            raise


class Desk:
    """Takes uploads to the workers, first come, first served.

    Args:
        workers: each looks at one file at a time.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.workers = list(workers)
        self.queue: list[Ticket] = []
        self.running: list[Ticket] = []
        self.answered = 0
        self.stopping = False
        self._idle: asyncio.Queue[Worker] = asyncio.Queue()
        self._reviving: set[asyncio.Task[None]] = set()  # held, or they would be collected
        for worker in workers:
            self._idle.put_nowait(worker)

    @property
    def ready(self) -> bool:
        """Tell whether a file would be looked at."""
        return not self.stopping and any(worker.ready for worker in self.workers)

    def submit(self, uploads: Sequence[Upload]) -> list[Ticket]:
        """Enter uploads, each of which is removed when it is over.

        Raises:
            RequestRefusedError: the server is about to stop.
        """
        if self.stopping:
            for upload in uploads:
                upload.remove()
            raise RequestRefusedError(503, "stopping")
        return [self._enter(upload) for upload in uploads]

    def _enter(self, upload: Upload) -> Ticket:
        ticket = Ticket(upload)
        self.queue.append(ticket)
        self._number()
        ticket.task = asyncio.get_running_loop().create_task(self._run(ticket))
        ticket.task.add_done_callback(lambda task: self._over(ticket, task))
        return ticket

    def drop(self, ticket: Ticket) -> None:
        """Forget an upload for which nobody waits any more: at once, or after its next step."""
        ticket.dropped.set()
        if ticket in self.queue and ticket.task is not None:
            ticket.task.cancel()

    async def _run(self, ticket: Ticket) -> FileEvidence:
        worker = await self._idle.get()
        try:
            self.queue.remove(ticket)
            self.running.append(ticket)
            ticket.state, ticket.place = LOOKING, 0
            ticket.tell()
            self._number()
            loop, upload = asyncio.get_running_loop(), ticket.upload
            assert upload.path is not None

            def see(step: str) -> None:
                loop.call_soon_threadsafe(ticket.see, step)

            found = await asyncio.to_thread(
                worker.look, upload.path, upload.name, see, ticket.dropped
            )
            self.answered += 1
            return found
        except DroppedError:
            raise RequestRefusedError(503, "dropped") from None
        finally:
            if worker.ready or self.stopping:
                self._idle.put_nowait(worker)
            else:  # else a health check would keep files away from what waits for one to start
                self._begin_reviving(worker)

    def revive(self) -> None:
        """Start again the processes that ended while they had nothing to do, or did not start."""
        if self.stopping or all(worker.ready for worker in self.workers):
            return
        for _ in range(self._idle.qsize()):
            worker = self._idle.get_nowait()
            if worker.ready:
                self._idle.put_nowait(worker)
            else:
                self._begin_reviving(worker)

    def _begin_reviving(self, worker: Worker) -> None:
        task = asyncio.get_running_loop().create_task(self._revive(worker))
        self._reviving.add(task)
        task.add_done_callback(self._reviving.discard)

    async def _revive(self, worker: Worker) -> None:
        """Start a worker again whose process has ended; where it fails, the next file says why."""
        with suppress(UserError):
            await asyncio.to_thread(worker.start)
        self._idle.put_nowait(worker)

    def _over(self, ticket: Ticket, task: "asyncio.Task[FileEvidence]") -> None:
        for tickets in (self.queue, self.running):
            if ticket in tickets:
                tickets.remove(ticket)
        ticket.upload.remove()
        ticket.state = DONE
        ticket.tell()
        self._number()
        if not task.cancelled():
            task.exception()  # seen, also where nobody waits for it

    def _number(self) -> None:
        for place, ticket in enumerate(self.queue, 1):
            if ticket.place != place:
                ticket.place = place
                ticket.tell()

    def stop(self) -> None:
        """Take nothing more, empty the queue, and give what is looked at a few seconds."""
        if self.stopping:
            return
        self.stopping = True
        for ticket in list(self.queue):
            if ticket.task is not None:
                ticket.task.cancel()
        asyncio.get_running_loop().call_later(GRACE, self.end)

    def end(self) -> None:
        """End the workers, whatever they do."""
        self.stopping = True
        for worker in self.workers:
            worker.stop()
