"""What the container of a clip says before a frame is decoded: read from the boxes of an MP4.

The boxes are those of ISO/IEC 14496-12 (2015): `mdhd`, `hdlr`, `stsd`, `stts`, `stss`, `ctts`,
`stco`.
"""

import re
from collections.abc import Iterator
from itertools import groupby
from typing import BinaryIO, NamedTuple

from src.data.audit_codec import CONFIGURATIONS, read_configuration
from src.data.audit_words import clean, shorten

_ENTRY = 86  # bytes of a sample entry of pictures before the boxes in it
_FIRST = 2048  # bytes of the first frame, where x264 and x265 sign
_SIGNED = re.compile(rb"(x26[45])[^\0]{0,12}? core (\d+)|Lavc[\d.]*(?: \w+)?")
MOVIE_BYTES = 64 * 2**20  # no index of a clip is larger
MOST_BOXES = 10_000  # outside of `moov`; a fragment of a clip has two
MOST_NAMED = 20
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
        brands: compatible brands of the container.
        profile: of the codec, with its level, `100 level 40`.
        pixels: chroma and bits, `4:2:0 8 bit`; "" where it does not say.
        encoder: that made the pictures, `x264 core 155`; "" where it does not say.
        handler: what the track of pictures is called, `VideoHandler`.
        units: of time a second, of the pictures.
        keys: pictures that stand alone, 0 where that is left open.
        reordered: whether pictures are shown in another order than they are stored (B-frames).
        parts: names of the boxes of the file, then of those about pictures.
        sound: codec of the sound, `mp4a`.
    """

    brand: str
    codec: str
    software: str
    width: int
    height: int
    frames: int
    seconds: float
    audio: bool
    brands: str
    profile: str
    pixels: str
    encoder: str
    handler: str
    units: int
    keys: int
    reordered: bool
    parts: str
    sound: str


class _Outside(NamedTuple):
    """What is known of a file without opening its `moov`."""

    brand: str
    brands: str
    names: list[str]
    movie: bytes | None


class _Track(NamedTuple):
    """Contents of the boxes of one track, by name, the first of each."""

    handler: str
    boxes: dict[str, bytes]


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
        outside = _find_movie(file, size)
        return None if outside.movie is None else _read_movie(file, outside, outside.movie)
    except (IndexError, ValueError):
        return None


def _find_movie(file: BinaryIO, size: int) -> _Outside:
    """Return the boxes of a file and the content of `moov`, skipping the pictures themselves."""
    place, brand, brands = 0, "", ""
    names: list[str] = []
    movie = None
    while place + 8 <= size and len(names) < MOST_BOXES:
        file.seek(place)
        head = file.read(96)
        length, name = int.from_bytes(head[:4], "big"), head[4:8]
        skip = 8
        if length == 1:
            length, skip = int.from_bytes(head[8:16], "big"), 16
        length = size - place if length == 0 else length
        if length < skip:
            break
        names.append(_text(name))
        if name == b"ftyp":
            brand = _text(head[8:12])
            brands = clean(
                " ".join(_text(head[at : at + 4]) for at in range(16, min(length, 64), 4))
            )
        if name == b"moov" and movie is None:
            file.seek(place + skip)
            wanted = min(length - skip, MOVIE_BYTES)
            data = file.read(wanted)
            if len(data) != wanted:
                break
            movie = data
        place += length
    return _Outside(brand, brands, names, movie)


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


def _read_movie(file: BinaryIO, outside: _Outside, data: bytes) -> ClipHeader:
    tracks = list(_tracks(data))
    sounds = [track for track in tracks if track.handler == _SOUND]
    pictures = [track.boxes for track in tracks if track.handler == _PICTURE]
    boxes = pictures[0] if pictures else {}
    entry = boxes.get("stsd", b"")[8:]
    about = {box.name: entry[box.start : box.end] for box in _boxes(entry, _ENTRY, len(entry))}
    held = next((name for name in about if name in CONFIGURATIONS), "")
    profile, pixels = read_configuration(held, about[held]) if held else ("", "")
    units, length = _duration(boxes["mdhd"]) if "mdhd" in boxes else (1, 0)
    return ClipHeader(
        brand=outside.brand,
        codec=_text(entry[4:8]),
        software=_software(data),
        width=int.from_bytes(entry[32:34], "big"),
        height=int.from_bytes(entry[34:36], "big"),
        frames=_count_frames(boxes["stts"]) if "stts" in boxes else 0,
        seconds=length / max(1, units),
        audio=bool(sounds),
        brands=outside.brands,
        profile=profile,
        pixels=pixels,
        encoder=_encoder(file, boxes, entry),
        handler=clean(boxes.get("hdlr", b"")[24:])[:60],
        units=units if boxes else 0,
        keys=int.from_bytes(boxes.get("stss", b"")[4:8], "big"),
        reordered="ctts" in boxes,
        parts=_parts(outside.names, [*boxes, *about]),
        sound=_text(sounds[0].boxes.get("stsd", b"")[12:16]) if sounds else "",
    )


def _tracks(data: bytes) -> Iterator[_Track]:
    for track in _boxes(data, 0, len(data)):
        if track.name != "trak":
            continue
        boxes: dict[str, bytes] = {}
        for box in _boxes(data, track.start, track.end):
            if box.name not in _CONTAINERS:
                boxes.setdefault(box.name, data[box.start : box.end])
        yield _Track(_text(boxes.get("hdlr", b"")[8:12]), boxes)


def _parts(outer: list[str], inner: list[str]) -> str:
    # Fragments and pieces of data are as many as a clip is long.
    whole = [name for name, _ in groupby(outer)]
    first = list(dict.fromkeys(whole)) if len(whole) > MOST_NAMED else whole
    return shorten(f"{' '.join(first)}: {' '.join(inner)}", 200)


def _encoder(file: BinaryIO, boxes: dict[str, bytes], entry: bytes) -> str:
    """Return who signs the pictures: in the sample entry, or at the start of the first frame."""
    named = clean(entry[51 : 51 + entry[50]]) if len(entry) >= _ENTRY else ""
    table, width = ("stco", 4) if "stco" in boxes else ("co64", 8)
    place = int.from_bytes(boxes.get(table, b"")[8 : 8 + width], "big")
    if place >= 2**62:
        return named
    file.seek(place)
    found = _SIGNED.search(file.read(_FIRST)) if place else None
    if found is None or (named and not found[1]):
        return named
    signed = f"{_text(found[1])} core {_text(found[2])}" if found[1] else _text(found[0])
    return f"{named} {signed}".strip()


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
