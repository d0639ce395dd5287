"""What opens a clip and goes through its frames: PyAV, or the FFmpeg inside OpenCV.

One conversion to upright RGB, whoever decoded a frame and whatever its tags: the matrix and the
range are those that the clip names; what names none is BT.601, limited, at any size. Nothing else
is converted: what is HLG, PQ or of other primaries keeps its values.
"""

import os
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# FFmpeg writes to stderr by itself; what is wrong with a clip is said in our own words. It is
# looked at when the first clip is opened.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import av
import av.error
import av.logging
import cv2
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from src.data.pixels.decode import check_size
from src.data.pixels.formats import HEAD, names_files
from src.errors import UnreadableImageError
from src.registry import Registry

# OpenCV would warn about a file that it cannot open; the error that is raised says more.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
av.logging.set_level(None)

BAD_IN_A_ROW = 64  # failures after which a clip is over, where nothing tells that more must come
_NO_VIDEO = "not a video, or its index is lost (cut off, damaged)"
# A damaged file may seem to grow further streams, which PyAV does not know: an IndexError.
_DAMAGE = (av.error.FFmpegError, IndexError)

Picture = NDArray[np.uint8]

# By the numbers of ITU-T H.273, as FFmpeg's own, which name the matrix that converts.
_BT601, _BT2020 = 5, 9
_CONVERTED = (0, 1, 2, 4, 5, 6, 7, 9)  # RGB, BT.709, none named, FCC, BT.601 twice, 240M, BT.2020
_BT601_ALIKE = (0, 2, 5, 6)
_FULL = 2  # range
_NEAREST = {10: _BT2020}  # BT.2020 with constant luminance, as FFmpeg 5 reads it
_MATRICES = {3: "a reserved matrix", 8: "YCgCo", 10: "BT.2020 with constant luminance",
             11: "ST 2085", 12: "a matrix derived from primaries",
             13: "a matrix derived from primaries", 14: "ICtCp"}  # fmt: skip
_TRANSFERS = {9: "logarithmic", 10: "logarithmic", 16: "PQ", 18: "HLG"}
_PLAIN_TRANSFERS = (1, 2, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 17)
# Pixel formats that both enlarge and round alike.
_ALIKE = ("yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuvj422p", "yuvj444p", "gray")
_NEAR_PRIMARIES = (1, 2, 4, 5, 6, 7)  # not: film, BT.2020, P3
_SQUARE = "<9i"  # a display matrix: 9 numbers, row by row


def to_rgb(frame: VideoFrame) -> Picture:
    """Convert a frame by the matrix and the range that it names; it is not turned.

    Raises:
        av.FFmpegError: FFmpeg cannot convert its pixel format.
    """
    space = int(frame.colorspace)
    matrix = None if space in _CONVERTED else _NEAREST.get(space, _BT601)
    return np.asarray(frame.to_ndarray(format="rgb24", src_colorspace=matrix, threads=1), np.uint8)


def describe_colours(context: VideoCodecContext) -> str:
    """Say which of a clip's colours are not converted; "" if there is nothing to say."""
    said = []
    space, transfer = int(context.colorspace), int(context.color_trc)
    if space not in _CONVERTED:
        read_as = "BT.2020" if space in _NEAREST else "BT.601"
        said.append(f"{_MATRICES.get(space, f'matrix {space}')}, read as {read_as}")
    if transfer in _TRANSFERS:
        said.append(f"{_TRANSFERS[transfer]}, not converted to standard range")
    return f"its colours are {'; '.join(said)}" if said else ""


def is_plain(frame: VideoFrame) -> bool:
    """Tell whether every version of OpenCV converts a frame as `to_rgb` does.

    4.12 takes each matrix for BT.601. 4.13 and later hand out stale memory for what is interlaced
    or of a matrix or transfer that they do not know, and convert PQ, HLG and wide primaries. Chroma
    of 4:1:0 and more than 8 bits come out otherwise than from PyAV.
    """
    full = int(frame.color_range) == _FULL and not frame.format.name.startswith("yuvj")
    return (
        frame.format.name in _ALIKE
        and not (frame.interlaced_frame or full)
        and int(frame.colorspace) in _BT601_ALIKE
        and int(frame.color_trc) in _PLAIN_TRANSFERS
        and int(frame.color_primaries) in _NEAR_PRIMARIES
    )


