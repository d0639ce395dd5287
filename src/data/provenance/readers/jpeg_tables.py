"""How a JPEG was written: its quantisation tables, chroma, segments, and who usually writes so.

The fields are those of the audit (`src/data/audit/headers.py`). Of tables only one thing is known
for sure: whether libjpeg writes them at some quality. All that is a hint: whoever saves a picture
anew leaves the tables of the last program.
"""

from collections.abc import Iterator

from src.data.audit.headers import APART, ORDINARY, Value, picture_fields
from src.data.provenance.finding import DAMAGED, HINT, Finding, because, finding
from src.data.provenance.opened import READERS, OpenedFile

SOURCE = "jpeg_tables"
# Segments that one family of programs writes.
_SEGMENTS = {
    "APP12(Ducky)": "Ducky: as Adobe's Save for Web writes it",
    "APP13(Photoshop": "Photoshop's resources: as Adobe's programs, and many others, write them",
    "APP14(Adobe": "Adobe's colour mark: as Adobe's programs, and libjpeg for CMYK and RGB, write",
    "APP2(MPF)": "MPF, several pictures in one file: as cameras and phones write it",
}


@READERS.register(SOURCE)
def read_jpeg_tables(file: OpenedFile) -> Iterator[Finding]:
    """Yield how a JPEG was written; a `NotReadError` where its header is broken."""
    if file.kind != "jpeg":
        return
    with file.path.open("rb") as stream:
        fields = picture_fields(stream)
    if fields is None:
        raise because(DAMAGED, "its header cannot be read")
    if "JPEG tables" in fields:
        yield _of_tables(fields)
    parts = str(fields["parts of the file"])
    if parts:
        yield finding(SOURCE, "segments", parts, "parts", HINT)
    for mark, said in _SEGMENTS.items():
        if mark in parts:
            yield finding(SOURCE, mark.replace("(", " ").rstrip(")"), said, "writer", HINT)
    if fields["colour profile"]:
        yield finding(SOURCE, "ICC profile", fields["colour profile"], "parts", HINT)


def _of_tables(fields: dict[str, Value]) -> Finding:
    quality, chroma = (f"{fields[name]:.0f}" for name in ("JPEG quality", "JPEG chroma quality"))
    layout = f"chroma {fields['JPEG chroma']}" if chroma != "-1" else "grey"
    layout += ", progressive" if fields["JPEG progressive"] else ", baseline"
    if fields["JPEG tables"] == ORDINARY:
        said = f"the usual tables of libjpeg at quality {quality}; {layout}"
        return finding(SOURCE, "DQT", said, "writer", HINT)
    if fields["JPEG tables"] == APART:
        said = f"tables of libjpeg, luma of quality {quality}, chroma of {chroma}; {layout}"
        return finding(SOURCE, "DQT", said, "writer", HINT)
    said = f"tables of their own, nearest to libjpeg's of quality {quality}; {layout}"
    return finding(SOURCE, "DQT", said, "own_tables", HINT)
