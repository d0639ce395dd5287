"""What opens a clip and goes through its frames: FFmpeg inside OpenCV, or PyAV."""

import os
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

MAX_ANNOUNCED = 10_000_000  # frames; a header that announces more is not believed
MAX_HOURS = 4.0

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
        """Go on to the next frame; False at the end, or where nothing more can be decoded."""
        ...

    def retrieve(self) -> Picture | None:
        """Return the frame that was grabbed, uint8 RGB (height, width, 3), upright."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


# A function from a path to an open `Stream`; it raises UnreadableVideoError.
DECODERS: Registry[Callable[[Path], Stream]] = Registry("video decoder")


def check_length(info: ClipInfo) -> None:
    """Raise an UnreadableVideoError for a clip that announces an absurd length or size."""
    if info.announced > MAX_ANNOUNCED or info.duration > 3600 * MAX_HOURS:
        raise UnreadableVideoError(
            f"its header announces {info.announced} frames, {info.duration / 3600:.1f} hours; more "
            f"than {MAX_ANNOUNCED:,} frames or {MAX_HOURS:g} hours are refused: cut it up first"
        )
    check_size(info.height, info.width)


class OpenCvStream:
    """FFmpeg inside OpenCV, one thread: clips are decoded side by side."""

    def __init__(self, path: Path) -> None:
        # Other back ends take a name with % in it for a row of pictures.
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if not self._capture.isOpened():
            raise UnreadableVideoError("not a video, or its index is lost (cut off, damaged)")
        self.info = self._read_info()
        check_length(self.info)

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
            import av  # pyright: ignore[reportMissingImports]
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
        self._frames = self._file.decode(self._stream)
        self._frame: Any = None
        self.info = self._read_info()
        check_length(self.info)

    def _read_info(self) -> ClipInfo:
        stream, context = self._stream, self._stream.codec_context
        fps = float(stream.average_rate or 0)
        known = stream.duration and stream.time_base
        duration = float(stream.duration * stream.time_base) if known else 0.0
        announced = stream.frames or round(duration * fps)
        size = context.width, context.height
        return ClipInfo(fps, duration, context.codec_tag.strip("\0"), *size, 0, announced)

    def grab(self) -> bool:
        """See `Stream`."""
        try:
            self._frame = next(self._frames, None)
        except self._error:
            self._frame = None
        return self._frame is not None

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
