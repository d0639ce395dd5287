"""Servers with a fake recipe and with a trained one; a browser."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra `web` is not installed")
pytest.importorskip("uvicorn", reason="the extra `web` is not installed")
pytest.importorskip("python_multipart", reason="the extra `web` is not installed")

import uvicorn

from src.web.app import make_app
from src.web.desk import Desk
from src.web.guard import Entrance
from src.web.history import History
from src.web.uploads import Uploads
from src.web.worker import Worker
from tests.evidence.conftest import face_root as face_root  # a fixture
from tests.web.fakes import make_faces


@pytest.fixture(scope="session")
def address(
    face_root: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """Serve that recipe; returns the address."""
    worker = Worker(partial(make_faces, face_root), 60)
    worker.start()
    folder = tmp_path_factory.mktemp("uploads")
    with serving([worker], folder) as served:
        yield served.address


class serving:  # noqa: N801 - a context manager
    """A server in a thread, with the queue of some workers."""

    def __init__(self, workers, folder: Path, *, most: int = 8, **more) -> None:
        self.desk, self.history = Desk(workers), History(20)
        self.uploads = Uploads(folder, most, 3_000_000)
        limits = {"seconds": 60.0, "pixels": 1e6}
        app = make_app(
            self.desk, self.uploads, self.history, Entrance(**more), limits=limits
        )  # fmt: skip
        config = uvicorn.Config(app, log_config=None, log_level="error", ws="none", lifespan="on")
        self.server = uvicorn.Server(config)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],))

    @property
    def port(self) -> int:
        return self.socket.getsockname()[1]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "serving":
        self.thread.start()
        until = time.monotonic() + 30
        while not self.server.started and time.monotonic() < until:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(30)


@pytest.fixture
def open_page(browser, address) -> Iterator[Callable[..., object]]:
    """Return a call that opens the page: `open_page(dark=..., phone=..., language=...)`.

    Afterwards all its requests must have been to the server itself, and nothing have been refused
    by the policy. `at` is the address of another server.
    """
    contexts, foreign, refused = [], [], []

    def open_it(*, at=address, dark=False, phone=False, language="en-GB", script=True):
        context = browser.new_context(
            color_scheme="dark" if dark else "light", locale=language, java_script_enabled=script,
            viewport={"width": 390, "height": 844} if phone else {"width": 1280, "height": 900},
            has_touch=phone, reduced_motion="reduce",
        )  # fmt: skip
        contexts.append(context)
        page = context.new_page()

        def on_request(request):
            if not request.url.startswith((at, "data:")):
                foreign.append(request.url)

        page.on("request", on_request)
        page.on("console", lambda said: refused.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: refused.append(str(error)))
        page.goto(f"{at}/")
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert foreign == []
    assert refused == []
