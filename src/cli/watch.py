"""`python -m src watch SOURCE`: a camera, a stream or a file, and what a recipe says of it now."""

import json
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from src.artifacts.outputs import check_output
from src.cli.common import show_log, taken
from src.cli.look import make_looker
from src.evidence.live.loop import Watcher, Watching
from src.evidence.live.sources import source_of
from src.evidence.live.state import SCHEMA, LiveEvent, LiveState
from src.evidence.live.text import state_line, summary_text
from src.evidence.looker import Looking
from src.inference.pictures import PictureJudge
from src.pages.environment import plain

EVERY = 1.0  # seconds between two lines for people
Write = Callable[[dict[str, Any]], None]


def run_watch(arguments: Namespace) -> None:
    """Do what the flags ask for."""
    if not arguments.json:  # else its lines would stand among those of JSON
        show_log()
    if arguments.output is not None:
        check_output(arguments.output, ".jsonl", _is_ours)
    asked = taken(Watching, arguments)
    source = source_of(arguments.source, asked.stall)
    if not source.is_live:  # a mistake is told before nets are loaded
        source.open()
        source.close()
    with ExitStack() as stack:
        looking = Looking(arguments.risk, deliveries=0, maps=False, provenance=False)
        looker = make_looker(arguments, looking)
        writers: list[Write] = []
        if arguments.output is not None:
            file = stack.enter_context(arguments.output.open("w", encoding="utf-8"))
            writers.append(lambda record: _write(file, record))
        if arguments.json:
            writers.append(lambda record: _write(sys.stdout, record))
        screen = None if arguments.json else _Screen()
        watcher = Watcher(
            PictureJudge(looker.loaded), looker.says, source, asked,
            lambda state: _tell(state, writers, screen), lambda one: _tell(one, writers, screen),
        )  # fmt: skip
        try:
            watcher.run()
        finally:
            record = watcher.summary.record() | {"recipe": looker.name}
            for write in writers:
                write(record)
            if screen is not None:
                screen.line(summary_text(watcher.summary))


def _tell(what: LiveState | LiveEvent, writers: list[Write], screen: "_Screen | None") -> None:
    for write in writers:
        write(what.record())
    if screen is None:
        if isinstance(what, LiveEvent):
            print(plain(what.words), file=sys.stderr)
    elif isinstance(what, LiveEvent):
        screen.line(plain(what.words))
    else:
        screen.show(state_line(what))


def _write(file: Any, record: dict[str, Any]) -> None:  # noqa: ANN401
    """Write a line at once and whole, so that who reads along, or a stop, finds no half of one."""
    file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
    file.flush()


class _Screen:
    """Lines for people: one that is written anew on a terminal, one a second in a log."""

    def __init__(self) -> None:
        self._rewrites = sys.stdout.isatty()
        self._shown = -EVERY
        self._open = False  # a line that the next one is written over

    def show(self, text: str) -> None:
        """Show what is said now, where the last time is long enough ago."""
        now = time.monotonic()
        if now - self._shown < EVERY:
            return
        self._shown = now
        if not self._rewrites:
            print(text, flush=True)
            return
        wide = max(20, shutil.get_terminal_size().columns - 1)
        print(f"\r{text[:wide]:<{wide}}", end="", flush=True)
        self._open = True

    def line(self, text: str) -> None:
        """Print a line that stays."""
        if self._open:
            print()
            self._open = False
        print(text, flush=True)


def _is_ours(path: Path) -> bool:
    """Tell by its first line whether a file is what this command wrote; an empty one may be."""
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline(1_000_000)
    try:
        found = json.loads(first) if first else {"schema": SCHEMA, "type": "state"}
        return found["type"] in ("state", "event", "summary") and bool(found["schema"])
    except (ValueError, TypeError, LookupError, RecursionError):
        return False
