"""What the container of a clip says before a frame is decoded: read from the boxes of an MP4.

The boxes are those of ISO/IEC 14496-12 (2015): `mvhd`, `mdhd`, `hdlr`, `stsd`, `stts`.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

MOVIE_BYTES = 64 * 2**20  # no index of a clip is larger
_CONTAINERS = ("moov", "trak", "mdia", "minf", "stbl")
_SOUND, _PICTURE = "soun", "vide"


class Box(NamedTuple):
    """One box of a container: its name and where its content lies."""

    name: str
    start: int
    end: int


class ClipHeader(NamedTuple):
    """What a clip says of itself.

    Attributes:
        brand: major brand of the container, `isom`.
        codec: four characters, `avc1`; "" where there are no pictures.
        software: that wrote it, `Lavf58.29.100`; "" where it does not say.
        width, height: pixels as coded.
        frames: pictures in the index, 0 where that is left open.
        seconds: of the pictures.
        audio: whether there is sound.
    """

    brand: str
    codec: str
    software: str
    width: int
    height: int
    frames: int
    seconds: float
    audio: bool


def is_mp4(head: bytes) -> bool:
    """Tell whether a file that begins like this is of the MP4 and QuickTime family."""
    return head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


def read_mp4(file: BinaryIO, size: int) -> ClipHeader | None:
    """Read the header of an MP4, MOV or M4V; None where it has none that can be read.

    Args:
        file: open at any place.
        size: of the file in bytes.
    """
    try:
        brand, movie = _find_movie(file, size)
        return None if movie is None else _read_movie(movie, brand)
    except (IndexError, ValueError):
        return None


def _find_movie(file: BinaryIO, size: int) -> tuple[str, bytes | None]:
    """Return the brand and the content of `moov`, skipping the pictures themselves."""
    place, brand = 0, ""
    while place + 8 <= size:
        file.seek(place)
        head = file.read(24)
        length, name = int.from_bytes(head[:4], "big"), head[4:8]
        skip = 8
        if length == 1:
            length, skip = int.from_bytes(head[8:16], "big"), 16
        length = size - place if length == 0 else length
        if length < skip:
            break
        if name == b"ftyp":
            brand = _text(head[8:12])
        if name == b"moov":
            file.seek(place + skip)
            wanted = min(length - skip, MOVIE_BYTES)
            data = file.read(wanted)
            return brand, data if len(data) == wanted else None
        place += length
    return brand, None


def _boxes(data: bytes, start: int, end: int) -> Iterator[Box]:
    """Yield the boxes of `data[start:end]`, those inside containers too."""
    while start + 8 <= end:
        length = int.from_bytes(data[start : start + 4], "big")
        if length < 8 or start + length > end:
            return
        box = Box(_text(data[start + 4 : start + 8]), start + 8, start + length)
        yield box
        if box.name in _CONTAINERS:
            yield from _boxes(data, box.start, box.end)
        start += length


def _read_movie(data: bytes, brand: str) -> ClipHeader:
    picture: dict[str, int | str] = {}
    audio, handler, length, scale = False, "", 0, 1
    for box in _boxes(data, 0, len(data)):
        content = data[box.start : box.end]
        if box.name == "mdhd":
            scale, length = _duration(content)
        elif box.name == "hdlr":
            handler = _text(content[8:12])
            audio = audio or handler == _SOUND
        elif handler == _PICTURE and box.name == "stsd" and "codec" not in picture:
            picture["codec"] = _text(content[12:16])
            picture["width"] = int.from_bytes(content[40:42], "big")
            picture["height"] = int.from_bytes(content[42:44], "big")
            picture["scale"], picture["length"] = scale, length
        elif handler == _PICTURE and box.name == "stts" and "frames" not in picture:
            picture["frames"] = _count_frames(content)
    return ClipHeader(
        brand=brand,
        codec=str(picture.get("codec", "")),
        software=_software(data),
        width=int(picture.get("width", 0)),
        height=int(picture.get("height", 0)),
        frames=int(picture.get("frames", 0)),
        seconds=int(picture.get("length", 0)) / max(1, int(picture.get("scale", 1))),
        audio=audio,
    )


def _duration(content: bytes) -> tuple[int, int]:
    """Return the units a second and how many of them a track lasts, of `mdhd`."""
    if content[0] == 1:
        return int.from_bytes(content[20:24], "big"), int.from_bytes(content[24:32], "big")
    return int.from_bytes(content[12:16], "big"), int.from_bytes(content[16:20], "big")


def _count_frames(content: bytes) -> int:
    runs = int.from_bytes(content[4:8], "big")
    places = range(8, min(8 + 8 * runs, len(content)), 8)
    return sum(int.from_bytes(content[at : at + 4], "big") for at in places)


def _software(data: bytes) -> str:
    """Return the `(c)too` entry that FFmpeg, HandBrake and iTunes leave behind."""
    found = re.search(rb"\xa9too(....)data", data, re.DOTALL)
    if found is None:
        return ""
    end = found.start(1) + int.from_bytes(found[1], "big")
    return _text(data[found.end() + 8 : end])


def _text(data: bytes) -> str:
    return data.decode("latin-1").strip("\0 ")
