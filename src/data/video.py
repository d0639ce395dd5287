"""Clips to frames: evenly spaced over the whole clip, read from its start to its end, never sought.

A seek lands where the container's index says, and on a damaged file OpenCV hands out stale frames
as good ones. A pass from the start gives frame i as frame i, or none.
"""

import os
from collections.abc import Callable, Sequence
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
MAX_DECODED = 500_000  # frames looked at, whatever a header says: 4.6 hours at 30 a second
MISSING_SHARE = 0.02  # of the announced frames; containers count, and round, so many wrongly
MISSING_FRAMES = 2

# OpenCV would warn about a file that it cannot open; the error that is raised says more.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)

Picture = NDArray[np.uint8]
Pick = Callable[[int], Sequence[int]]


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


class Clip(NamedTuple):
    """Frames of a clip.

    Attributes:
        frames: uint8 RGB (height, width, 3), or whatever `convert` made of them; in order.
        indices: int64, which frames of the clip these are.
        announced: number of frames in the header; 0 where it says nothing.
        decoded: number of frames that can be decoded.
        problem: "" or in words what is wrong with a clip that was read only in part.
    """

    frames: list[Any]
    indices: NDArray[np.int64]
    announced: int
    decoded: int
    problem: str


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


def spaced(total: int, count: int) -> NDArray[np.int64]:
    """Return the centres of `count` equal parts of 0..total-1; each once where there are fewer.

    Returns:
        int64 (min(total, count),), ascending, without repeats.
    """
    count = min(total, count)
    return np.array([(2 * k + 1) * total // (2 * count) for k in range(count)], np.int64)


def probe(path: Path, decoder: str = "opencv") -> ClipInfo:
    """Return what a clip's header announces.

    Raises:
        UnreadableVideoError: no clip, or one that announces an absurd length.
    """
    stream = DECODERS.get(decoder)(path)
    stream.close()
    return stream.info


def read_frames(
    path: Path,
    count: int,
    *,
    pick: Pick | None = None,
    convert: Callable[[Picture, int], Any] | None = None,
    decoder: str = "opencv",
) -> Clip:
    """Return frames evenly spaced over a whole clip: the centres of `count` equal parts.

    A clip of fewer frames gives each of them once. Where fewer can be decoded than the header
    announces (a file that was cut off, a header that lies), they are spaced over those that can.

    Args:
        path: the file.
        count: of frames.
        pick: how many frames there will be -> which of them are wanted; None wants all.
        convert: applied to each wanted frame and its number at once, so that full frames need
            not be kept.
        decoder: name in `DECODERS`.

    Raises:
        UnreadableVideoError: not a clip, no video stream, an absurd length, or not one frame that
            can be decoded.
    """
    announced = probe(path, decoder).announced
    places = _wanted(announced, count, pick)
    frames, decoded = _one_pass(path, places, convert, decoder)
    right = _wanted(decoded, count, pick)
    if not np.array_equal(places, right):
        places = right
        frames, _ = _one_pass(path, places, convert, decoder)
    found = [place for place in places.tolist() if place in frames]
    if not found:
        what = f"0 of {announced} announced frames" if announced else "not one frame"
        raise UnreadableVideoError(f"{what} can be decoded (no video stream, or damaged)")
    problem = _problem(announced, decoded, len(places) - len(found))
    kept = [frames[place] for place in found]
    return Clip(kept, np.array(found, np.int64), announced, decoded, problem)


def _wanted(total: int, count: int, pick: Pick | None) -> NDArray[np.int64]:
    places = spaced(total, count)
    return places if pick is None or not len(places) else places[list(pick(len(places)))]


def _one_pass(
    path: Path,
    places: NDArray[np.int64],
    convert: Callable[[Picture, int], Any] | None,
    decoder: str,
) -> tuple[dict[int, Any], int]:
    """Return the frames at these places, as far as they can be decoded, and how many there are."""
    wanted, found, number = set(places.tolist()), {}, 0
    stream = DECODERS.get(decoder)(path)
    try:
        while number < MAX_DECODED and stream.grab():
            if number in wanted:
                frame = stream.retrieve()
                if frame is not None:
                    found[number] = frame if convert is None else convert(frame, number)
            number += 1
    finally:
        stream.close()
    return found, number


def _problem(announced: int, decoded: int, lost: int) -> str:
    if decoded >= MAX_DECODED:
        return f"only its first {decoded} frames were looked at"
    if announced - decoded > max(MISSING_FRAMES, MISSING_SHARE * announced):
        return f"decoded {decoded} of {announced} frames"
    return f"{lost} of the wanted frames cannot be decoded" if lost else ""


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
