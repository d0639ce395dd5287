"""The notes of a JPEG, segment by segment up to its pixels, whatever becomes of the rest.

A decoder refuses a JPEG that breaks off early or holds no picture; its notes may be whole.
"""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from src.data.provenance.finding import DAMAGED, TOO_LARGE, because
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
    problem: str  # why not all of it is read, as in `Provenance.not_read`; "" if all is


def read_jpeg(file: BinaryIO) -> JpegNotes:
    """Return the notes of a JPEG, from the start of its file to its first scan."""
    exif, resources, segments, comments, problem = [], [], [], [], ""
    for marker, data in _segments(file):
        if isinstance(marker, str):
            problem = problem or str(because(marker, data))
        elif marker == _COM:
            comments.append(data)
        elif marker == _APP13 and data.startswith(_PHOTOSHOP):
            resources.append(data.removeprefix(_PHOTOSHOP))
        elif data.startswith(_EXIF):  # what is too long for one goes on in the next
            exif.append(data.removeprefix(_EXIF))
        else:
            segments.append(data)
    return JpegNotes(b"".join(exif), _packets(segments), b"".join(resources), comments, problem)


def _segments(file: BinaryIO) -> Iterator[tuple[int | str, bytes]]:
    """Yield marker and data of the segments that hold notes.

    In place of a marker the reason, with its details, where a segment or the rest is not read.
    """
    file.seek(2)
    kept = 0
    for _ in range(MOST_SEGMENTS):
        marker, length = _start(file)
        if marker in (_SCAN, _END):
            return
        if marker in (_APP1, _APP13, _COM):
            if kept + length > MOST_KEPT:
                yield TOO_LARGE, f"more than {MOST_KEPT:,} bytes of notes".encode()
                return
            data = file.read(length)
            kept += length
            if data:
                yield marker, data  # of one that is cut off as far as it goes
            length -= len(data)
        elif length >= 0:
            file.seek(length, 1)
            length = 0
        if length:
            yield DAMAGED, b"it breaks off before its pixels"
            return
    yield TOO_LARGE, f"more than {MOST_SEGMENTS:,} segments".encode()


def _start(file: BinaryIO) -> tuple[int, int]:
    """Return the next marker and the length of what follows; -1 where there is no segment."""
    start = file.read(2)
    while start == b"\xff\xff":  # any number of them may stand before a marker
        start = b"\xff" + file.read(1)
    if len(start) < 2 or start[0] != 0xFF:
        return 0, -1
    if start[1] in (_SCAN, _END, *_BARE):
        return start[1], 0
    length = int.from_bytes(file.read(2), "big") - 2
    return (start[1], length) if length >= 0 else (0, -1)


def _packets(segments: list[bytes]) -> list[bytes]:
    """Return the XMP packets: the first, then its extension (XMP part 3, 1.1.3.1)."""
    packets = [data.removeprefix(_XMP) for data in segments if data.startswith(_XMP)]
    parts: dict[tuple[bytes, int], list[tuple[int, bytes]]] = {}  # of whose, of which length
    for data in segments:
        if data.startswith(_EXTENDED):
            rest = data.removeprefix(_EXTENDED)
            whose, places = rest[:_GUID], rest[_GUID : _GUID + _PLACES]
            length, start = (int.from_bytes(places[at : at + 4], "big") for at in (0, 4))
            part = rest[_GUID + _PLACES :]
            if start + len(part) <= length <= MOST_BYTES:
                parts.setdefault((whose, length), []).append((start, part))
    for (_, length), found in parts.items():
        if sum(len(part) for _, part in found) < length:  # a length that is only claimed
            continue
        whole = bytearray(length)
        for start, part in found:
            whole[start : start + len(part)] = part
        packets.append(bytes(whole))
    return packets