def display_matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    """Return a, b, c, d of a frame's display matrix as -1, 0 or 1: (x, y) -> (ax + cy, bx + dy)."""
    found = frame.side_data.get("DISPLAYMATRIX")
    if found is None or len(found := bytes(found)) < struct.calcsize(_SQUARE):
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = struct.unpack_from(_SQUARE, found)
    size = max(map(abs, (a, b, c, d))) or 1
    return round(a / size), round(b / size), round(c / size), round(d / size)


def upright(picture: Picture, matrix: tuple[int, int, int, int]) -> Picture:
    """Turn and mirror a picture (height, width, 3) as its display matrix says."""
    a, b, c, d = matrix
    if abs(b) + abs(c) > abs(a) + abs(d):
        picture, down, along = picture.transpose(1, 0, 2), b, c
    else:
        down, along = d, a
    return np.ascontiguousarray(picture[:: -1 if down < 0 else 1, :: -1 if along < 0 else 1])


class UnreadableVideoError(UnreadableImageError):
    """A file is not a clip of which at least one frame can be decoded."""


class Stream(Protocol):
    """A clip that is read from its start to its end."""

    damaged: int  # how many of the frames so far the decoder knows to be damaged

    def grabs(self) -> Iterator[bool]:
        """Go from frame to frame; False for a packet that cannot be decoded, or for the end."""
        ...

    def seconds(self) -> float:
        """Return when the frame that was grabbed is shown, counted from the stream's start."""
        ...

    def retrieve(self) -> Picture | None:
        """Return the frame that was grabbed, uint8 RGB (height, width, 3), upright."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


# A function from a path, and the number of frames to expect, to an open `Stream`; it raises
# UnreadableVideoError.
DECODERS: Registry[Callable[[Path, int], Stream]] = Registry("video decoder")


def open_video(path: Path) -> tuple[InputContainer, VideoStream]:
    """Open a clip and choose its stream of pictures.

    Raises:
        UnreadableVideoError: no clip, a text (which may name other files, even itself), no such
            stream, or one that announces an absurd size.
    """
    try:
        with path.open("rb") as start:
            head = start.read(HEAD)
    except OSError:
        raise UnreadableVideoError(_NO_VIDEO) from None
    if names_files(head):
        raise UnreadableVideoError("not a video: it is a text that may name other files")
    try:
        # A name with a colon in it is no address, and a list of files fetches nothing.
        file = av.open(f"file:{path}", options={"protocol_whitelist": "file"})
    except (*_DAMAGE, ValueError):
        raise UnreadableVideoError(_NO_VIDEO) from None
    return file, pictures_of(file)


def pictures_of(file: InputContainer) -> VideoStream:
    """Choose the stream of pictures of what is open; it is closed where there is none.

    Raises:
        UnreadableVideoError: no such stream, or one that announces an absurd size.
    """
    stream = file.streams.best("video")
    if not isinstance(stream, VideoStream) or not stream.codec_context:  # no decoder for it
        file.close()
        raise UnreadableVideoError(_NO_VIDEO if stream else "it has no video stream")
    stream.thread_type = "NONE"  # clips are decoded side by side
    check_size(stream.codec_context.height, stream.codec_context.width)
    return stream


def packets_of(file: InputContainer, *streams: VideoStream) -> Iterator[Packet | None]:
    """Yield the packets of some streams, or of all; None where the file cannot be understood."""
    bad = 0
    while bad < BAD_IN_A_ROW:
        try:
            for packet in file.demux(*streams):
                bad = 0
                yield packet
        except _DAMAGE:  # such a generator is over; a new one goes on where the file was left
            bad += 1
            yield None
        else:
            return


def decoded(packets: Iterable[Packet | None]) -> Iterator[VideoFrame | None]:
    """Yield each frame as it was stored; None for a packet that cannot be decoded."""
    for packet in packets:
        if packet is not None and not packet.size and packet.dts is not None:
            continue  # FFmpeg would take it for the end
        try:
            yield from [None] if packet is None else packet.decode()
        except av.error.EOFError:
            return
        except _DAMAGE:
            yield None


def picture_of(frame: VideoFrame) -> Picture | None:
    """Return a frame as uint8 RGB (height, width, 3), upright; None if it cannot be converted."""
    try:
        return upright(to_rgb(frame), display_matrix(frame))
    except av.error.FFmpegError:
        return None


class PyAvStream:
    """PyAV, one thread: which frames are known to be damaged depends on their number."""

    def __init__(self, path: Path, expected: int = 0) -> None:
        del expected  # PyAV tells the end from a packet that cannot be decoded
        self.damaged = 0
        self._file, self._stream = open_video(path)
        self._frame: VideoFrame | None = None
        self._start, self._unit = self._stream.start_time or 0, float(self._stream.time_base or 0)

    def frames(self) -> Iterator[VideoFrame | None]:
        """Yield each frame as it was stored; None for a packet that cannot be decoded."""
        return decoded(packets_of(self._file, self._stream))

    def hurry(self) -> None:
        """Leave out what the pixels need and the fields of the frames do not."""
        self._stream.codec_context.options = {"skip_loop_filter": "all", "skip_idct": "all"}

    def grabs(self) -> Iterator[bool]:
        """See `Stream`."""
        for frame in self.frames():
            self._frame = frame
            self.damaged += frame is not None and frame.is_corrupt
            yield frame is not None

    def seconds(self) -> float:
        """See `Stream`."""
        shown = None if self._frame is None else self._frame.pts
        return 0.0 if shown is None else (shown - self._start) * self._unit

    def retrieve(self) -> Picture | None:
        """See `Stream`."""
        return None if self._frame is None else picture_of(self._frame)

    def close(self) -> None:
        """See `Stream`."""
        self._file.close()


DECODERS.register("pyav")(PyAvStream)


class OpenCvStream:
    """FFmpeg inside OpenCV, one thread; of frames that `is_plain` lets pass."""

    def __init__(
        self, path: Path, expected: int, matrix: tuple[int, int, int, int], damaged: int
    ) -> None:
        self.damaged, self._expected, self._matrix = damaged, expected, matrix
        # Other back ends take a name with % in it for a row of pictures.
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if not self._capture.isOpened():
            raise UnreadableVideoError(_NO_VIDEO)
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)  # it takes mirrors for turns

    def grabs(self) -> Iterator[bool]:
        """See `Stream`."""
        bad = tried = 0
        while bad < BAD_IN_A_ROW or tried < self._expected:
            fine = self._capture.grab()
            tried, bad = tried + 1, 0 if fine else bad + 1
            yield fine

    def seconds(self) -> float:
        """See `Stream`."""
        return self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000

    def retrieve(self) -> Picture | None:
        """See `Stream`."""
        fine, frame = self._capture.retrieve()
        if not fine:
            return None
        return upright(np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8), self._matrix)

    def close(self) -> None:
        """See `Stream`."""
        self._capture.release()


@DECODERS.register("opencv")
def open_opencv(path: Path, expected: int = 0) -> Stream:
    """Open a clip with OpenCV, or with PyAV where OpenCV would give wrong pixels.

    Every frame is looked at with PyAV beforehand, without computing its pixels in full.
    """
    matrix, damaged = None, 0
    with closing(PyAvStream(path)) as stream:
        stream.hurry()
        for frame in filter(None, stream.frames()):
            if not is_plain(frame):
                return PyAvStream(path)
            matrix, damaged = matrix or display_matrix(frame), damaged + frame.is_corrupt
    return OpenCvStream(path, expected, matrix or (1, 0, 0, 1), damaged)
