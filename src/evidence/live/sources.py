"""Where live pictures come from: a camera, a stream of the network, a file.

Nothing is opened but what was named: of a file the file itself, of an address that address by its
own protocol (`address`); no list of other files is followed. What opens an address, a user's name
and password, is never said.
"""

import errno
import gc
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import av
import av.error
import cv2
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from src.data.items.files import kind_of
from src.data.pixels.decode import check_size
from src.data.pixels.formats import HEAD, file_format
from src.data.pixels.video_decoders import (
    Picture,
    decoded,
    open_video,
    packets_of,
    picture_of,
    pictures_of,
)
from src.errors import UnreadableImageError, UserError
from src.evidence.live.address import (
    PROTOCOLS,
    check_answer,
    is_secured,
    masked,
    options_of,
    protocol_of,
)

OPENING = 10.0  # seconds in which an address must answer
ASKING = 5.0  # ... what is asked of it beside
_CAMERA = re.compile(r"(?:/dev/video)?(\d{1,3})")
_FAILED = 5  # reads in a row, after which a camera is gone


class LostError(Exception):
    """A source that was there gives no more pictures for now; the text says why."""


class Caught(NamedTuple):
    """A frame as it comes: nothing is converted before somebody wants to look."""

    draw: Callable[[], Picture | None]  # uint8 RGB, upright; None where it cannot be converted
    second: float | None  # of the source, from its start; None where it does not say
    size: tuple[int, int]  # height and width as stored
    damaged: bool = False  # the decoder knows it to be


class LiveSource(Protocol):
    """Gives frames one by one."""

    name: str  # for people: without user and password
    is_live: bool  # its frames come when they come; else as fast as they are read
    comes_back: bool  # whether it is worth waiting for when it ends

    def open(self) -> None:
        """Open it, again where it was open before.

        Raises:
            UserError: it cannot be opened; says what to do.
        """
        ...

    def frames(self) -> Iterator[Caught | None]:
        """Yield frames; None for a packet that cannot be decoded. It ends where the source does.

        Raises:
            LostError: it was there and is not any more.
        """
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def source_of(text: str, stall: float, *, insecure: bool = False) -> LiveSource:
    """Return the source that is meant: a camera's number, an address or a file; it is not open yet.

    Args:
        text: as typed.
        stall: seconds without a frame after which an address is lost.
        insecure: whose certificate it shows is not looked at.

    Raises:
        UserError: an address of no known kind; no such file, or one that is no clip by what it is.
    """
    camera, protocol = _CAMERA.fullmatch(text), protocol_of(text)
    is_address = bool(protocol) and not Path(text).is_file()
    if insecure and not (is_address and is_secured(protocol)):
        raise UserError(
            "--insecure is for https:// and rtsps://, no other source has a certificate"
        )
    if camera is not None and not Path(text).is_file():
        return Camera(int(camera[1]))
    if not is_address:
        return ClipFile(Path(text))
    if protocol not in PROTOCOLS:
        raise UserError(
            f"{masked(text)}: no kind of address that is watched; known: "
            f"{', '.join(f'{name}://' for name in PROTOCOLS)}, the number of a camera, a file"
        )
    return Address(text, stall, insecure=insecure)


class _ByFFmpeg:
    """What PyAV opens."""

    def __init__(self) -> None:
        self._file: InputContainer | None = None
        self._stream: VideoStream | None = None

    def close(self) -> None:
        """See `LiveSource`."""
        if self._file is not None:
            with suppress(av.error.FFmpegError):
                self._file.close()
            self._file = self._stream = None
            # Over many films memory stays bounded by this alone: benchmarks/README.md.
            gc.collect()


class ClipFile(_ByFFmpeg):
    """A file, frame by frame."""

    is_live = comes_back = False

    def __init__(self, path: Path) -> None:
        self.name, self.path = str(path), path
        super().__init__()

    def open(self) -> None:
        """See `LiveSource`."""
        path, name = self.path, self.name
        if path.is_dir():
            raise UserError(f"{name}: a folder; name one clip (python -m src look takes folders)")
        if not path.exists():
            raise UserError(
                f"{name}: no such file, and no camera's number (0, 1 ...) or address "
                f"({', '.join(f'{one}://' for one in PROTOCOLS)})"
            )
        if not path.is_file():
            raise UserError(f"{name}: no file that can be read from start to end")
        with path.open("rb") as file:
            head = file.read(HEAD)
        if file_format(head) != "unknown" or kind_of(path.name) == "image":
            raise UserError(f"{name}: a picture, not a clip: python -m src look judges pictures")
        if not head:
            raise UserError(f"{name}: it is empty (0 bytes), not a video")
        try:
            self._file, self._stream = open_video(path)
        except UnreadableImageError as error:
            raise UserError(f"{name}: {error}") from None

    def frames(self) -> Iterator[Caught | None]:
        """See `LiveSource`."""
        assert self._file is not None
        assert self._stream is not None
        yield from _caught(decoded(packets_of(self._file, self._stream)), self._stream)


