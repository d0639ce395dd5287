"""A progress bar on a terminal, plain lines with rate and ETA in a log."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

LOG = logging.getLogger("rvf")
LOG_SECONDS = 30.0
BAR_SECONDS = 1.0  # between two looks at what is said beside a bar
SHOWN = True  # whether anything is; of several ranks one shows what all do
T = TypeVar("T")


def track(
    things: Iterable[T],
    what: str,
    *,
    total: int | None = None,
    unit: str = "it",
    said: Callable[[], str] = str,
) -> Iterator[T]:
    """Yield `things`, showing how far along they are.

    `what` is being done, a word or two; `total` says how many there are, where `len` does not;
    `said` returns what else is to be shown, and is called only when something is.
    """
    if not SHOWN:
        yield from things
        return
    if total is None and hasattr(things, "__len__"):
        total = len(things)  # type: ignore[arg-type]
    if sys.stderr.isatty():
        bar = tqdm(things, desc=what, total=total, unit=unit, leave=False, dynamic_ncols=True)
        looked = time.monotonic()
        for thing in bar:
            yield thing
            if time.monotonic() - looked >= BAR_SECONDS:
                bar.set_postfix_str(said(), refresh=False)
                looked = time.monotonic()
        return
    start = shown = time.monotonic()
    for done, thing in enumerate(things, 1):
        yield thing
        now = time.monotonic()
        if now - shown >= LOG_SECONDS:
            shown = now
            rate = done / (now - start)
            if total and done > total:  # a guess of a run whose pace changes (--minutes)
                total = None
            left = f", {(total - done) / rate:.0f} s left" if total else ""
            also = f", {words}" if (words := said()) else ""
            LOG.info("%s: %d/%s, %.1f %s/s%s%s", what, done, total or "?", rate, unit, left, also)
