"""The notes of a PNG, before its pixels and behind them, without decoding a pixel.

Pillow reads what stands behind the pixels only once they are decoded, of a key that stands twice
it keeps the last, and UTF-8 in `tEXt` it gives as Latin-1 (PNG 1.2 asks for Latin-1, most
generators write UTF-8). Here all are kept, in their order.
"""

import binascii
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from src.data.provenance.finding import decoded

MOST_BYTES = 8 * 2**20  # of one text, unpacked: workflows have up to a few million
MOST_KEPT = 4 * MOST_BYTES  # of all together
MOST_CHUNKS = 10_000
_SIGNATURE = 8
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
XMP_KEY = "XML:com.adobe.xmp"
_RAW = "Raw profile type "  # ImageMagick's way to keep EXIF, IPTC and XMP in a text, as hex


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
    problem: str  # what is wrong with its chunks, "" if nothing


def read_png(file: BinaryIO) -> PngNotes:
    """Return the notes of a PNG, from the start of its file to its end."""
    texts, raw, xmp, exif, problem = [], {}, [], b"", ""
    room = MOST_KEPT
    for kind, data, left_out in _chunks(file):
        if kind == b"eXIf":
            exif = exif or data
        elif kind == b"":
            problem = problem or "it is cut off"
        elif room <= 0:
            problem = problem or f"more than {MOST_KEPT:,} bytes of texts; the rest is not read"
        else:
            try:
                found = _text(kind, data, left_out, min(room, MOST_BYTES))
            except (ValueError, zlib.error) as error:
                problem = problem or f"a text cannot be unpacked ({error})"
                continue
            room -= len(found.text)
            if found.key == XMP_KEY:
                xmp.append(found.text.encode("utf-8", "replace"))
            elif found.key.startswith(_RAW):
                raw.setdefault(found.key.removeprefix(_RAW).strip(), _profile(found.text))
            else:
                texts.append(found)
    exif = exif or raw.get("exif", b"") or raw.get("APP1", b"")
    xmp += [raw["xmp"]] if raw.get("xmp") else []
    return PngNotes(texts, exif.removeprefix(b"Exif\0\0"), xmp, raw.get("iptc", b""), problem)


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield kind and data of each chunk that holds notes, and how many of its bytes are left out.

    The last one is of the kind b"" where the file ends before its end is said.
    """
    file.seek(_SIGNATURE)
    for _ in range(MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            yield b"", b"", 0
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
            yield b"", b"", 0
            return
        file.seek(length - wanted + 4, 1)
        yield kind, data, length - wanted


def _text(kind: bytes, data: bytes, left_out: int, most: int) -> NoteText:
    """Return a text of at most `most` bytes; a ValueError or zlib.error of what is none."""
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
        unpacker = zlib.decompressobj()
        rest = unpacker.decompress(rest, most)
        left_out += 1 if unpacker.unconsumed_tail else 0
    return NoteText(decoded(key), decoded(rest, cut=left_out > 0), left_out)


def _profile(text: str) -> bytes:
    """Return the bytes of a profile kept as text: a name, a length, then hex over many lines."""
    lines = text.strip().split("\n")
    try:
        return binascii.unhexlify("".join("".join(lines[2:]).split()))
    except ValueError:
        return b""
