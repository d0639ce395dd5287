"""The log of a run in a plain file beside its checkpoint: every line as it is said, with its time.

A run that goes on, or is trained again, writes after what is there; the last line of each part says
how it ended. A file that cannot be written costs a warning, never the run.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from src import paths
from src.compute import ranks
from src.compute.clock import Clock
from src.errors import UNSEEN, UserError, message_of
from src.training.job import Job

LOG = logging.getLogger("rvf")


class _ToFile(logging.Handler):
    """Writes lines, and is silent once one could not be written."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        self.path = path
        self.file: TextIO | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = path.open("a", encoding="utf-8", errors="backslashreplace")
            if self.file.tell():
                self.file.write("\n")
        except OSError as error:
            self._give_up(error)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line and hand it to the system, so that a killed process loses none."""
        if self.file is None:
            return
        try:
            self.file.write(self.format(record).translate(UNSEEN) + "\n")
            self.file.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.close()
        LOG.warning("%s: no log is written there (%s)", self.path, error.strerror or error)

    def close(self) -> None:
        """Close the file; what a full disk did not take is lost."""
        file, self.file = self.file, None
        try:
            if file is not None:
                file.close()
        except OSError:
            pass
        super().close()


@contextmanager
def run_log(job: Job) -> Iterator[None]:
    """Write what is logged within the block into the run's file, and how the block ended.

    To be entered under the run's lock: then one process at a time writes, of several ranks the
    leading one.
    """
    if not ranks.leads():
        yield
        return
    handler = _ToFile(paths.run_log(*job.names))
    level = LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(min(LOG.getEffectiveLevel(), logging.INFO))

    def say(text: str, error: BaseException | None = None) -> None:
        """Write a line into the file alone."""
        trace = None if error is None else (type(error), error, error.__traceback__)
        handler.handle(logging.LogRecord("rvf", logging.INFO, "", 0, text, None, trace))

    try:
        again = ", again (--overwrite)" if job.options.overwrite else ""
        say(f"=== {job.title}{again}")
        yield
        say("=== finished")
    except UserError as error:
        say(f"=== error: {message_of(error)}")
        raise
    except BaseException as error:
        # Libraries make other errors of a signal: see `cli.common.run_command`.
        stopped = Clock.raised or isinstance(error, KeyboardInterrupt)
        why = f": {error}" if str(error) and isinstance(error, KeyboardInterrupt) else ""
        say(f"=== interrupted{why}" if stopped else "=== failed", None if stopped else error)
        raise
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(level)
        handler.close()
