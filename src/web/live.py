"""A live source as a page: its newest frame, a verdict of each person, how late it is."""

import hashlib
import threading
from collections import deque
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from src.evidence.live.state import LiveEvent, LiveState, Summary
from src.evidence.live.text import clock
from src.pages.environment import Say, render, words
from src.web.app import bare_app
from src.web.guard import Entrance
from src.web.pages import Pages, language_of

SCRIPT = Path(__file__).with_name("static") / "live.js"
EVENTS = 5  # that are shown, the last


class NewestState:
    """What is known of a live source now; written by the thread that watches, read by requests.

    Args:
        source: its name, without what opens it.
        recipe: the name of what judges it.
    """

    def __init__(self, source: str, recipe: str) -> None:
        self.source, self.recipe = source, recipe
        self.ended = ""  # as `Summary.ended`
        self.trouble = ""  # why it is not watched any more, where that is an error
        self.state: LiveState | None = None
        self.events: deque[LiveEvent] = deque(maxlen=EVENTS)
        self._lock = threading.Lock()
        self._drawn: tuple[LiveState, bytes] | None = None

    def put(self, state: LiveState) -> None:
        """Take the newest state."""
        with self._lock:
            self.state = state

    def tell(self, event: LiveEvent) -> None:
        """Take note of what happened."""
        with self._lock:
            self.events.append(event)

    def end(self, summary: Summary, trouble: str = "") -> None:
        """Take note that there is nothing more to come."""
        with self._lock:
            self.ended, self.trouble = summary.ended, trouble

    def frame(self) -> bytes | None:
        """Return the newest frame as a small JPEG; None before the first."""
        with self._lock:
            state, drawn = self.state, self._drawn
        if state is None or state.snapshot is None:
            return None
        if drawn is None or drawn[0] is not state:
            drawn = state, state.snapshot()
            with self._lock:
                self._drawn = drawn
        return drawn[1]

    def known(self) -> dict[str, Any]:
        """Return what templates show, all of one moment."""
        with self._lock:
            return {
                "source": self.source, "recipe": self.recipe, "state": self.state,
                "ended": self.ended, "trouble": self.trouble, "events": [*self.events],
                "clock": clock,
            }  # fmt: skip

    def spoken(self, say: Say) -> str:
        """Return the verdicts in few words, which change as seldom as they do."""
        state = self.state
        if self.ended or state is None:
            return say(f"live.ended_{self.ended}") if self.ended else ""
        if state.picture is not None:
            return say(f"look.{state.picture.said}")
        said = [
            f"{face.number}: {say(f'look.{face.verdict.said}')}"
            for face in sorted(state.faces, key=lambda face: face.number)
            if face.verdict is not None and face.seen
        ]
        return ", ".join(said) or say("live.no_face")


@cache
def script() -> bytes:
    """Return the script of the page."""
    return SCRIPT.read_bytes()


def make_live_app(newest: NewestState, entrance: Entrance, language: str = "en") -> FastAPI:
    """Return the application that shows a live source.

    Args:
        newest: what it shows.
        entrance: whom it lets in.
        language: where a browser asks for none that there is.
    """
    app, pages = bare_app(entrance, language)
    app.include_router(live_router(newest, pages))

    @app.get("/")
    async def first(request: Request) -> Response:
        if "token" in request.query_params:
            return pages.enter_by_address(request)
        return RedirectResponse(f"./live?lang={language_of(request, language)}", 303)

    @app.get("/healthz")
    async def health() -> Response:
        state = {"ready": not newest.ended, "recipe": newest.recipe, "ended": newest.ended}
        return JSONResponse(state, 503 if newest.ended else 200)

    return app


def live_router(newest: NewestState, pages: Pages) -> APIRouter:
    """Return the routes of a live source; those that draw are run in threads."""
    router = APIRouter()

    @router.get("/live")
    def page(request: Request) -> Response:
        mark = hashlib.sha256(script()).hexdigest()[:16]
        return pages.show(
            request, "live.html.j2", live_script=f"static/live.js?v={mark}", **newest.known()
        )

    @router.get("/live/state")
    def state(request: Request) -> Response:
        language = language_of(request, pages.language)
        found = newest.state
        return JSONResponse({
            "frame": -1 if found is None else found.frame,
            "ended": bool(newest.ended),
            "spoken": newest.spoken(words(language)),
            "html": render("live_now.html.j2", language, **newest.known()),
        })  # fmt: skip

    @router.get("/live/record")
    def record() -> Response:
        found = newest.state
        return JSONResponse(None if found is None else found.record())

    @router.get("/live/frame.jpg")
    def frame() -> Response:
        drawn = newest.frame()
        if drawn is None:
            return Response(status_code=204)
        return Response(drawn, media_type="image/jpeg")

    @router.get("/static/live.js")
    def static() -> Response:
        lasting = {"Cache-Control": "max-age=31536000, immutable"}  # its address has its hash
        return Response(script(), media_type="text/javascript; charset=utf-8", headers=lasting)

    return router
