"""`python -m src serve`: a page to drop files on, and its JSON API; work is done in processes."""

import socket
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from src.cli.common import show_log, taken
from src.errors import UserError
from src.machine import cpu_count
from src.pages.environment import words

if TYPE_CHECKING:
    from src.web.guard import Entrance
    from src.web.worker import About, LookAt

EXTRA = "the page needs the extra `web`: pip install fastapi uvicorn python-multipart"


@dataclass(frozen=True)
class Serving:
    """What is asked of the server."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0: any that is free
    token: str | None = None  # None: one is made where others can reach the server
    names: tuple[str, ...] = ()  # of hosts by which it is reached, beside its addresses
    most_mb: float = 200.0  # of an upload
    most_seconds: float = 600.0  # of a clip
    most_pixels: float = 100e6  # of a picture, or a frame
    jobs: int = 1  # files that are looked at together, a process each
    queue: int = 16  # files that wait, or come in
    timeout: float = 300.0  # seconds that a file may take
    history: int = 50  # answers that are kept in memory for the page; 0: none
    language: str = "en"  # where a browser prefers none that there is


def run_serve(arguments: Namespace) -> None:
    """Do what the flags ask for, until Ctrl-C."""
    show_log()
    asked = taken(Serving, arguments, names=tuple(arguments.names))
    words(asked.language)
    check_serving(asked)
    serve(asked, partial(load, arguments))


def serve(asked: Serving, make: "Callable[[], tuple[LookAt, About]]") -> None:
    """Serve until a signal comes.

    Args:
        asked: where, for whom, how much.
        make: see `src.web.worker.Worker`.

    Raises:
        UserError: the port is in use, the recipe cannot be loaded ...
    """
    from src.web.app import make_app
    from src.web.desk import Desk
    from src.web.history import History
    from src.web.server import listen, run
    from src.web.uploads import Uploads, private_folder
    from src.web.worker import Worker

    with listen(asked.host, asked.port) as listening, private_folder() as folder:
        entrance = entrance_of(asked, listening.getsockname()[1])
        threads = None if asked.jobs == 1 else max(1, cpu_count() // asked.jobs)
        workers = [Worker(make, asked.timeout, threads) for _ in range(asked.jobs)]
        desk = Desk(workers)
        try:
            for worker in workers:
                worker.start()
            uploads = Uploads(folder, asked.jobs + asked.queue, round(asked.most_mb * 1e6))
            limits = {"seconds": asked.most_seconds, "pixels": asked.most_pixels}
            app = make_app(
                desk, uploads, History(asked.history), entrance, language=asked.language,
                limits=limits,
            )  # fmt: skip
            greet(asked, entrance)
            try:
                run(app, listening, desk.stop)
            finally:
                print(f"stopped; {desk.answered} files were looked at, none is kept")
        finally:
            desk.end()


def load(arguments: Namespace) -> "tuple[LookAt, About]":
    """Load the recipe that the flags name; called in a process of its own."""
    from src.cli.files.look import make_looker  # torch, which the server itself does without
    from src.evidence.looker import Looking
    from src.web.worker import About

    show_log()
    pixels = round(arguments.most_pixels)
    looker = make_looker(arguments, taken(Looking, arguments, most_pixels=pixels, lasting=True))
    models = tuple(member.model for member in looker.recipe.members if member.weight != 0)
    return looker.look, About(looker.name, looker.recipe.dataset, models)


def check_serving(asked: Serving) -> None:
    """Raise a UserError where the extra is not there, or what is asked for makes no sense."""
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(f"{EXTRA} ({error.name} is not there)") from None
    from src.web.guard import LEAST_TOKEN

    if not 0 <= asked.port <= 65535:
        raise UserError(f"--port {asked.port}: want 1 to 65535, or 0 for any that is free")
    for name in ("most_mb", "most_seconds", "most_pixels", "timeout"):
        if not 0 < getattr(asked, name) < float("inf"):
            raise UserError(f"--{name.replace('_', '-')} {getattr(asked, name)}: want more than 0")
    for name, least in (("jobs", 1), ("queue", 0), ("history", 0)):
        if getattr(asked, name) < least:
            raise UserError(f"--{name} {getattr(asked, name)}: want at least {least}")
    if asked.token is not None and len(asked.token) < LEAST_TOKEN:
        raise UserError(
            f"--token: want at least {LEAST_TOKEN} letters; left out, a good one is made where it "
            "is needed"
        )


def entrance_of(asked: Serving, port: int) -> "Entrance":
    """Return whom the server lets in: without a token only who is on this machine."""
    from src.web.guard import Entrance, is_local, make_token, names_of

    token = asked.token
    if token is None and not (is_local(asked.host) and not asked.names):
        token = make_token()
    return Entrance(names_of(asked.names, socket.gethostname()), token, port)


def greet(asked: Serving, entrance: "Entrance") -> None:
    """Print where the page is, and how others come in."""
    from src.web.guard import is_local

    local = is_local(asked.host)
    shown = asked.host if asked.host not in ("0.0.0.0", "::") else socket.gethostname()
    shown = f"[{shown}]" if ":" in shown else shown
    print(f"open http://{shown}:{entrance.port}/ (Ctrl-C ends it)")
    if entrance.token is not None:
        print(f"token: {entrance.token}")
        print(f"with it: http://{shown}:{entrance.port}/?token={entrance.token}")
    if not local:
        print(
            "WARNING others can reach this address, and without TLS they can read what is sent: "
            "put a proxy with TLS before it (docs/serve.md), or leave --host out and use ssh -L"
        )
    sys.stdout.flush()
