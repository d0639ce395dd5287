"""IPTC-IIM records, older than XMP: credit, source, program, by-line, in Photoshop's resources.

IPTC-NAA Information Interchange Model 4.2, record 2; resources as in Adobe's Photoshop file
formats, number 0x0404.
"""

from collections.abc import Iterator

from src.data.provenance.finding import STATED, Finding, NotReadError, decoded, finding
from src.data.provenance.opened import READERS, OpenedFile
from src.data.provenance.source_types import of_credit, of_software

SOURCE = "iptc"
_RESOURCE, _IIM = b"8BIM", 0x0404
_FIELDS = {
    5: "ObjectName", 25: "Keywords", 40: "SpecialInstructions", 55: "DateCreated",
    65: "OriginatingProgram", 80: "By-line", 105: "Headline", 110: "Credit", 115: "Source",
    116: "CopyrightNotice", 120: "Caption-Abstract",
}  # fmt: skip
_PROGRAM, _DATE = 65, 55
_NOTES = (5, 25, 105, 120)
MOST_RECORDS = 500


@READERS.register(SOURCE)
def read_iptc_records(file: OpenedFile) -> Iterator[Finding]:
    """Yield the records of a picture.

    Raises:
        NotReadError: a broken file, after what could be read.
    """
    notes = file.notes
    for number, data in [
        one for block in (*_blocks(notes.resources), notes.iptc) for one in _records(block)
    ]:
        if number not in _FIELDS:
            continue
        value = decoded(data)
        if number == _PROGRAM:
            means = of_software(value)
        elif number == _DATE:
            means = "time"
        else:
            means = of_credit(value, "note" if number in _NOTES else "credit")
        yield finding(SOURCE, _FIELDS[number], value, means, STATED)
    problem = notes.problems.get(SOURCE)
    if problem:
        raise NotReadError(problem)


def _blocks(resources: bytes) -> Iterator[bytes]:
    """Yield the IIM blocks among Photoshop's resources: mark, number, name, length, data."""
    place = 0
    while resources[place : place + 4] == _RESOURCE:
        number = int.from_bytes(resources[place + 4 : place + 6], "big")
        named = resources[place + 6] if place + 6 < len(resources) else 0
        place += 7 + named + (named + 1) % 2  # a name and its length are even together
        length = int.from_bytes(resources[place : place + 4], "big")
        if number == _IIM:
            yield resources[place + 4 : place + 4 + length]
        place += 4 + length + length % 2


def _records(block: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and data of the records of the application record, 2."""
    if not block.startswith(b"\x1c"):  # of ImageMagick's raw profiles
        blocks = list(_blocks(block))
        if blocks:
            yield from _records(blocks[0])
        return
    place = 0
    for _ in range(MOST_RECORDS):
        if block[place : place + 1] != b"\x1c" or place + 5 > len(block):
            return
        record, number = block[place + 1], block[place + 2]
        length = int.from_bytes(block[place + 3 : place + 5], "big")
        place += 5
        if length & 0x8000:  # the length of a length, for data above 32,767 bytes
            wide = length & 0x7FFF
            length = int.from_bytes(block[place : place + min(wide, 8)], "big")
            place += wide
        if record == 2:
            yield number, block[place : place + length]
        place += length
