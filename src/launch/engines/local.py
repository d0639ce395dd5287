"""This machine: some jobs at once through joblib, cards and cores handed out to them."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from queue import Queue
from threading import Lock, Thread

from joblib import Parallel, delayed

from src.errors import UserError
from src.launch.child import JobOrder, run_order
from src.launch.engines.base import ENGINES, JobEngine, Resources
from src.machine import cpu_count

USUAL_CORES = 4  # of a job without a card, where neither --jobs nor --cpus-per-job says it
VISIBLE = "CUDA_VISIBLE_DEVICES"


@ENGINES.register("local")
class Local(JobEngine):
    """Threads that each wait for one command; every slot has its cards and its cores."""

    pause = 0.2

    def __init__(self, wanted: Resources) -> None:
        super().__init__(wanted)
        self.visible = visible_cards(os.environ, _count_cards())
        self.per_job = min(1, len(self.visible)) if wanted.cards is None else wanted.cards
        self.jobs = wanted.jobs or self._usual_jobs()
        self._alive: dict[str, str] = {}
        self._words: dict[str, str] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._threads: list[Thread] = []
        self._gate, self._stopping = Lock(), False
        self._slots: Queue[list[str]] = Queue()

    def _usual_jobs(self) -> int:
        if self.per_job:
            return max(1, len(self.visible) // self.per_job)
        return max(1, cpu_count() // (self.wanted.cores or USUAL_CORES))

    @property
    def cores(self) -> int:
        """The cores that each job gets."""
        return self.wanted.cores or max(1, cpu_count() // self.jobs)

    @property
    def cards(self) -> int:
        """The GPUs that each job gets."""
        return self.per_job

    @property
    def at_once(self) -> int:
        """How many jobs run at once."""
        return self.jobs

    def check(self) -> None:
        """Hold the cards that are asked for against those that are there."""
        need, there = self.jobs * self.per_job, len(self.visible)
        if need > there:
            seen = f" ({VISIBLE}={os.environ[VISIBLE]})" if VISIBLE in os.environ else ""
            raise UserError(
                f"{self.jobs} jobs at once with {self.per_job} cards each want {need}, and "
                f"{there} are here{seen}: --jobs {max(1, there // max(1, self.per_job))}, or "
                "--gpus-per-job 0 to train on the CPU"
            )
        for number in range(self.jobs):
            self._slots.put(self.visible[number * self.per_job : (number + 1) * self.per_job])

    def start(self, orders: Sequence[JobOrder]) -> None:
        """Queue jobs."""
        self._alive |= {order.name: "" for order in orders}
        thread = Thread(target=self._work, args=(list(orders),), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self, orders: list[JobOrder]) -> None:
        Parallel(n_jobs=self.jobs, backend="threading")(
            delayed(self._run)(order) for order in orders
        )

    def _run(self, order: JobOrder) -> None:
        cards = self._slots.get()
        variables = {VISIBLE: ",".join(cards)} if self.visible else {}

        def begun(process: subprocess.Popen[bytes]) -> None:
            with self._gate:
                self._processes[order.name] = process
                if self._stopping:
                    process.terminate()

        try:
            if not self._stopping:
                self._words[order.name] = run_order(order, variables, begun=begun)
        except OSError as error:
            self._words[order.name] = str(error)
        finally:
            with self._gate:
                self._processes.pop(order.name, None)
                self._alive.pop(order.name, None)
            self._slots.put(cards)

    def alive(self) -> dict[str, str]:
        """Return the jobs that have not ended."""
        return dict(self._alive)

    def last_words(self, name: str) -> str:
        """Say why a job could not begin."""
        return self._words.get(name, "")

    def stop(self) -> None:
        """Let the commands that run save and end; the others do not begin."""
        with self._gate:
            self._stopping = True
            running = list(self._processes.values())
        for process in running:
            process.terminate()
        for thread in self._threads:
            thread.join()


def visible_cards(environment: Mapping[str, str], there: int) -> list[str]:
    """Return the names of the cards that may be used, as the caller calls them: 2,3 stay 2,3.

    Args:
        environment: whose `CUDA_VISIBLE_DEVICES` counts, where it is set.
        there: cards that torch sees, which knows that variable too.
    """
    if VISIBLE not in environment:
        return [str(number) for number in range(there)]
    names = [name.strip() for name in environment[VISIBLE].split(",") if name.strip()]
    return names[:there]


def _count_cards() -> int:
    import torch

    return torch.cuda.device_count()
