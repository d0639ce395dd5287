"""Tiny clips for tests: every frame is one grey, which tells its number."""

import struct
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from src.data.pixels.video import Clip

STEP = 10  # grey levels between two frames


def write_clip(
    path: Path, count: int, *, size: tuple[int, int] = (32, 32), fps: float = 25, low: int = 5,
    step: int = STEP, codec: str = "mp4v",
) -> Path:  # fmt: skip
    """Write a clip whose frame i has the grey level `low + i * step`; size is (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    letters = [ord(letter) for letter in codec]
    fourcc = sum(letter << 8 * place for place, letter in enumerate(letters))
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, fourcc, fps, size[::-1])
    assert writer.isOpened()
    for number in range(count):
        writer.write(np.full((*size, 3), low + number * step, np.uint8))
    writer.release()
    return path


def encode(
    path: Path, planes: list[NDArray[np.uint8]], params: str = "", *, codec: str = "libx264",
    sound: float = 0, **options: str,
) -> Path:  # fmt: skip
    """Encode pictures (3 / 2 height, width) of 4:2:0, without loss where it is H.264.

    Args:
        path: its suffix is the container.
        planes: luma, below it the two planes of chroma.
        params: of x264, such as `tff=1:colormatrix=bt709`.
        codec: of the pictures.
        sound: seconds of silence beside them.
        options: of the container.
    """
    of_x264 = {"x264-params": f"log-level=none:{params}", "qp": "0", "preset": "ultrafast"}
    with av.open(str(path), "w", options=options) as file:
        stream = file.add_stream(codec, rate=25, options=of_x264 if codec == "libx264" else {})
        stream.height, stream.width = planes[0].shape[0] * 2 // 3, planes[0].shape[1]
        stream.pix_fmt = "yuv420p"
        silence = (
            file.add_stream("mp3" if path.suffix == ".flv" else "mp2", rate=44100, layout="mono")
            if sound
            else None
        )
        if silence is not None:
            for number in range(round(sound * 44100 / 1152)):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), "s16", "mono")
                frame.rate, frame.pts = 44100, 1152 * number
                file.mux(silence.encode(frame))
            file.mux(silence.encode(None))
        for one in planes:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(one, format="yuv420p")))
        file.mux(stream.encode(None))
    return path


def grey_of(frame: NDArray[np.uint8]) -> int:
    """Return which frame of such a clip (low 5) this is."""
    return round((float(frame.mean()) - 5) / STEP)


def greys_of(clip: Clip) -> list[int]:
    """Return which frames of such a clip were read."""
    return [grey_of(frame) for frame in clip.frames]


def boxes(data: bytes) -> dict[bytes, tuple[int, int]]:
    """Return the top-level boxes of an mp4: name -> (start, end)."""
    found, place = {}, 0
    while place < len(data):
        size, name = struct.unpack(">I4s", data[place : place + 8])
        if size == 1:
            size = struct.unpack(">Q", data[place + 8 : place + 16])[0]
        found[name] = (place, place + size)
        place += size
    return found


def index_first(data: bytes) -> bytes:
    """Move an mp4's index before its frames, as streaming wants it: cut off, it still opens."""
    place = boxes(data)
    start, end = place[b"moov"]
    index = bytearray(data[start:end])
    at = index.index(b"stco") + 8
    count = struct.unpack(">I", index[at : at + 4])[0]
    for number in range(count):
        here = at + 4 + 4 * number
        offset = struct.unpack(">I", index[here : here + 4])[0]
        index[here : here + 4] = struct.pack(">I", offset + len(index))
    head = place[b"ftyp"][1]
    return data[:head] + bytes(index) + data[head:start] + data[end:]
