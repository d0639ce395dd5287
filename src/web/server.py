"""The server's life: its port, its private folder, its workers, and how it ends."""

import asyncio
import errno
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from src.errors import UserError
from src.web.desk import GRACE

BACKLOG = 128  # connections that wait to be taken
MOST_CONNECTIONS = 256  # at a time; more are refused with 503


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 is any that is free.

    Raises:
        UserError: the port is in use or not allowed, or the host is no address of this machine.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError, OverflowError) as error:
        raise UserError(f"--host {host}: no address of this machine ({error})") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listening.close()
        raise _trouble(host, port, error) from None
    return listening


def _trouble(host: str, port: int, error: Exception) -> UserError:
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return UserError(
            f"port {port} of {host} is in use by another program: take another one (--port "
            f"{port + 1 if port < 65535 else 8000}), or any that is free (--port 0)"
        )
    if number in (errno.EACCES, errno.EPERM):
        return UserError(f"port {port} is not allowed here: take one above 1023 (--port 8000)")
    if number == errno.EADDRNOTAVAIL:
        return UserError(f"--host {host}: no address of this machine; 127.0.0.1 is for it alone, "
                         "0.0.0.0 for all that reach it")  # fmt: skip
    return UserError(f"cannot listen at port {port} of {host}: {error}")


class _Server(uvicorn.Server):
    """Tells of the first signal at once: what is under way would keep its connections open."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._on_stop)
        super().handle_exit(sig, frame)


def run(app: FastAPI, listening: socket.socket, on_stop: Callable[[], None]) -> None:
    """Serve until a signal comes, which is raised again when all is closed.

    Args:
        app: what answers.
        listening: where.
        on_stop: called in the event loop when the signal comes.
    """
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, log_config=None, server_header=False,
        ws="none", lifespan="on", limit_concurrency=MOST_CONNECTIONS, timeout_keep_alive=30,
        timeout_graceful_shutdown=round(GRACE) + 5,
    )  # fmt: skip
    _Server(config, on_stop).run(sockets=[listening])
