"""Requests that bring files: their bytes are counted and stored as they come, never gathered.

Starlette's own forms write what is larger than 1 MiB to a temporary file, without a limit, before
anybody is asked. Here the limit stands between the socket and the disk.
"""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import parse_qs

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from src.web.refusal import RequestRefusedError
from src.web.uploads import Upload, Uploads, too_large

IDLE = 30.0  # seconds without a byte, after which a client has gone
WHOLE = 900.0  # seconds in which an upload must be through
ENVELOPE = 2**16  # bytes of a form that are not its files
MOST_FIELDS = 4096  # bytes of a form without files
DRAINED = 2**25  # bytes of what is refused that are read and thrown away, so that it hears why
_FILES = (b"file", b"folder")  # fields of a form that hold files
# A browser writes these three in a form's file names as %XX (the HTML standard, 4.10.22.8).
_ESCAPES = {"%22": '"', "%0D": "\r", "%0A": "\n"}


async def received(request: Request, uploads: Uploads, most: int = 1) -> list[Upload]:
    """Return the files that a request brings, whole and on disk; the caller removes them.

    A form (multipart/form-data) has them in its fields `file`; else the body is the file, and
    `?name=` what it is called.

    Args:
        request: whose body nobody has read.
        uploads: where they go.
        most: files.

    Raises:
        RequestRefusedError: nothing came, too much, too slowly, or of no kind that is read.
        ClientDisconnect: the client went away. Either way nothing is left.
    """
    taken: list[Upload] = []
    body = _Incoming(request)
    try:
        _check_head(request, uploads, most)
        async with asyncio.timeout(WHOLE):
            kind, options = parse_options_header(request.headers.get("content-type"))
            if kind == b"multipart/form-data":
                await _read_form(body, options.get(b"boundary", b""), uploads, most, taken)
            else:
                await _read_body(body, request.query_params.get("name", ""), uploads, taken)
    except BaseException as error:
        for upload in taken:
            upload.remove()
        if isinstance(error, TimeoutError):
            raise RequestRefusedError(408, "too_slow") from None
        if isinstance(error, RequestRefusedError):
            await body.drain()
        raise
    return taken


def _check_head(request: Request, uploads: Uploads, most: int) -> None:
    """Refuse by what the headers say, before a byte of the body is asked for."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RequestRefusedError(415, "packed")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:18]) > most * uploads.most_bytes + ENVELOPE:
        raise too_large(uploads.most_bytes)


class _Incoming:
    """A request's body, chunk by chunk."""

    def __init__(self, request: Request) -> None:
        self.request, self.is_read = request, False

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield what comes.

        Raises:
            TimeoutError: nothing comes.
            ClientDisconnect: the client went away.
        """
        while not self.is_read:
            async with asyncio.timeout(IDLE):
                chunk = await self._next()
            yield chunk

    async def _next(self) -> bytes:
        message = await self.request.receive()
        # Known before the chunk is looked at: asked again, the server would wait for the client.
        self.is_read = not message.get("more_body", False)
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        return message.get("body", b"")

    async def drain(self) -> None:
        """Read on for a while: a client that is still sending would not hear the answer."""
        if self.is_read or "100-continue" in self.request.headers.get("expect", "").lower():
            return  # nothing comes any more, or it waits for leave to send
        drained = 0
        try:
            async with asyncio.timeout(IDLE / 3):
                while drained < DRAINED and not self.is_read:
                    drained += len(await self._next())
        except (TimeoutError, ClientDisconnect):
            return


async def fields_of(request: Request) -> dict[str, list[str]]:
    """Return the fields of a small form without files, as browsers write it.

    Raises:
        RequestRefusedError: 400 (no such form), 408 (not through in `IDLE` seconds) or 413.
        ClientDisconnect: the client went away.
    """
    body = b""
    try:
        async with asyncio.timeout(IDLE):
            async for chunk in _Incoming(request).chunks():
                body += chunk
                if len(body) > MOST_FIELDS:
                    raise RequestRefusedError(413, "bad_form")
        return parse_qs(body.decode("latin-1"), max_num_fields=8)
    except TimeoutError:
        raise RequestRefusedError(408, "too_slow") from None
    except ValueError:  # more fields than any form of ours has
        raise RequestRefusedError(400, "bad_form") from None


async def _read_body(body: _Incoming, name: str, uploads: Uploads, taken: list[Upload]) -> None:
    upload = uploads.begin(name)
    taken.append(upload)
    async for chunk in body.chunks():
        upload.write(chunk)
    upload.end()


async def _read_form(
    body: _Incoming, boundary: bytes, uploads: Uploads, most: int, taken: list[Upload]
) -> None:
    form = _Form(uploads, most, taken)
    try:
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
        async for chunk in body.chunks():
            parser.write(chunk)
            form.check()
        parser.finalize()
    except FormParserError:
        raise RequestRefusedError(400, "bad_form") from None
    if not form.ended:
        raise RequestRefusedError(400, "bad_form")
    if not taken:
        raise RequestRefusedError(400, "no_file")


class _Form:
    """Takes the files out of a form as it is read; other fields are read past."""

    def __init__(self, uploads: Uploads, most: int, taken: list[Upload]) -> None:
        self.uploads, self.most, self.taken = uploads, most, taken
        self.ended = False
        self._other = 0  # bytes of other fields
        self._upload: Upload | None = None
        self._field = self._value = b""
        self._disposition = b""

    def callbacks(self) -> dict[str, object]:
        """Return what the parser calls."""
        return {
            "on_part_begin": self._begin_part, "on_part_data": self._data,
            "on_part_end": self._end_part, "on_header_field": self._add_field,
            "on_header_value": self._add_value, "on_header_end": self._end_header,
            "on_headers_finished": self._begin_file, "on_end": self._end,
        }  # fmt: skip

    def check(self) -> None:
        """Refuse a form with more beside its files than forms have."""
        if self._other > ENVELOPE:
            raise RequestRefusedError(413, "form_too_large", most=ENVELOPE // 1000)

    def _begin_part(self) -> None:
        self._upload, self._disposition = None, b""
        self._field = self._value = b""

    def _add_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def _begin_file(self) -> None:
        _, options = parse_options_header(self._disposition.decode("latin-1"))
        name = options.get(b"filename")
        if options.get(b"name") not in _FILES or not name:  # a chooser left empty has no name
            return
        if len(self.taken) >= self.most:
            raise RequestRefusedError(400, "too_many", most=self.most)
        self._upload = self.uploads.begin(_name(name))
        self.taken.append(self._upload)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._upload is None:
            self._other += end - start
        else:
            self._upload.write(data[start:end])

    def _end_part(self) -> None:
        if self._upload is not None:
            self._upload.end()

    def _end(self) -> None:
        self.ended = True


def _name(sent: bytes) -> str:
    name = sent.decode("utf-8", "replace")
    for escape, letter in _ESCAPES.items():
        name = name.replace(escape, letter)
    return name
