"""Tell from a container's own sizes whether a clip's file is cut off, or overwritten in between.

A container is a chain of pieces that each say how long they are. Where the chain leads past the
end of the file, or to something that is no piece, frames are missing; a decoder only skips them.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from src.data.mp4_index import MP4_BOXES, read_box

_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_ELEMENTS = {_SEGMENT, _CLUSTER, 0x1A45DFA3, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B,
             0x1941A469, 0x1043A770, 0x1254C367, 0x5854, 0xE7, 0xA3, 0xA0, 0xA7, 0xAB, 0xAF, 0xEC,
             0xBF}  # fmt: skip
_HEAD = 1 << 16
_TS_BLOCK = 4096  # packets

# From a piece to the next one; EOFError or ValueError where the chain breaks, the size of the file
# where nothing is said about what follows.
_Step = Callable[[BinaryIO, int, int], int]


def is_broken(path: Path) -> bool:
    """Tell whether a file's chain of pieces breaks before the file ends.

    Known are MP4, Matroska, WebM, AVI, ASF, FLV, MPEG streams and Ogg; False for all others.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
        try:
            if head.startswith(b"\x30\x26\xb2\x75"):
                _walk_asf(stream, head, size)
            elif head[:1] == head[188:189] == b"G" or head[4:5] == head[196:197] == b"G":
                _walk_ts(stream, size, 188 if head[:1] == head[188:189] == b"G" else 192)
            else:
                _walk(stream, head, size)
        except (EOFError, ValueError, struct.error):
            return True
    return False


def is_mp4(path: Path) -> bool:
    """Tell whether a file begins as an MP4 does."""
    with path.open("rb") as stream:
        return stream.read(8)[4:] in MP4_BOXES


def _walk(stream: BinaryIO, head: bytes, size: int) -> None:
    step, place = _kind(head)
    if step is None:
        return
    while place < size:
        place = step(stream, place, size)
    if place > size:
        raise EOFError


def _kind(head: bytes) -> tuple[_Step | None, int]:
    if head[4:8] in MP4_BOXES:
        return _mp4, 0
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return _avi, 0
    starts: list[tuple[bytes, _Step, int]] = [
        (b"\x1aE\xdf\xa3", _matroska, 0),
        (b"FLV", _flv, int.from_bytes(head[5:9], "big") + 4),
        (b"OggS", _ogg, 0),
        (b"\0\0\x01\xba", _mpeg, 0),
    ]
    return next(((step, at) for mark, step, at in starts if head.startswith(mark)), (None, 0))


def _read(stream: BinaryIO, place: int, count: int) -> bytes:
    stream.seek(place)
    found = stream.read(count)
    if len(found) < count:
        raise EOFError
    return found


def _mp4(stream: BinaryIO, place: int, size: int) -> int:
    stream.seek(place)
    return place + read_box(stream.read(16), 0, size - place)[2]


def _avi(stream: BinaryIO, place: int, size: int) -> int:
    name, length = struct.unpack("<4sI", _read(stream, place, 8))
    if not name.strip().isalnum():
        raise ValueError
    end = place + 8 + length + length % 2
    if name not in (b"RIFF", b"LIST"):
        return end
    if end > size + 1:
        raise EOFError
    inside = _read(stream, place + 8, 4) in (b"AVI ", b"AVIX", b"movi", b"rec ")
    return place + 12 if inside else end


def _matroska(stream: BinaryIO, place: int, size: int) -> int:
    first = _read(stream, place, 1)[0]
    name_bytes = 9 - first.bit_length()
    name = int.from_bytes(_read(stream, place, name_bytes), "big")
    lead = _read(stream, place + name_bytes, 1)[0]
    size_bytes = 9 - lead.bit_length()
    if name not in _ELEMENTS or size_bytes > 8:
        raise ValueError
    start = place + name_bytes + size_bytes
    most = (1 << 7 * size_bytes) - 1
    length = most & int.from_bytes(_read(stream, place + name_bytes, size_bytes), "big")
    if name in (_SEGMENT, _CLUSTER):
        if length != most and start + length > size:
            raise EOFError
        return start
    return size if length == most else start + length


def _flv(stream: BinaryIO, place: int, size: int) -> int:
    del size
    tag = _read(stream, place, 4)
    length = 11 + int.from_bytes(tag[1:], "big")
    if tag[0] & 0x1F not in (8, 9, 18) or _read(stream, place + length, 4) != struct.pack(
        ">I", length
    ):
        raise ValueError
    return place + length + 4


def _ogg(stream: BinaryIO, place: int, size: int) -> int:
    del size
    page = _read(stream, place, 27)
    if page[:4] != b"OggS":
        raise ValueError
    return place + 27 + page[26] + sum(_read(stream, place + 27, page[26]))


def _mpeg(stream: BinaryIO, place: int, size: int) -> int:
    mark = _read(stream, place, 4)
    if mark[:3] != b"\0\0\x01" or mark[3] < 0xB9:
        raise ValueError
    if mark[3] == 0xB9:  # the end of a programme
        return size
    if mark[3] == 0xBA:
        pack = _read(stream, place, 14)
        return place + (14 + (pack[13] & 7) if pack[4] >> 6 == 1 else 12)
    return place + 6 + int.from_bytes(_read(stream, place + 4, 2), "big")


def _walk_ts(stream: BinaryIO, size: int, length: int) -> None:
    if size % length:
        raise EOFError
    stream.seek(0)
    while block := stream.read(length * _TS_BLOCK):
        if set(block[length - 188 :: length]) != {0x47}:
            raise ValueError


def _walk_asf(stream: BinaryIO, head: bytes, size: int) -> None:
    about, data = head.find(_ASF_FILE), head.find(_ASF_DATA)
    if about < 0 or data < 0:
        return
    packets, live, packet = struct.unpack_from("<Q24xII", head, about + 56)
    if live & 1:
        return
    place, first = data + 50, _read(stream, data + 50, 1)
    for _ in range(packets):
        if _read(stream, place, 1) != first:
            raise ValueError
        place += packet
    if place > size:
        raise EOFError
