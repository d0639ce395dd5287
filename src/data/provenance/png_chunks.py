"""The notes of a PNG, before its pixels and behind them, without decoding a pixel.

Pillow reads what stands behind the pixels only once they are decoded, of a key that stands twice
it keeps the last, and UTF-8 in `tEXt` it gives as Latin-1 (PNG 1.2 asks for Latin-1, most
generators write UTF-8). Here all are kept, in their order, as far as there is room: a few kilobytes
can unpack to as many megabytes, and a file may hold thousands of such texts.
"""

import sys
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from src.data.provenance.finding import DAMAGED, TOO_LARGE, because, decoded

MOST_BYTES = 8 * 2**20  # of one text, unpacked: workflows have up to a few million
MOST_KEPT = 4 * MOST_BYTES  # of all texts of a file together, unpacked; XMP is one of them
MOST_NOTES = 1000
MOST_CHUNKS = 100_000  # of any kind: pixels stand in thousands
_EXPANDS = 1032  # times that deflate makes of its bytes at most (zlib's technical details)
_SIGNATURE = 8
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
XMP_KEY = "XML:com.adobe.xmp"
_RAW = "Raw profile type "  # ImageMagick's way to keep EXIF, IPTC and XMP in a text, as hex
_PROFILES = ("exif", "APP1", "xmp", "iptc")


class NoteText(NamedTuple):
    """A text beside the pixels."""

    key: str  # as written
    text: str  # as far as it is read
    left_out: int  # bytes, or more, that were not read


class PngNotes(NamedTuple):
    """All notes of a PNG."""

    texts: list[NoteText]  # in the order of the file
    exif: bytes  # empty where there is none
    xmp: list[bytes]
    iptc: bytes
    problem: str  # why not all of it is read, as in `Provenance.not_read`; "" if all is


def read_png(file: BinaryIO) -> PngNotes:
    """Return the notes of a PNG, from the start of its file to its end, as far as there is room."""
    texts, raw, xmp, exif, problem = [], {}, [], b"", ""
    room = _Room()
    for kind, data, left_out in _chunks(file):
        if kind == b"eXIf":
            exif = exif or data
        elif kind in (DAMAGED, TOO_LARGE):
            problem = problem or str(because(kind, data))
        elif room.is_full:
            problem = str(because(TOO_LARGE, "more texts than are looked at; the rest is left out"))
        else:
            try:
                found = _text(kind, data, left_out, room)
            except (ValueError, zlib.error) as error:
                problem = problem or str(because(DAMAGED, f"a text cannot be unpacked ({error})"))
                continue
            profile = found.key.removeprefix(_RAW).strip()
            if found.key == XMP_KEY:
                xmp.append(found.text.encode("utf-8", "replace"))
            elif not found.key.startswith(_RAW):
                texts.append(found)
            elif profile in _PROFILES and profile not in raw:
                raw[profile] = _profile(found.text)
    exif = exif or raw.get("exif", b"") or raw.get("APP1", b"")
    xmp += [raw["xmp"]] if raw.get("xmp") else []
    return PngNotes(texts, exif.removeprefix(b"Exif\0\0"), xmp, raw.get("iptc", b""), problem)


class _Room:
    """What may still be unpacked, of all texts of a file together."""

    def __init__(self) -> None:
        self.bytes, self.texts = MOST_KEPT, MOST_NOTES

    @property
    def is_full(self) -> bool:
        return self.bytes <= 0 or self.texts <= 0

    def unpacked(self, data: bytes) -> tuple[bytes, int]:
        """Return what deflated bytes hold, as far as there is room, and 1 where that is not all.

        What cannot be unpacked has cost time too: it counts as much as it could have held.
        """
        most = max(1, min(self.bytes, MOST_BYTES))
        dearest = min(most, _EXPANDS * len(data))
        self.bytes -= dearest
        unpacker = zlib.decompressobj()
        found = unpacker.decompress(data, most)
        self.bytes += dearest - len(found)
        return found, 1 if unpacker.unconsumed_tail else 0


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes | str, bytes, int]]:
    """Yield kind and data of each chunk that holds notes, and how many of its bytes are left out.

    Where the chunks are not read to their end the last one is the reason, with its details.
    """
    file.seek(_SIGNATURE)
    for _ in range(MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            yield DAMAGED, b"it is cut off", 0
            return
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"IEND":
            return
        if kind not in _TEXTS and kind != b"eXIf":
            file.seek(length + 4, 1)
            continue
        wanted = min(length, MOST_BYTES)
        data = file.read(wanted)
        if len(data) < wanted:
            yield DAMAGED, b"it is cut off", 0
            return
        file.seek(length - wanted + 4, 1)
        yield kind, data, length - wanted
    yield TOO_LARGE, f"more than {MOST_CHUNKS:,} chunks".encode(), 0


def _text(kind: bytes | str, data: bytes, left_out: int, room: _Room) -> NoteText:
    """Return a text and take its room; a ValueError or zlib.error of what is none."""
    room.texts -= 1
    key, found, rest = data.partition(b"\0")
    if not found or not 0 < len(key) < 80:
        raise ValueError("its key is not what a key may be")
    packed = kind == b"zTXt"
    if kind == b"zTXt":
        rest = rest[1:]
    elif kind == b"iTXt":
        packed = rest[:1] == b"\1"
        # Compressed or not, how; language and translated key, each up to a NUL.
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    if packed:
        rest, more = room.unpacked(rest)
        left_out += more
    else:
        room.bytes -= len(rest)
    text = decoded(rest, cut=left_out > 0)
    room.bytes -= max(0, sys.getsizeof(text) - len(rest))  # one wide letter makes all of them wide
    return NoteText(decoded(key), text, left_out)


def _profile(text: str) -> bytes:
    """Return the bytes of a profile kept as text: a name, a length, then hex over many lines."""
    try:
        return bytes.fromhex(text.strip().split("\n", 2)[2])
    except (ValueError, IndexError):
        return b""
