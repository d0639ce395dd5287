"""Pages and errors of the server, in the language that a browser asks for."""

import hashlib
import json
from functools import cache
from pathlib import Path

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.requests import HTTPConnection

from src.data.items.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from src.evidence.evidence import FileEvidence
from src.pages.environment import LANGUAGES, render, words
from src.web.guard import Entrance
from src.web.intake import fields_of
from src.web.refusal import RequestRefusedError

SCRIPT = Path(__file__).with_name("static") / "app.js"
PROGRAMS = ("/api/", "/look/stream", "/healthz", "/static/")  # whose errors are JSON
_SCRIPT_WORDS = (  # that the script says
    "waiting", "sending", "failed", "lost", "left_out", "cancel", "open", "finished", "too_large",
    "step_reading", "step_verdict", "step_stability", "step_people", "step_maps",
    "step_provenance", "all_done", "dropped_none", "of_file", "beyond", "again",
)  # fmt: skip
ACCEPTS = ",".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))  # what a chooser of files offers
_VERDICTS = ("real", "fake", "unsure", "unreadable")


@cache
def script() -> bytes:
    """Return the script of the page."""
    return SCRIPT.read_bytes()


@cache
def script_hash() -> str:
    """Return the beginning of its hash, which its address has."""
    return hashlib.sha256(script()).hexdigest()[:16]


def language_of(connection: HTTPConnection, default: str) -> str:
    """Return the language of an answer: `?lang=`, else what the browser prefers."""
    asked = connection.query_params.get("lang")
    if asked in LANGUAGES:
        return asked
    wanted = []
    for place, part in enumerate(connection.headers.get("accept-language", "").split(",")[:20]):
        name, _, weight = part.strip().partition(";q=")
        try:
            wanted.append((-float(weight or 1), place, name.lower().split("-")[0]))
        except ValueError:
            continue
    return next((name for _, _, name in sorted(wanted) if name in LANGUAGES), default)


class Pages:
    """Makes the server's pages.

    Args:
        language: where a browser asks for none that there is.
        entrance: whom the server lets in.
    """

    def __init__(self, language: str, entrance: Entrance) -> None:
        words(language)  # an unknown one is refused before the server starts
        self.language, self.entrance = language, entrance

    def show(
        self, request: HTTPConnection, template: str, status: int = 200, **values: object
    ) -> Response:
        """Return a page; links are relative, so that it may lie below any path of a proxy."""
        language = language_of(request, self.language)
        say = words(language)
        root = "../" * (request.url.path.count("/") - 1) or "./"
        said = {key: say(f"web.{key}") for key in _SCRIPT_WORDS}  # the script fills in {places}
        said |= {f"said_{key}": say(f"look.{key}") for key in _VERDICTS}
        page = render(
            template, language, root=root, script=f"{root}static/app.js?v={script_hash()}",
            script_words=json.dumps(said), accepts=ACCEPTS, query=f"?lang={language}", **values,
        )  # fmt: skip
        return HTMLResponse(page.encode("utf-8", "backslashreplace"), status)

    def part(self, found: FileEvidence, language: str) -> str:
        """Return the evidence of a file as a piece of a page."""
        return render("serve_part.html.j2", language, one=found)

    def note(
        self, request: HTTPConnection, status: int, text: str, again: int | None = None
    ) -> Response:
        """Return an error, as a page for people and as JSON for programs."""
        headers = {} if again is None else {"Retry-After": str(again)}
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        for_people = "text/html" in request.headers.get("accept", "")
        if request.url.path.startswith(PROGRAMS) or not for_people:
            body = json.dumps({"error": text})
            response = Response(body, status, media_type="application/json")
        elif status == 401:
            response = self.show(request, "serve_enter.html.j2", status, wrong=False)
        else:
            response = self.show(request, "serve_note.html.j2", status, text=text, code=status)
        response.headers.update(headers)
        return response

    def refuse(self, request: HTTPConnection, error: RequestRefusedError) -> Response:
        """Return the answer to a request that is refused."""
        say = words(language_of(request, self.language))
        return self.note(request, error.status, error.words(say), error.again)

    def home(self, request: HTTPConnection) -> str:
        """Return the address of the first page as seen from one beside it."""
        return f"./?lang={language_of(request, self.language)}"

    def door(self, request: HTTPConnection, *, wrong: bool = False) -> Response:
        """Return the page that asks for the token."""
        if self.entrance.token is None:
            return RedirectResponse(self.home(request), 303)
        return self.show(request, "serve_enter.html.j2", 401 if wrong else 200, wrong=wrong)

    async def enter(self, request: Request) -> Response:
        """Take the token of a form."""
        given = (await fields_of(request)).get("token", [""])
        return self._pass(request, given[0].strip())

    def enter_by_address(self, request: HTTPConnection) -> Response:
        """Take the token of an address, and lead to the same one without it."""
        return self._pass(request, request.query_params["token"])

    def _pass(self, request: HTTPConnection, token: str) -> Response:
        if self.entrance.token is None:
            return RedirectResponse(self.home(request), 303)
        if not self.entrance.is_token(token):
            return self.door(request, wrong=True)
        response = RedirectResponse(self.home(request), 303)
        # Not `strict`: followed from a mail or a chat, the redirect would come without the cookie.
        # `lax` sends it to pages that a link opens, which change nothing; what changes something
        # is refused for other origins (`Guard`), and no other page can read or frame an answer.
        response.set_cookie(
            self.entrance.cookie, self.entrance.pass_of(), httponly=True, samesite="lax",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        return response
