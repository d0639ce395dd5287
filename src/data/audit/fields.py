"""The fields of a metadata audit: what is known of a file without decoding it."""

import io
import math
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from src.data.audit.clips import read_header
from src.data.audit.pictures import read_picture
from src.data.audit.texts import NONE, Value, name_fields
from src.data.items.files import local_path, read_bytes
from src.data.pixels.clips import is_clip, open_clip
from src.data.pixels.formats import HEAD, file_format
from src.errors import UnreadableImageError

# What a net may still see of a field, and hence what helps: how pixels were stored, their
# number, how a clip was recorded; `label` never reaches a net.
Family = Literal["storage", "shape", "clip", "label"]


class Field(NamedTuple):
    """One field."""

    name: str  # for people
    family: Family  # what remains of it for a net
    absent: str = ""  # in words, that a file does not have it; "" where every file has it
    kind: str = ""  # `image` or `video` where only those have it
    words: bool = False  # its values are words, not numbers
    yes: bool = False  # its numbers are 0 and 1


_JPEG, _PNG = "it is no JPEG", "it is no PNG"
PATTERN = "name pattern"
FIELDS = (
    Field("bytes", "storage"),
    Field("bytes per pixel", "storage"),
    Field("format", "storage", words=True),
    Field("extension", "label", words=True),
    Field("name length", "label"),
    Field("digits in the name", "label"),
    Field("number in the name", "label", "the name has no number"),
    Field("name prefix", "label", words=True),
    Field(PATTERN, "label", words=True),
    Field("width", "shape"),
    Field("height", "shape"),
    Field("aspect", "shape"),
    Field("colour type", "storage", kind="image", words=True),
    Field("JPEG quality", "storage", _JPEG, "image"),
    Field("JPEG chroma quality", "storage", "it is no JPEG in colour", "image"),
    Field("JPEG luma table", "storage", _JPEG, "image"),
    Field("JPEG tables", "storage", kind="image", words=True),
    Field("number of JPEG tables", "storage", _JPEG, "image"),
    Field("JPEG chroma", "storage", kind="image", words=True),
    Field("JPEG progressive", "storage", _JPEG, "image", yes=True),
    Field("Huffman tables of its own", "label", _JPEG, "image", yes=True),
    Field("compression", "storage", kind="image", words=True),
    Field("PNG bit depth", "storage", _PNG, "image"),
    Field("PNG interlaced", "label", _PNG, "image", yes=True),
    Field("PNG gamma", "label", "no PNG gamma", "image"),
    Field("bytes of a piece of the PNG", "label", _PNG, "image"),
    Field("parts of the file", "label", kind="image", words=True),
    Field("density", "label", kind="image", words=True),
    Field("EXIF", "label", kind="image", yes=True),
    Field("EXIF tags", "label", kind="image", words=True),
    Field("EXIF orientation", "label", "no EXIF orientation", "image"),
    Field("colour profile", "label", kind="image", yes=True),
    Field("name of the colour profile", "label", kind="image", words=True),
    Field("software", "label", words=True),
    Field("camera", "label", kind="image", words=True),
    Field("PNG texts", "label", kind="image", words=True),
    Field("comment", "label", kind="image", yes=True),
    Field("notes", "label", kind="image", words=True),
    Field("codec", "storage", kind="video", words=True),
    Field("codec profile", "storage", kind="video", words=True),
    Field("pixel format", "storage", kind="video", words=True),
    Field("encoder", "storage", kind="video", words=True),
    Field("frames between keys", "storage", "key frames are not said", "video"),
    Field("B-frames", "storage", kind="video", yes=True),
    Field("container brand", "label", kind="video", words=True),
    Field("compatible brands", "label", kind="video", words=True),
    Field("handler", "label", kind="video", words=True),
    Field("time units a second", "label", "time units are not said", "video"),
    Field("frames", "clip", "the number of frames is not said", "video"),
    Field("seconds", "clip", "the duration is not said", "video"),
    Field("frames a second", "clip", "the frame rate is not said", "video"),
    Field("kbit a second", "storage", "the duration is not said", "video"),
    Field("audio", "label", "it is not known whether there is sound", "video", yes=True),
    Field("sound codec", "label", kind="video", words=True),
)
_BLANK: dict[str, Value] = {field.name: "" if field.words else NONE for field in FIELDS}


