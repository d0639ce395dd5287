"""The notes of a JPEG, segment by segment up to its pixels, whatever becomes of the rest.

A decoder refuses a JPEG that breaks off early or holds no picture; its notes may be whole.
"""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from src.data.provenance.png_chunks import MOST_BYTES

MOST_SEGMENTS = 10_000
MOST_KEPT = 4 * MOST_BYTES  # of all segments together
_APP1, _APP13, _COM = 0xE1, 0xED, 0xFE
_SCAN, _END = 0xDA, 0xD9
_BARE = (0x01, *range(0xD0, 0xD9))  # markers without a length
_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_EXTENDED = b"http://ns.adobe.com/xmp/extension/\0"
_GUID, _PLACES = 32, 8  # bytes: whose extension, then its whole length and the place of this part
_PHOTOSHOP = b"Photoshop 3.0\0"


class JpegNotes(NamedTuple):
    """All notes of a JPEG."""

    exif: bytes  # without its mark; empty where there is none
    xmp: list[bytes]  # the packet, then its extension
    resources: bytes  # Photoshop's
    comments: list[bytes]
    problem: str  # what is wrong with its segments, "" if nothing


def read_jpeg(file: BinaryIO) -> JpegNotes:
    """Return the notes of a JPEG, from the start of its file to its first scan."""
    exif, resources, segments, comments, problem = b"", b"", [], [], ""
    for marker, data in _segments(file):
        if marker == 0:
            problem = "it breaks off before its pixels"
        elif marker == _COM:
            comments.append(data)
        elif marker == _APP13 and data.startswith(_PHOTOSHOP):
            resources += data.removeprefix(_PHOTOSHOP)
        elif data.startswith(_EXIF):  # what is too long for one goes on in the next
            exif += data.removeprefix(_EXIF)
        else:
            segments.append(data)
    return JpegNotes(exif, _packets(segments), resources, comments, problem)


def _segments(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield marker and data of the segments that hold notes; the marker 0 where it breaks off."""
    file.seek(2)
    kept = 0
    for _ in range(MOST_SEGMENTS):
        start = file.read(2)
        while start == b"\xff\xff":  # any number of them may stand before a marker
            start = b"\xff" + file.read(1)
        if len(start) < 2 or start[0] != 0xFF:
            yield 0, b""
            return
        marker = start[1]
        if marker in (_SCAN, _END):
            return
        if marker in _BARE:
            continue
        length = int.from_bytes(file.read(2), "big") - 2
        if length < 0:
            yield 0, b""
            return
        if marker not in (_APP1, _APP13, _COM) or kept + length > MOST_KEPT:
            file.seek(length, 1)
            continue
        data = file.read(length)
        kept += length
        if data:
            yield marker, data  # of one that is cut off as far as it goes
        if len(data) < length:
            yield 0, b""
            return


def _packets(segments: list[bytes]) -> list[bytes]:
    """Return the XMP packets: the first, then its extension (XMP part 3, 1.1.3.1)."""
    packets = [data.removeprefix(_XMP) for data in segments if data.startswith(_XMP)]
    extensions: dict[bytes, bytearray] = {}
    for data in segments:
        if data.startswith(_EXTENDED):
            rest = data.removeprefix(_EXTENDED)
            whose, places = rest[:_GUID], rest[_GUID : _GUID + _PLACES]
            length, start = (int.from_bytes(places[at : at + 4], "big") for at in (0, 4))
            part = rest[_GUID + _PLACES :]
            if length > MOST_BYTES or start + len(part) > length or len(extensions) > 8:
                continue
            extensions.setdefault(whose, bytearray(length))[start : start + len(part)] = part
    return packets + [bytes(data) for data in extensions.values()]
