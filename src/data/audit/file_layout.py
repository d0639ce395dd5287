"""The parts that a picture's file is made of, in their order: they name the program that wrote it.

JPEG as of ITU-T T.81 (1992), PNG as of RFC 2083, WebP as of RFC 9649; no pixel is decoded.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import BinaryIO, NamedTuple

from src.data.audit.texts import clean, shorten

MOST_PARTS = 2000  # of one file; a PNG of 16 MB in pieces of 8 KB has as many
# Numbers of codes of each length in the Huffman tables K.3 to K.6 of T.81.
_USUAL = {
    bytes.fromhex(counts)
    for counts in (
        "00010501010101010100000000000000",
        "00030101010101010101010000000000",
        "0002010303020403050504040000017d",
        "00020102040403040705040400010277",
    )
}
_SOS, _EOI, _DHT, _COM = 0xDA, b"\xff\xd9", 0xC4, 0xFE
_NAMES = {0xDB: "DQT", _DHT: "DHT", 0xDD: "DRI", _COM: "COM", 0xCC: "DAC", _SOS: "SOS"}


class Layout(NamedTuple):
    """How a file is put together; -1 and "" stand for what its kind does not have."""

    parts: str = ""  # names of its segments or chunks, `APP0(JFIF) DQT*2 SOF0 DHT*4 SOS`
    own_codes: int = -1  # 0 or 1, whether a JPEG's Huffman tables are others than the standard's
    compression: str = ""  # of a PNG the first bytes of its zlib stream, of a WebP `VP8` or `VP8L`
    depth: int = -1  # bits a channel of a PNG
    interlaced: int = -1  # 0 or 1, of a PNG
    piece: int = -1  # bytes of a PNG's pieces of data; 0 where it is all in one


def read_layout(file: BinaryIO, kind: str) -> Layout:
    """Read the layout of a `jpeg`, `png` or `webp`; of other kinds nothing is known."""
    readers = {"jpeg": _jpeg, "png": _png, "webp": _webp}
    return readers[kind](file) if kind in readers else Layout()


def _jpeg(file: BinaryIO) -> Layout:
    names, own = [], 0
    file.seek(2)
    for _ in range(MOST_PARTS):
        head = file.read(4)
        while head[:2] == b"\xff\xff":  # padding
            head = head[1:] + file.read(1)
        if len(head) < 4 or head[0] != 0xFF:
            break
        marker, length = head[1], int.from_bytes(head[2:], "big") - 2
        names.append(_segment(file, marker, length))
        if marker == _SOS:
            break
        if marker == _DHT:
            own |= _has_own_codes(file.read(length))
        elif length > 0:
            file.seek(length, 1)
    file.seek(0, 2)
    file.seek(max(0, file.tell() - 2))
    end = [] if file.read(2) == _EOI else ["(more after its end, or cut off)"]
    return Layout(_words([*names, *end]), own_codes=own)


def _segment(file: BinaryIO, marker: int, length: int) -> str:
    """Return the name of a JPEG's segment; of an application's with the name that it gives."""
    if 0xE0 <= marker <= 0xEF:
        head = file.read(max(0, min(length, 28)))
        file.seek(-len(head), 1)
        said = clean(head.split(b"\0", 1)[0])
        said = "XMP" if said.startswith("http://ns.adobe.com/xap") else said[:12]
        return f"APP{marker - 0xE0}({said if said.isascii() and said.isprintable() else ''})"
    if 0xC0 <= marker <= 0xCF and marker not in _NAMES:
        return f"SOF{marker - 0xC0}"
    return _NAMES.get(marker, f"{marker:02X}")


def _has_own_codes(tables: bytes) -> bool:
    place = 0
    while place + 17 <= len(tables):
        counts = tables[place + 1 : place + 17]
        if counts not in _USUAL:
            return True
        place += 17 + sum(counts)
    return False


def _png(file: BinaryIO) -> Layout:
    names: list[str] = []
    header, start, pieces = b"", b"", []
    for name, length in _chunks(file, 8, "big", check=4):
        if name != "IDAT" or not pieces:  # how many there are follows from the size
            names.append(name)
        if name == "IHDR":
            header = file.read(13)
        elif name == "IDAT":
            start = start or file.read(2)
            pieces.append(length)
    return Layout(
        parts=_words(names),
        compression=f"zlib {start.hex()}" if start else "",
        depth=header[8] if len(header) == 13 else -1,
        interlaced=int(header[12] > 0) if len(header) == 13 else -1,
        piece=pieces[0] if len(pieces) > 1 else 0,
    )


def _webp(file: BinaryIO) -> Layout:
    names = [name.strip() for name, _ in _chunks(file, 12, "little", order=-1)]
    data = [name for name in names if name in ("VP8", "VP8L")]
    return Layout(_words(names), compression=data[0] if data else "")


def _chunks(
    file: BinaryIO, place: int, ends: str, *, check: int = 0, order: int = 1
) -> Iterator[tuple[str, int]]:
    """Yield the name and length of each chunk, the file standing at its content.

    Args:
        file: to be read.
        place: of the first chunk.
        ends: byte order of lengths, `big` or `little`.
        check: bytes after each chunk's content.
        order: 1 where the length stands before the name, -1 where after.
    """
    for _ in range(MOST_PARTS):
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            return
        length, name = (head[:4], head[4:])[::order]
        size = int.from_bytes(length, "little" if ends == "little" else "big")
        yield name.decode("latin-1"), size
        padding = size & 1 if ends == "little" else 0
        place += 8 + size + padding + check


def _words(names: list[str]) -> str:
    runs = [(name, len(list(run))) for name, run in groupby(names)]
    return shorten(" ".join(f"{name}*{n}" if n > 1 else name for name, n in runs), 120)
