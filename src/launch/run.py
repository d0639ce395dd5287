"""From tasks to their end: stage after stage on an engine, and what is said meanwhile."""

import logging
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from src import paths
from src.artifacts.atomic import is_held
from src.artifacts.files import write_text
from src.errors import UserError, message_of
from src.launch.child import JobOrder, read_state
from src.launch.engines import JobEngine
from src.launch.jobs import Task, order_of
from src.launch.table import (
    DONE,
    FAILED,
    RUNNING,
    STOPPED,
    WAITING,
    JobRow,
    count,
    error_of,
    last_part,
    progress_of,
)

LOG = logging.getLogger("rvf")
SAID_SECONDS = 60.0  # between two lines on what runs
ELSEWHERE_SECONDS = 2.0  # between two looks at a run that another process works on
STOPS = (130, 143, -15)  # exit codes of a command that was told to end
MISTAKE = 2  # exit code of a command that says in one line what to mend
SHOWN = 8  # last lines of a job that failed otherwise
ELSEWHERE = "by another process"


class Launch:
    """The jobs of a command and how they stand.

    Args:
        tasks: in the order of the table.
        dataset: whose folder of `launches/` takes their logs.
        engine: checked; where they run.
    """

    def __init__(self, tasks: Sequence[Task], dataset: str, engine: JobEngine) -> None:
        self.tasks, self.dataset, self.engine = tasks, dataset, engine
        self.rows = {task.name: JobRow(task.name, seconds=task.seconds) for task in tasks}
        self.orders = {task.name: order_of(task, dataset, "", engine.cores) for task in tasks}
        self._taken: dict[str, Task] = {}  # that the engine has
        self._gone: dict[str, float] = {}  # since when it has not, of those that said no end yet
        self._said = time.monotonic()

    def look(self) -> None:
        """Find out how all jobs stand, and begin none."""
        known = self.engine.adopt(list(self.orders.values()))
        alive = self.engine.alive() if known else {}
        for task in self.tasks:
            if task.name in known or _elsewhere(task):
                self._progress(task, alive.get(task.name, ELSEWHERE))
            elif task.is_done():
                self._end(task, DONE, "")
            else:
                self._recall(task)

    def _recall(self, task: Task) -> None:
        """Note how a job's last start ended, of one that is not done and that nobody works on."""
        row, order = self.rows[task.name], self.orders[task.name]
        state, text = read_state(order.state), last_part(Path(order.log))
        if state is None:
            return
        code = state["code"]
        if code is None:
            row.note = f"begun on {_node(state)}, and no end is known"
        elif code in STOPS:
            row.state, row.note = STOPPED, _last_line(text)
        elif code:
            row.state, row.note = FAILED, error_of(text, code)
        elif task.has_left is not None and task.has_left():
            row.note = "ended well before; again, for what it reads may have changed since"

    def run(self, *, detach: bool = False) -> None:
        """Do what is not done, stage by stage; a stage begins when the ones before are done.

        Raises:
            KeyboardInterrupt: once all jobs have saved and ended.
        """
        secret = _secret(paths.launch_token(self.dataset))
        self.orders = {name: replace(one, secret=secret) for name, one in self.orders.items()}
        for row in self.rows.values():
            if row.state in (FAILED, STOPPED):  # before; it is tried again at its turn
                row.state, row.note = WAITING, ""
        try:
            for stage in sorted({task.stage for task in self.tasks}):
                self._stage([task for task in self.tasks if task.stage == stage], detach=detach)
                failed = [row for row in self.rows.values() if row.state in (FAILED, STOPPED)]
                if failed or (detach and self._taken):
                    return
        except KeyboardInterrupt:
            LOG.info("stopping: jobs save what they have")
            self.engine.stop()
            for task in list(self._taken.values()):
                self._settle(task, stopped=True)
            raise

    def _stage(self, tasks: Sequence[Task], *, detach: bool) -> None:
        """Do the tasks of a stage that are not done."""
        left = {task.name: task for task in tasks if not self._is_done(task)}
        known = self.engine.adopt([self.orders[name] for name in left])
        self._taken = {name: left.pop(name) for name in known}
        looked = 0.0
        while left or self._taken:
            if left and time.monotonic() - looked > ELSEWHERE_SECONDS:
                looked = time.monotonic()
                self._hand_in(left)
            if detach and not left:
                return
            time.sleep(self.engine.pause)
            alive = self.engine.alive()
            for name, task in list(self._taken.items()):
                if name in alive:
                    self._gone.pop(name, None)
                    self._progress(task, alive[name])
                    continue
                if self._may_be_unseen(task):
                    continue
                del self._taken[name]
                if self._settle(task):
                    left[name] = task
            self._say()

    def _hand_in(self, left: dict[str, Task]) -> None:
        """Give the engine what nobody works on; waits with what another process holds."""
        orders: list[JobOrder] = []
        for name, task in list(left.items()):
            row = self.rows[name]
            if _elsewhere(task):
                self._progress(task, ELSEWHERE)
                continue
            if row.note == ELSEWHERE and self._is_done(task):
                del left[name]
                continue
            row.state, row.note = WAITING, ""
            self._taken[name] = left.pop(name)
            Path(self.orders[name].state).unlink(missing_ok=True)
            orders.append(self.orders[name])
        if orders:
            self.engine.start(orders)

    def _is_done(self, task: Task) -> bool:
        """Tell whether a task is done, and note that."""
        if not task.is_done():
            return False
        self._end(task, DONE, "")
        return True

    def _progress(self, task: Task, where: str) -> None:
        """Note how far a job is that lives."""
        row, order = self.rows[task.name], self.orders[task.name]
        state = read_state(order.state)
        begun = where == ELSEWHERE or (state is not None and state["ended"] is None)
        before, row.state = row.state, RUNNING if begun else WAITING
        if begun and where != ELSEWHERE:
            row.note = progress_of(last_part(Path(order.log)))
            if before != RUNNING:
                LOG.info("%s: begun on %s, its output: %s", task.name, _node(state), order.log)
            return
        if where == ELSEWHERE and row.note != where:
            LOG.info("%s: another process is at work on it, waiting", task.name)
        row.note = where

    def _may_be_unseen(self, task: Task) -> bool:
        """Tell whether a job has ended that may have written more than this machine sees yet.

        A file server is asked again for what a folder holds when the folder is listed.
        """
        order = self.orders[task.name]
        for path in (order.state, task.lock):
            with suppress(OSError):
                any(Path(path or order.state).parent.iterdir())
        state = read_state(order.state)
        code = None if state is None else state["code"]
        since = self._gone.setdefault(task.name, time.monotonic())
        late = time.monotonic() - since >= self.engine.sight_seconds
        ended = code is not None and code not in (0, *STOPS)  # a stop may be of an earlier start
        if late or ended or (code == 0 and self._has_left(task)):
            del self._gone[task.name]
            return False
        return True

    @staticmethod
    def _has_left(task: Task) -> bool:
        """Tell whether what a job leaves is there."""
        try:
            return task.has_left() if task.has_left is not None else task.is_done()
        except UserError:  # some files may be seen and others not; said when it is judged
            return False

    def _settle(self, task: Task, *, stopped: bool = False) -> bool:
        """Note how a job ended, by what it left; tells whether it must be handed in once more.

        `stopped`: it was told to end, and may never have begun.
        """
        order = self.orders[task.name]
        state, text = read_state(order.state), last_part(Path(order.log))
        code = None if state is None else state["code"]
        try:
            if task.is_done() or (task.has_left is not None and task.has_left()):
                self._end(task, DONE, "", state)
            elif _elsewhere(task):  # somebody else was faster
                return True
            elif state is None or (code is None and not text):
                words = "" if stopped else self.engine.last_words(task.name)
                self._end(task, FAILED if words else WAITING, words)
            elif code is None and stopped:
                self._end(task, STOPPED, _last_line(text), state)
            elif code is None:
                words = self.engine.last_words(task.name)
                self._end(task, FAILED, words or f"its machine {_node(state)} fell silent", state)
            elif code in (0, *STOPS):
                self._end(task, STOPPED, _last_line(text), state)
            else:
                self._end(task, FAILED, error_of(text, code), state)
        except UserError as error:
            self._end(task, FAILED, message_of(error), state)
        return False

    def _end(
        self, task: Task, state: str, note: str, told: dict[str, object] | None = None
    ) -> None:
        """Note the end of a job; says so unless it was done before."""
        row, order = self.rows[task.name], self.orders[task.name]
        was, row.state, row.note = row.state, state, note
        if told is not None and isinstance(told["ended"], float):
            row.seconds = told["ended"] - float(str(told["began"]))
        if state == FAILED:
            LOG.info("%s: failed: %s (all it said: %s)", task.name, note, order.log)
            if told is not None and told["code"] != MISTAKE:  # a mistake is one line
                for line in last_part(Path(order.log)).splitlines()[-SHOWN:]:
                    LOG.info("  | %s", line)
        elif told is not None or was == RUNNING:
            LOG.info("%s: %s", task.name, state)

    def _say(self) -> None:
        """Say now and then what runs."""
        if time.monotonic() - self._said < SAID_SECONDS:
            return
        self._said = time.monotonic()
        running = [row for row in self.rows.values() if row.state == RUNNING]
        told = "; ".join(f"{row.name}: {row.note}" for row in running)
        LOG.info("%s%s", count(self.rows.values()), f" ({told})" if told else "")


def _secret(token: Path) -> str:
    """Return what the token file holds; jobs that an earlier launcher handed in know it too."""
    if not token.is_file():
        write_text(token, secrets.token_hex(8))
    return token.read_text()


def _elsewhere(task: Task) -> bool:
    return task.lock is not None and is_held(task.lock)


def _node(state: dict[str, object] | None) -> str:
    return str((state or {}).get("node", "?"))


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