def fields_of(root: Path, path: str, item_id: str, size: int) -> dict[str, Value] | None:
    """Return the fields of one item by name; None where its header cannot be read.

    A file in a folder is read as far as its header goes, a member of a zip whole (it is unpacked
    from its start anyway). The kind is that of the content, whatever the name says.

    Args:
        root: the data set's folder.
        path: as in the manifest.
        item_id: its last part is the name that is looked at; folders often are the label.
        size: bytes of the file.

    Raises:
        UserError: the file is not there any more.
    """
    try:
        there = local_path(root, path)
        if there is None:
            data = read_bytes(root, path)
            return _read(io.BytesIO(data), root, path, item_id, len(data))
        with there.open("rb") as file:
            return _read(file, root, path, item_id, size)
    except (UnreadableImageError, OSError):
        return None


def _read(
    file: BinaryIO, root: Path, path: str, item_id: str, size: int
) -> dict[str, Value] | None:
    head = file.read(HEAD)
    if is_clip(head):
        found = _clip(root, path, size)
    else:
        file.seek(0)
        found = _picture(file, file_format(head), size)
    return None if found is None else _BLANK | name_fields(item_id, path) | found


def _picture(file: BinaryIO, kind: str, size: int) -> dict[str, Value] | None:
    found = read_picture(file)
    if found is None or not found.width or not found.height:
        return None
    return _shape(found.width, found.height, size, size / (found.width * found.height)) | {
        "format": kind,
        "colour type": found.mode,
        "JPEG quality": float(found.tables.quality),
        "JPEG chroma quality": float(found.tables.chroma_quality),
        "JPEG luma table": found.tables.luma,
        "JPEG tables": found.tables.name,
        "number of JPEG tables": float(found.tables.number),
        "JPEG chroma": found.subsampling,
        "JPEG progressive": float(found.progressive),
        "Huffman tables of its own": float(found.layout.own_codes),
        "compression": found.compression,
        "PNG bit depth": float(found.layout.depth),
        "PNG interlaced": float(found.layout.interlaced),
        "PNG gamma": found.gamma,
        "bytes of a piece of the PNG": float(found.layout.piece),
        "parts of the file": found.layout.parts,
        "density": found.density,
        "EXIF": float(found.exif),
        "EXIF tags": found.tags,
        "EXIF orientation": float(found.orientation),
        "colour profile": float(found.profile),
        "name of the colour profile": found.profile_name,
        "software": found.software,
        "camera": found.camera,
        "PNG texts": found.texts,
        "comment": float(found.comment),
        "notes": found.notes,
    }


def _clip(root: Path, path: str, size: int) -> dict[str, Value] | None:
    with open_clip(root, path) as there:
        found = read_header(there)
    if not found.width or not found.height:
        return None
    return _timed(found.width, found.height, size, found.frames, found.seconds) | found.fields


def _timed(width: int, height: int, size: int, frames: int, seconds: float) -> dict[str, Value]:
    known = seconds > 0 and math.isfinite(seconds)
    return _shape(width, height, size, size / (width * height * max(1, frames))) | {
        "frames": float(frames) if frames else NONE,
        "seconds": seconds if known else NONE,
        "frames a second": round(frames / seconds, 2) if known and frames else NONE,
        "kbit a second": size * 8e-3 / seconds if known else NONE,
    }


def _shape(width: int, height: int, size: int, density: float) -> dict[str, Value]:
    return {
        "bytes": float(size),
        "bytes per pixel": density,
        "width": float(width),
        "height": float(height),
        "aspect": width / height,
    }
