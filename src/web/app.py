"""The application: pages for people, JSON for programs, one queue behind both."""

import asyncio
import json
import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from src.errors import UserError
from src.evidence.evidence import SCHEMA, FileEvidence
from src.pages.environment import words
from src.web.desk import Desk, Ticket
from src.web.guard import Entrance, Guard
from src.web.history import History
from src.web.intake import received
from src.web.pages import Pages, language_of, script
from src.web.refusal import RequestRefusedError, fault
from src.web.uploads import Uploads

LOG = logging.getLogger("rvf")
FORM_FILES = 8  # that one form may bring; the script sends each by itself
GONE = 499  # in place of an answer to a client that went away; nobody reads it


def bare_app(entrance: Entrance, language: str) -> tuple[FastAPI, Pages]:
    """Return an application without routes for files: the guard, the script, the way in.

    Args:
        entrance: whom it lets in.
        language: of pages and errors where the browser asks for none that there is.

    Returns:
        The application, to which routers can be added, and what makes its pages.
    """
    pages = Pages(language, entrance)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        for end in app.state.at_end:
            end()

    app = FastAPI(
        title="rvf", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan,
        redirect_slashes=False,
    )  # fmt: skip
    app.state.at_end = []
    app.add_middleware(Guard, entrance=entrance, refuse=pages.refuse)

    @app.exception_handler(RequestRefusedError)
    async def refuse(request: Request, error: RequestRefusedError) -> Response:
        return pages.refuse(request, error)

    @app.exception_handler(UserError)
    async def mistake(request: Request, error: UserError) -> Response:
        return pages.note(request, 422, str(error))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        key = {404: "not_found", 405: "wrong_method"}.get(error.status_code, "bad_request")
        return pages.refuse(request, RequestRefusedError(error.status_code, key))

    @app.exception_handler(ClientDisconnect)
    async def gone(*_: object) -> Response:
        return Response(status_code=GONE)

    @app.get("/static/app.js")
    async def static() -> Response:
        lasting = {"Cache-Control": "max-age=31536000, immutable"}  # its address has its hash
        return Response(script(), media_type="text/javascript; charset=utf-8", headers=lasting)

    @app.get("/enter")
    async def door(request: Request) -> Response:
        return pages.door(request)

    @app.post("/enter")
    async def enter(request: Request) -> Response:
        return await pages.enter(request)

    return app, pages


def make_app(
    desk: Desk,
    uploads: Uploads,
    history: History,
    entrance: Entrance,
    *,
    language: str = "en",
    limits: dict[str, float] | None = None,
) -> FastAPI:
    """Return the application that looks at what is dropped on it.

    Args:
        desk: the queue; its workers are started.
        uploads: where files lie meanwhile.
        history: what is kept of answers, of those for people.
        entrance: whom it lets in.
        language: see `bare_app`.
        limits: of a file, for people: `seconds`, `pixels`.
    """
    app, pages = bare_app(entrance, language)
    app.state.at_end.append(desk.end)
    routes = _Routes(desk, uploads, history, pages, limits or {})
    app.get("/")(routes.home)
    app.post("/look")(routes.look)
    app.get("/look")(routes.back)  # where a page of the form's answer is asked for again
    app.post("/look/stream")(routes.stream)
    app.get("/look/{key}")(routes.looked)
    app.post("/clear")(routes.clear)
    app.post("/api/look")(routes.api)
    app.get("/healthz")(routes.health)
    return app


