"""A file as the readers of provenance see it: opened once, its notes apart from its pixels."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

from PIL import ExifTags, Image

from src.data.pixels.decode import register_heic
from src.data.pixels.formats import HEAD, describe_unknown, file_format, is_clip
from src.data.provenance.finding import (
    DAMAGED,
    EXTRA_MISSING,
    TOO_LARGE,
    UNSUPPORTED,
    Finding,
    because,
    decoded,
)
from src.data.provenance.jpeg_segments import JpegNotes, read_jpeg
from src.data.provenance.png_chunks import MOST_BYTES, MOST_KEPT, NoteText, PngNotes, read_png
from src.errors import UnreadableImageError
from src.registry import Registry

CLIP = "clip"
UNKNOWN = "unknown"
_XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")  # XMP part 3, 2.3.2
_MOST_BOXES, _FARTHEST = 2000, 2**62
_XMP_TAG, _IPTC_TAG, _RESOURCES_TAG = 700, 33723, 34377  # of TIFF

Exif = dict[int, dict[int, Any]]  # directory (`MAIN` or of `ExifTags.IFD`) -> its tags
MAIN = 0
_DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.IFD1)


@dataclass
class Notes:
    """What stands beside the pixels of a picture."""

    exif: Exif = field(default_factory=dict)
    xmp: list[bytes] = field(default_factory=list)  # packets, the main one first
    resources: bytes = b""  # Photoshop's image resources, `8BIM` and so on
    iptc: bytes = b""  # IPTC-IIM records that stand alone
    texts: list[NoteText] = field(default_factory=list)  # comments too
    problems: dict[str, str] = field(default_factory=dict)  # as in `Provenance.not_read`


class OpenedFile:
    """One file on disk."""

    def __init__(self, path: Path, name: str = "") -> None:
        """Look at its first bytes; an OSError where it cannot be opened."""
        self.path, self.name = path, name or path.name
        with path.open("rb") as file:
            self.head = file.read(HEAD)
        self.kind = CLIP if is_clip(self.head) else file_format(self.head)
        self.anchors: str = ""  # PEM of certificates that are trusted; see `read.py`

    @cached_property
    def notes(self) -> Notes:
        """Return what stands beside the pixels; `NotReadError` where the header is broken."""
        if self.kind == UNKNOWN:
            raise because(UNSUPPORTED, describe_unknown(self.head))
        if self.kind not in (CLIP, "png", "jpeg"):
            return self._by_pillow()
        with self.path.open("rb") as file:
            if self.kind == CLIP:
                return Notes(xmp=_of_boxes(file))
            return _of_png(read_png(file)) if self.kind == "png" else _of_jpeg(read_jpeg(file))

    def _by_pillow(self) -> Notes:
        try:
            if self.kind == "heic":
                register_heic()
            with Image.open(self.path) as image:
                found = _of_tiff(image) if self.kind == "tiff" else _of_picture(image)
        except UnreadableImageError:
            raise because(EXTRA_MISSING, "pip install pillow-heif") from None
        except Exception as error:  # noqa: BLE001 - of a broken header Pillow makes any error
            raise because(DAMAGED, _words(error)) from None
        return found


def _words(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "its header cannot be read"
    return str(error) or type(error).__name__


def _of_png(found: PngNotes) -> Notes:
    notes = Notes({}, found.xmp, found.iptc, b"", found.texts)
    if found.problem:
        notes.problems["png_text"] = found.problem
    if found.problem.startswith(TOO_LARGE):  # XMP may be among what was left out
        notes.problems["xmp"] = found.problem
    _read_exif(notes, found.exif)
    return notes


def _of_jpeg(found: JpegNotes) -> Notes:
    comments = [NoteText("comment", decoded(one), 0) for one in found.comments]
    notes = Notes({}, found.xmp, found.resources, b"", comments)
    _read_exif(notes, found.exif)
    if found.problem:
        notes.problems |= dict.fromkeys(("exif", "xmp", "iptc", "comment"), found.problem)
    return notes


def _of_picture(image: Image.Image) -> Notes:
    info: dict[Any, Any] = image.info
    xmp, comment = info.get("xmp"), info.get("comment")
    notes = Notes(xmp=[xmp] if isinstance(xmp, bytes) else [])
    if comment:
        text = comment if isinstance(comment, str) else decoded(comment)
        notes.texts = [NoteText("comment", text, 0)]
    _read_exif(notes, info.get("exif"))
    return notes


def _of_boxes(file: BinaryIO) -> list[bytes]:
    """Return the XMP packets of an MP4 or MOV: its outermost boxes of that UUID."""
    packets, place, room = [], 0, MOST_KEPT
    for _ in range(_MOST_BOXES):
        file.seek(place)
        head = file.read(32)
        size, start = int.from_bytes(head[:4], "big"), 8
        if size == 1:
            size, start = int.from_bytes(head[8:16], "big"), 16
        if size < start or place + size > _FARTHEST:  # the last box, or no boxes
            break
        length = size - start - len(_XMP_BOX)
        if head[4:8] == b"uuid" and head[start : start + 16] == _XMP_BOX and length > 0:
            file.seek(place + start + len(_XMP_BOX))
            packets.append(file.read(min(length, MOST_BYTES + 1, room)))
            room -= len(packets[-1])
        place += size
    return packets


def _of_tiff(image: Image.Image) -> Notes:
    tags: Any = getattr(image, "tag_v2", {})
    order = "little" if getattr(tags, "prefix", b"II") == b"II" else "big"
    found = {tag: _bytes(tags.get(tag), order) for tag in (_XMP_TAG, _IPTC_TAG, _RESOURCES_TAG)}
    xmp = [found[_XMP_TAG]] if found[_XMP_TAG] else []
    notes = Notes({}, xmp, found[_RESOURCES_TAG], found[_IPTC_TAG])
    _read_tags(notes, image.getexif())
    return notes


def _bytes(value: object, order: Literal["little", "big"]) -> bytes:
    """Return a tag's bytes: of IPTC, which some write as 32-bit numbers, Pillow gives a tuple."""
    if isinstance(value, tuple) and value and all(isinstance(one, int) for one in value):
        return b"".join((one & 0xFFFFFFFF).to_bytes(4, order) for one in value)
    if isinstance(value, tuple) and value:
        value = value[0]
    if isinstance(value, str):
        return value.encode("latin-1", "replace")
    return value if isinstance(value, bytes) else b""


def _read_exif(notes: Notes, raw: object) -> None:
    if not isinstance(raw, bytes) or not raw:
        return
    exif = Image.Exif()
    try:
        exif.load(raw)
    except Exception as error:  # noqa: BLE001 - of broken EXIF Pillow makes any error
        notes.problems["exif"] = str(because(DAMAGED, _words(error)))
    else:
        _read_tags(notes, exif)


def _read_tags(notes: Notes, exif: Image.Exif) -> None:
    """Read all directories at once: those of a TIFF are read from its file, as long as it is open.

    What is broken is left out, and said.
    """
    for directory in (MAIN, *_DIRECTORIES):
        try:
            found = dict(exif.items()) if directory == MAIN else dict(exif.get_ifd(directory))
        except Exception as error:  # noqa: BLE001 - see above
            notes.problems["exif"] = str(because(DAMAGED, _words(error)))
            continue
        if found:
            notes.exif[directory] = found


READERS: Registry[Callable[[OpenedFile], Iterator[Finding]]] = Registry("source of provenance")
