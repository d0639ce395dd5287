"""What every request passes: whom it may come from; and what every answer says to browsers.

A page of another site can make a visitor's browser send requests here, and with a name that it
points at 127.0.0.1 (DNS rebinding) even read the answers. Hence: a `Host` that is not ours is not
answered, nothing is changed for another `Origin`, and off this machine a token is asked for.
"""

import hmac
import ipaddress
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from src.pages.environment import style_hash
from src.web.refusal import RequestRefusedError, fault

LOG = logging.getLogger("rvf")
LEAST_TOKEN = 16  # letters; what is guessed in a year is no token
LOCAL = ("localhost", "127.0.0.1", "::1")
OPEN = ("/healthz", "/enter", "/static/")  # what needs no token
SAFE = ("GET", "HEAD", "OPTIONS")


def policy() -> str:
    """Return the content-security-policy of every page."""
    return "; ".join((
        "default-src 'none'", "script-src 'self'", f"style-src '{style_hash()}'",
        "img-src 'self' data:", "connect-src 'self'", "form-action 'self'",
        "frame-ancestors 'none'", "base-uri 'none'",
    ))  # fmt: skip


HEADERS = {
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: with that a browser sends `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Entrance:
    """Under which names the server answers, and whether it wants a token."""

    names: tuple[str, ...] = ()  # of hosts, beside this machine's and any address in digits
    token: str | None = None  # None: whoever reaches it may use it
    port: int = 0  # in the cookie's name, for cookies are shared by all ports of a host

    @property
    def cookie(self) -> str:
        """The name of the cookie that people get for the token."""
        return f"rvf-{self.port}"

    def pass_of(self) -> str:
        """Return the cookie's value, from which the token cannot be told."""
        assert self.token is not None
        return hmac.new(self.token.encode(), b"cookie", "sha256").hexdigest()

    def is_token(self, given: str) -> bool:
        """Tell whether this is the token, in a time that says nothing of it."""
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())

    def lets_in(self, connection: HTTPConnection) -> bool:
        """Tell whether a request brings the token, in its header or its cookie."""
        if self.token is None:
            return True
        kind, _, given = connection.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self.is_token(given.strip()):
            return True
        held = connection.cookies.get(self.cookie, "")
        return hmac.compare_digest(held.encode(), self.pass_of().encode())

    def knows(self, host: str) -> bool:
        """Tell whether a `Host` header names this server; an address in digits is no name.

        Rebinding needs a name that somebody else resolves, so addresses are safe.
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in LOCAL or name in self.names or bool(ipaddress.ip_address(name))
        except ValueError:
            return False


def is_local(host: str) -> bool:
    """Tell whether only this machine reaches an address that is listened at."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def make_token() -> str:
    """Return a new token."""
    return secrets.token_urlsafe(24)


class Guard:
    """Middleware that stands before all routes.

    Args:
        app: what is guarded.
        entrance: whom it lets in.
        refuse: (connection, error) -> the answer to a request that is refused.
    """

    def __init__(self, app: ASGIApp, entrance: Entrance, refuse: Any) -> None:  # noqa: ANN401
        self.app, self.entrance, self.refuse = app, entrance, refuse
        self.headers = HEADERS | {"Content-Security-Policy": policy()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, with the headers, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        started = False

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers.setdefault(name, value)
            await send(message)

        connection = HTTPConnection(scope)
        try:
            self.check(connection)
            await self.app(scope, receive, guarded)
        except RequestRefusedError as error:
            if started:
                raise
            await self.refuse(connection, error)(scope, receive, guarded)
        except Exception as error:  # whatever it is, the answer has the headers
            LOG.exception("an error that should not be")
            if started:
                raise
            await self.refuse(connection, fault(error))(scope, receive, guarded)

    def check(self, connection: HTTPConnection) -> None:
        """Raise RequestRefusedError for a request that may not come in."""
        headers, scope = connection.headers, connection.scope
        host = headers.get("host", "")
        if not self.entrance.knows(host):
            raise RequestRefusedError(403, "unknown_host", host=host[:100])
        if scope["method"] not in SAFE and not _same_origin(headers, host):
            raise RequestRefusedError(403, "other_origin")
        brings = scope["path"] == "/" and "token" in connection.query_params  # the route looks
        open_ = scope["path"].startswith(OPEN) or brings
        if not open_ and not self.entrance.lets_in(connection):
            raise RequestRefusedError(401, "token_wanted")


def _same_origin(headers: Headers, host: str) -> bool:
    """Tell whether a request that changes something comes from our page, or from no page at all."""
    site = headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    if origin is None:
        return True  # no browser leaves it out
    # Behind a proxy that speaks TLS the schemes differ, so hosts and ports are compared.
    return origin.lower().partition("://")[2] == host.lower()


def names_of(given: Sequence[str], machine: str) -> tuple[str, ...]:
    """Return the names under which a server is reached: those given, and the machine's own."""
    return tuple(dict.fromkeys(name.lower() for name in (*given, machine) if name))
