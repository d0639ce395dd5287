"""What opens a clip and goes through its frames: FFmpeg inside OpenCV, or PyAV."""

import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

# FFmpeg writes to stderr by itself; what is wrong with a clip is said in our own words. It is
# looked at when the first clip is opened.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2

from src.data.decode import UnreadableImageError, check_size
from src.errors import UserError
from src.registry import Registry

# OpenCV would warn about a file that it cannot open; the error that is raised says more.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)

Picture = NDArray[np.uint8]


class UnreadableVideoError(UnreadableImageError):
    """A file is not a clip of which at least one frame can be decoded."""


class ClipInfo(NamedTuple):
    """What a clip's header announces; 0 or "" where it says nothing.

    Attributes:
        fps: frames a second, the mean where the rate varies.
        duration: seconds.
        codec: four characters, such as `avc1`.
        width, height: pixels, as the frames will be: after the rotation.
        rotation: degrees by which the stored frames are turned.
        announced: number of frames.
    """

    fps: float
    duration: float
    codec: str
    width: int
    height: int
    rotation: int
    announced: int


class Stream(Protocol):
    """A clip that is read from its start to its end."""

    info: ClipInfo

    def grab(self) -> bool:
        """Go on to the next frame; False at the end, and at a packet that cannot be decoded.

        After a False more may follow: a further call tries the next packet.
        """
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


# A function from a path to an open `Stream`; it raises UnreadableVideoError.
DECODERS: Registry[Callable[[Path], Stream]] = Registry("video decoder")


class OpenCvStream:
    """FFmpeg inside OpenCV, one thread: clips are decoded side by side."""

    def __init__(self, path: Path) -> None:
        # Other back ends take a name with % in it for a row of pictures.
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if not self._capture.isOpened():
            raise UnreadableVideoError("not a video, or its index is lost (cut off, damaged)")
        self.info = self._read_info()
        check_size(self.info.height, self.info.width)

    def _read_info(self) -> ClipInfo:
        get = self._capture.get
        count, fps = get(cv2.CAP_PROP_FRAME_COUNT), get(cv2.CAP_PROP_FPS)
        announced = int(count) if np.isfinite(count) and count > 0 else 0
        fps = float(fps) if np.isfinite(fps) and fps > 0 else 0.0
        code = int(get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
        letters = code.to_bytes(4, "little").decode("latin-1")
        codec = "".join(letter for letter in letters if letter.isprintable()).strip()
        wide, high = int(get(cv2.CAP_PROP_FRAME_WIDTH)), int(get(cv2.CAP_PROP_FRAME_HEIGHT))
        rotation = int(get(cv2.CAP_PROP_ORIENTATION_META)) % 360
        duration = announced / fps if fps else 0.0
        return ClipInfo(fps, duration, codec, wide, high, rotation, announced)

    def grab(self) -> bool:
        """See `Stream`."""
        return self._capture.grab()

    def seconds(self) -> float:
        """See `Stream`."""
        return self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000

    def retrieve(self) -> Picture | None:
        """See `Stream`; OpenCV turns the frame itself."""
        fine, frame = self._capture.retrieve()
        return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8) if fine else None

    def close(self) -> None:
        """See `Stream`."""
        self._capture.release()


DECODERS.register("opencv")(OpenCvStream)


class PyAvStream:
    """PyAV, which is not among the dependencies: it is used where it is installed and asked for."""

    def __init__(self, path: Path) -> None:
        try:
            import av
            import av.error
        except ImportError as error:
            raise UserError(
                f"frames.decoder: pyav wants the package av, which cannot be imported ({error}): "
                "pip install av, or take frames.decoder: opencv"
            ) from None
        self._error: type[Exception] = av.error.FFmpegError
        try:
            self._file = av.open(str(path))
        except self._error as error:
            raise UnreadableVideoError(f"not a video ({error})") from None
        if not self._file.streams.video:
            self._file.close()
            raise UnreadableVideoError("it has no video stream")
        self._stream = self._file.streams.video[0]
        self._stream.thread_type = "NONE"
        self._end: type[Exception] = av.error.EOFError
        self._packets = self._file.demux(self._stream)
        self._waiting: deque[Any] = deque()
        self._frame: Any = None
        self.info = self._read_info()
        check_size(self.info.height, self.info.width)

    def _read_info(self) -> ClipInfo:
        stream, context = self._stream, self._stream.codec_context
        fps = float(stream.average_rate or 0)
        own = float((stream.duration or 0) * (stream.time_base or 0))
        duration = own or (self._file.duration or 0) / 1e6  # all that Matroska and FLV tell
        announced = stream.frames or round(duration * fps)
        size = context.width, context.height
        return ClipInfo(fps, duration, context.codec_tag.strip("\0"), *size, 0, announced)

    def grab(self) -> bool:
        """See `Stream`."""
        try:
            while not self._waiting:
                packet = next(self._packets, None)
                if packet is None:
                    return False
                self._waiting.extend(packet.decode())
        except self._end:
            return False
        except (self._error, IndexError):  # a damaged file may seem to grow further streams
            # A generator that has raised is over; a new one goes on where the file was left.
            self._packets = self._file.demux(self._stream)
            return False
        self._frame = self._waiting.popleft()
        return True

    def seconds(self) -> float:
        """See `Stream`."""
        start = self._stream.start_time or 0
        shown = self._frame.pts
        return 0.0 if shown is None else float((shown - start) * self._stream.time_base)

    def retrieve(self) -> Picture | None:
        """See `Stream`."""
        try:
            picture = self._frame.to_ndarray(format="rgb24")
        except self._error:
            return None
        return np.ascontiguousarray(np.rot90(picture, round(self._frame.rotation / 90)))

    def close(self) -> None:
        """See `Stream`."""
        self._file.close()


DECODERS.register("pyav")(PyAvStream)