class _Routes:
    """What the addresses do."""

    def __init__(
        self,
        desk: Desk,
        uploads: Uploads,
        history: History,
        pages: Pages,
        limits: dict[str, float],
    ) -> None:
        self.desk, self.uploads, self.history, self.pages = desk, uploads, history, pages
        self.limits = limits | {"bytes": uploads.most_bytes}

    async def home(self, request: Request) -> Response:
        """Show the page that files are dropped on."""
        if "token" in request.query_params:
            return self.pages.enter_by_address(request)
        return self.pages.show(
            request, "serve.html.j2", history=self.history.newest(), limits=self.limits,
            about=self.desk.workers[0].about,
        )  # fmt: skip

    async def look(self, request: Request) -> Response:
        """Take a form of a browser without the script; the page has the evidence of its files."""
        found: list[FileEvidence] = []
        refused: list[str] = []
        say = words(language_of(request, self.pages.language))
        tickets = self.desk.submit(await received(request, self.uploads, FORM_FILES))
        try:
            for ticket in tickets:
                try:
                    found.append(await attended(request, self.desk, ticket))
                    self.history.add(found[-1])
                except (UserError, RequestRefusedError) as error:
                    refused.append(f"{ticket.upload.name}: {_said(error, say)[1]}")
        finally:
            for ticket in tickets:
                self.desk.drop(ticket)
        status = 200 if found else 422
        return self.pages.show(request, "serve_look.html.j2", status, found=found, refused=refused)

    async def back(self, request: Request) -> Response:
        """Lead to the first page."""
        return RedirectResponse(self.pages.home(request), 303)

    async def stream(self, request: Request) -> Response:
        """Take one file from the script; lines of JSON say how far it is, the last has all."""
        (ticket,) = self.desk.submit(await received(request, self.uploads))
        # `no` asks proxies to hand each line on as it comes.
        return StreamingResponse(
            self._lines(ticket, language_of(request, self.pages.language)),
            media_type="application/x-ndjson", headers={"X-Accel-Buffering": "no"},
        )  # fmt: skip

    async def _lines(self, ticket: Ticket, language: str) -> AsyncIterator[str]:
        try:
            async for state in ticket.follow():
                yield json.dumps(state) + "\n"
            yield json.dumps(await self._last(ticket, language)) + "\n"
        finally:
            self.desk.drop(ticket)

    async def _last(self, ticket: Ticket, language: str) -> dict[str, object]:
        """Return the last line: the evidence, or why there is none."""
        try:
            found = await ticket.answer()
            html = self.pages.part(found, language)
        except (UserError, RequestRefusedError) as error:
            status, text = _said(error, words(language))
        except Exception as error:  # the answer has begun, and this is its end
            LOG.error("an error that should not be", exc_info=error)
            status, text = _said(fault(error), words(language))
        else:
            verdict = found.verdict
            return {
                "state": "done", "look": self.history.add(found), "said": verdict.said,
                "prob": verdict.prob, "html": html,
            }  # fmt: skip
        return {"state": "failed", "status": status, "error": text}

    async def looked(self, request: Request, key: str) -> Response:
        """Show an answer that is kept."""
        answer = self.history.get(key)
        if answer is None:
            raise RequestRefusedError(404, "gone")
        found = [answer.evidence]
        return self.pages.show(request, "serve_look.html.j2", found=found, refused=[])

    async def clear(self, request: Request) -> Response:
        """Forget all answers."""
        self.history.clear()
        return RedirectResponse(self.pages.home(request), 303)

    async def api(self, request: Request) -> Response:
        """Take one file from a program; the answer is what `look --json` writes of it."""
        (ticket,) = self.desk.submit(await received(request, self.uploads))
        found = await attended(request, self.desk, ticket)
        record = found.record()
        if request.query_params.get("pictures") == "1":
            record["pictures"] = {
                name: b64encode(picture).decode() for name, picture in found.pictures.items()
            }
        return Response(json.dumps(record), media_type="application/json")

    async def health(self) -> Response:
        """Say whether a file would be looked at; where not, what looks is started again."""
        desk, about = self.desk, self.desk.workers[0].about
        desk.revive()
        state = {
            "ready": desk.ready, "recipe": about.recipe if about else None,
            "dataset": about.dataset if about else None, "schema": SCHEMA,
            "queue": {"waiting": len(desk.queue), "looking": len(desk.running),
                      "most": self.uploads.most, "answered": desk.answered},
        }  # fmt: skip
        return JSONResponse(state, 200 if desk.ready else 503)


async def attended(request: Request, desk: Desk, ticket: Ticket) -> FileEvidence:
    """Return the answer; a client that goes away meanwhile is not waited for.

    Raises:
        RequestRefusedError, UserError: why there is none.
        ClientDisconnect: nobody would hear it.
    """
    gone = asyncio.ensure_future(_gone(request))
    answer = asyncio.ensure_future(ticket.answer())
    try:
        await asyncio.wait({gone, answer}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        gone.cancel()
        answer.cancel()
        desk.drop(ticket)  # no more than a word where it is answered


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _said(error: UserError | RequestRefusedError, say: Callable[..., str]) -> tuple[int, str]:
    """Return the status and the words of why a file has no evidence."""
    if isinstance(error, RequestRefusedError):
        return error.status, error.words(say)
    return 422, str(error)
