"""EXIF: camera, software, times, notes; and where generators keep their parameters in a JPEG.

EXIF 3.0 (CIPA DC-008-2023) names the tags. Of a place only that there is one is said.
"""

from collections.abc import Iterator
from typing import Any

from PIL import ExifTags

from src.data.provenance.finding import STATED, Finding, NotReadError, clean, decoded, finding
from src.data.provenance.generators import of_text
from src.data.provenance.opened import MAIN, READERS, OpenedFile
from src.data.provenance.source_types import of_credit, of_software

SOURCE = "exif"
_BASE, _IFD = ExifTags.Base, ExifTags.IFD
_CAMERA = (_BASE.Make, _BASE.Model, _BASE.LensMake, _BASE.LensModel, _BASE.UniqueCameraModel)
_TOOLS = (_BASE.Software, _BASE.ProcessingSoftware, _BASE.HostComputer)
_TIMES = (_BASE.DateTimeOriginal, _BASE.DateTimeDigitized, _BASE.DateTime)
_NOTES = (_BASE.ImageDescription, _BASE.UserComment, _BASE.XPTitle, _BASE.XPComment,
          _BASE.XPKeywords, _BASE.XPSubject)  # fmt: skip
_CREDITS = (_BASE.Artist, _BASE.Copyright, _BASE.XPAuthor)
_COMPOSITE = 0xA460  # CompositeImage: 2 a composite, 3 one whose parts were taken while shooting
_WIDE = range(0x9C9B, 0x9CA0)  # Windows' own: UTF-16, little end first
_CODE = 8  # bytes of a UserComment that name its letters
# ComfyUI keeps its graphs so in WebP, `prompt:{...}` as the model and `workflow:{...}` as the make.
_GRAPHS = ("prompt:{", "workflow:{")


@READERS.register(SOURCE)
def read_exif(file: OpenedFile) -> Iterator[Finding]:
    """Yield what EXIF says of a picture.

    Raises:
        NotReadError: a broken file, or EXIF that is broken, after what could be read.
    """
    exif = file.notes.exif
    tags: dict[int, Any] = {**exif.get(MAIN, {}), **exif.get(_IFD.Exif, {})}
    for tag in (*_CAMERA, *_TOOLS, *_TIMES, *_NOTES, *_CREDITS):
        text = _text(tag, tags.get(tag))
        if text.strip(" \0"):
            yield from _of_tag(tag, text)
    if tags.get(_COMPOSITE) in (2, 3):
        how = "of frames taken together" if tags[_COMPOSITE] == 3 else "of several pictures"
        yield finding(SOURCE, "CompositeImage", how, "composite", STATED)
    maker = tags.get(_BASE.MakerNote)
    if maker:
        size = f"{len(maker):,} bytes" if isinstance(maker, bytes) else "of an odd kind"
        yield finding(SOURCE, "MakerNote", size, "maker_note", STATED)
    if len(exif.get(_IFD.GPSInfo, {})) > 1:  # a version alone is no place
        yield finding(SOURCE, "GPSInfo", "a place is given (not shown)", "place", STATED)
    if exif.get(_IFD.IFD1) and file.kind != "tiff":
        yield finding(SOURCE, "IFD1", "a small copy of the picture", "thumbnail", STATED)
    problem = file.notes.problems.get(SOURCE)
    if problem:
        raise NotReadError(problem)


def _of_tag(tag: int, text: str) -> Iterator[Finding]:
    name = str(ExifTags.TAGS.get(tag, tag))
    start = text.lstrip()
    if start.startswith(_GRAPHS):
        key, _, graph = start.partition(":")
        yield from list(of_text(SOURCE, key, graph)) or [
            finding(SOURCE, name, text, "workflow", STATED)
        ]
    elif tag in _CAMERA:
        yield finding(SOURCE, name, text, "camera", STATED)
    elif tag in _TOOLS:
        yield finding(SOURCE, name, text, of_software(text), STATED)
    elif tag in _TIMES:
        yield finding(SOURCE, name, text, "time", STATED)
    else:
        otherwise = "credit" if tag in _CREDITS else "note"
        yield from list(of_text(SOURCE, name, text)) or [
            finding(SOURCE, name, text, of_credit(text, otherwise), STATED)
        ]


def _text(tag: int, value: object) -> str:
    if isinstance(value, tuple):
        value = (
            bytes(value) if all(isinstance(one, int) and 0 <= one < 256 for one in value) else ""
        )
    if tag == _BASE.UserComment and isinstance(value, bytes):
        return _comment(value)
    if tag in _WIDE and isinstance(value, bytes):
        return value.decode("utf-16-le", "replace").rstrip("\0")
    if isinstance(value, bytes):
        return decoded(value.rstrip(b"\0"))
    return clean(value) if not isinstance(value, str) else _utf8(value).rstrip("\0")


def _utf8(text: str) -> str:
    """Return a text again that Pillow read as Latin-1, and that was UTF-8."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


def _comment(value: bytes) -> str:
    """Return a UserComment: eight bytes name its letters; UTF-16 may begin at either end."""
    code, text = value[:_CODE], value[_CODE:]
    if code == b"UNICODE\0":
        if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return text.decode("utf-16", "replace").rstrip("\0")
        # Of Western texts, and of the line ends and digits of others, the high bytes are 0.
        high, low = text[::2].count(0), text[1::2].count(0)
        if high == low == 0 and text.isascii():  # some write plain letters after all
            return decoded(text)
        return text.decode("utf-16-be" if high >= low else "utf-16-le", "replace").rstrip("\0")
    if code in (b"ASCII\0\0\0", b"\0" * _CODE, b" " * _CODE):
        return decoded(text.strip(b"\0"))
    if code == b"JIS\0\0\0\0\0":
        return text.decode("iso2022_jp", "replace")
    return decoded(value.strip(b"\0"))