class Address(_ByFFmpeg):
    """A stream of the network, by FFmpeg."""

    is_live = True

    def __init__(self, text: str, stall: float, *, insecure: bool = False) -> None:
        self.name, self._text, self._stall = masked(text), text, stall
        self.comes_back = True
        super().__init__()
        protocol = protocol_of(text)
        self._by_rtsp = protocol.startswith("rtsp")
        self._options = options_of(protocol, insecure=insecure)
        self._check = partial(check_answer, text, insecure=insecure, patience=ASKING)

    def open(self) -> None:
        """See `LiveSource`."""
        self.close()
        if self._by_rtsp:
            self._check()
        try:
            self._file = av.open(self._text, options=self._options, timeout=(OPENING, self._stall))
            self._stream = pictures_of(self._file)
        except (av.error.FFmpegError, IndexError, ValueError) as error:
            if not self._by_rtsp:
                self._check()  # it may know why
            raise UserError(
                f"{self.name}: cannot be watched ({_why(error)}); is it on, is the address right, "
                "are user and password? Lists of streams (.m3u8, .mpd) are not followed: name one "
                "stream of theirs"
            ) from None
        # A file that a server holds has an end, and is not waited for behind it.
        self.comes_back = not self._file.duration

    def frames(self) -> Iterator[Caught | None]:
        """See `LiveSource`."""
        assert self._file is not None
        assert self._stream is not None
        try:
            yield from _caught(decoded(self._file.demux(self._stream)), self._stream)
        except (av.error.FFmpegError, IndexError) as error:
            raise LostError(_why(error)) from None
        if self.comes_back:
            raise LostError("it ended")


class Camera:
    """A camera of this machine, by OpenCV."""

    is_live = comes_back = True

    def __init__(self, number: int, opened: Callable[[int], Any] = cv2.VideoCapture) -> None:
        self.name, self._number, self._opened = f"camera {number}", number, opened
        self._capture: Any = None

    def open(self) -> None:
        """See `LiveSource`."""
        self.close()
        self._capture = self._opened(self._number)
        if not self._capture.isOpened():
            self.close()
            raise UserError(
                f"{self.name}: there is none, another program has it, or it may not be used (on "
                "Linux: /dev/video*, group `video`)"
            )
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest one, where it can be had

    def frames(self) -> Iterator[Caught | None]:
        """See `LiveSource`."""
        failed = 0
        while failed < _FAILED:
            fine, picture = self._capture.read()
            if not fine or picture is None:
                failed += 1
                time.sleep(0.01)
                continue
            failed = 0

            def draw(picture: Picture = picture) -> Picture:
                return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)

            yield Caught(draw, None, picture.shape[:2])
        raise LostError("it gives no pictures; is it plugged in?")

    def close(self) -> None:
        """See `LiveSource`."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None


def _caught(frames: Iterator[VideoFrame | None], stream: VideoStream) -> Iterator[Caught | None]:
    start, unit = stream.start_time or 0, float(stream.time_base or 0)
    rate = float(stream.average_rate or 0)
    for number, frame in enumerate(frames):
        if frame is None:
            yield None
            continue
        try:
            check_size(frame.height, frame.width)
        except UnreadableImageError:
            yield None
            continue
        second = number / rate if rate else None
        if frame.pts is not None and unit:
            second = (frame.pts - start) * unit
        yield Caught(partial(picture_of, frame), second, (frame.height, frame.width),
                     frame.is_corrupt)  # fmt: skip


def _why(error: Exception) -> str:
    """Return what FFmpeg says without what it says it of: the address with its password."""
    is_ours = isinstance(error, av.error.FFmpegError)
    if isinstance(error, av.error.ExitError) or (is_ours and error.errno == errno.EIO):
        return "no answer in time, or the connection broke"
    if is_ours:
        return str(error.strerror or "unknown error")
    return str(error) if isinstance(error, UnreadableImageError) else "it is damaged"
