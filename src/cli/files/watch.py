"""`python -m src watch SOURCE`: a camera, a stream or a file, and what a recipe says of it now."""

import json
import shutil
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Any

from src.artifacts.outputs import check_output
from src.cli.common import show_log, taken
from src.cli.files.look import make_looker
from src.cli.files.serve import Serving, check_serving, entrance_of, greet
from src.errors import UserError
from src.evidence.live.loop import Watcher, Watching
from src.evidence.live.sources import source_of
from src.evidence.live.state import SCHEMA, LiveEvent, LiveState, Summary
from src.evidence.live.text import ENDS, state_line, summary_text
from src.evidence.looker import Looking
from src.inference.pictures import PictureJudge
from src.pages.environment import plain, words

EVERY = 1.0  # seconds between two lines for people
UNSAFE = (
    "its certificate is not looked at (--insecure): whoever is between can read the password and "
    "show other pictures"
)
PATIENCE = 10.0  # seconds in which the frame that is being looked at ends


def run_watch(arguments: Namespace) -> None:
    """Do what the flags ask for."""
    if not arguments.json:  # else its lines would stand among those of JSON
        show_log()
    if arguments.output is not None:
        check_output(arguments.output, ".jsonl", _is_ours)
    asked, serving = taken(Watching, arguments), None
    if arguments.serve:
        serving = taken(Serving, arguments, names=tuple(arguments.names))
        words(serving.language)
        check_serving(serving)
    source = source_of(arguments.source, asked.stall, insecure=arguments.insecure)
    if arguments.insecure:
        print(plain(f"WARNING {source.name}: {UNSAFE}"), flush=True,
              file=sys.stderr if arguments.json else sys.stdout)  # fmt: skip
    if not source.is_live:  # a mistake is told before nets are loaded
        source.open()
        source.close()
    with ExitStack() as stack:
        looking = Looking(arguments.risk, deliveries=0, maps=False, provenance=False,
                          lasting=True)  # fmt: skip
        looker = make_looker(arguments, looking)
        told = _Told(None if arguments.json else _Screen())
        if arguments.output is not None:
            file = stack.enter_context(arguments.output.open("w", encoding="utf-8"))
            told.files.append(file)
        if arguments.json:
            told.files.append(sys.stdout)
        judge = PictureJudge(looker.loaded)
        source.open()
        watcher = Watcher(judge, looker.says, source, asked, told.state, told.event)
        try:
            if serving is None:
                watcher.run()
            else:
                _serve(watcher, told, serving, looker.name)
        finally:
            if watcher.summary.ended:  # else it never began, and the error says why
                told.end(watcher.summary, looker.name)


def _serve(watcher: Watcher, told: "_Told", asked: Serving, recipe: str) -> None:
    """Watch in a thread and show it on a page, until Ctrl-C."""
    from src.web.live import NewestState, make_live_app
    from src.web.server import listen, run

    source, summary = watcher.source, watcher.summary
    newest = NewestState(source.name if source.is_live else Path(source.name).name, recipe)

    def watch() -> None:
        trouble = ""
        try:
            watcher.run()
        except UserError as error:
            trouble = str(error)
        except Exception as error:
            trouble = type(error).__name__
            raise
        finally:
            newest.end(summary, trouble)
            told.line(trouble or f"{summary.source}: {ENDS[summary.ended]}; the page stays")

    thread = threading.Thread(target=watch, name="watch", daemon=True)
    with listen(asked.host, asked.port) as listening:
        entrance = entrance_of(asked, listening.getsockname()[1])
        app = make_live_app(newest, entrance, asked.language)
        told.on_state, told.on_event = newest.put, newest.tell
        thread.start()
        with redirect_stdout(told.aside):
            greet(asked, entrance)
        try:
            run(app, listening, watcher.stop)
        finally:
            watcher.stop()
            thread.join(PATIENCE)


class _Told:
    """Hands on what is seen: lines of JSON, words for people, a page."""

    def __init__(self, screen: "_Screen | None") -> None:
        self.screen, self.files = screen, list[Any]()
        self.on_state: Callable[[LiveState], None] | None = None
        self.on_event: Callable[[LiveEvent], None] | None = None

    @property
    def aside(self) -> Any:  # noqa: ANN401
        """The stream for what is no JSON."""
        return sys.stderr if self.screen is None else sys.stdout

    def state(self, state: LiveState) -> None:
        """Tell of a frame."""
        for file in self.files:
            _write(file, state.record())
        if self.on_state is not None:
            self.on_state(state)
        if self.screen is not None:
            self.screen.show(state_line(state))

    def event(self, event: LiveEvent) -> None:
        """Tell what happened."""
        for file in self.files:
            _write(file, event.record())
        if self.on_event is not None:
            self.on_event(event)
        self.line(event.words)

    def line(self, text: str) -> None:
        """Print a line for people."""
        if self.screen is None:
            print(plain(text), file=sys.stderr, flush=True)
        else:
            self.screen.line(plain(text))

    def end(self, summary: Summary, recipe: str) -> None:
        """Tell of all of it."""
        for file in self.files:
            _write(file, summary.record() | {"recipe": recipe})
        if self.screen is not None:
            self.screen.line(summary_text(summary))


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
