"""The fields of a metadata audit: what is known of a file without decoding it."""

import io
import math
import os
import re
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from src.data.audit_clip import read_mp4
from src.data.audit_image import read_picture
from src.data.clips import HEAD, is_clip, open_clip
from src.data.images import UnreadableImageError
from src.data.scan import file_format
from src.data.sources import local_path, read_bytes
from src.data.video import probe
from src.data.walk import suffix_of

NONE = -1.0  # a number that this kind of file does not have
Value = float | str
# What a net may still see of a field, and hence what helps: how pixels were stored, their
# number, how a clip was recorded; `label` never reaches a net.
Family = Literal["storage", "shape", "clip", "label"]


class Field(NamedTuple):
    """One field.

    Attributes:
        name: for people.
        family: what remains of it for a net.
        absent: in words, that a file does not have it; "" where every file has it.
        kind: `image` or `video` where only those have it.
        words: its values are words, not numbers.
        yes: its numbers are 0 and 1.
    """

    name: str
    family: Family
    absent: str = ""
    kind: str = ""
    words: bool = False
    yes: bool = False


_JPEG = "it is no JPEG"
FIELDS = (
    Field("bytes", "storage"),
    Field("bytes per pixel", "storage"),
    Field("format", "storage", words=True),
    Field("extension", "label", words=True),
    Field("name length", "label"),
    Field("digits in the name", "label"),
    Field("number in the name", "label", "the name has no number"),
    Field("name prefix", "label", words=True),
    Field("width", "shape"),
    Field("height", "shape"),
    Field("aspect", "shape"),
    Field("colour type", "storage", kind="image", words=True),
    Field("JPEG quality", "storage", _JPEG, "image"),
    Field("JPEG luma table", "storage", _JPEG, "image"),
    Field("JPEG tables", "storage", kind="image", words=True),
    Field("JPEG chroma", "storage", kind="image", words=True),
    Field("JPEG progressive", "storage", _JPEG, "image", yes=True),
    Field("EXIF", "label", kind="image", yes=True),
    Field("colour profile", "label", kind="image", yes=True),
    Field("software", "label", words=True),
    Field("camera", "label", kind="image", words=True),
    Field("PNG texts", "label", kind="image", words=True),
    Field("codec", "storage", kind="video", words=True),
    Field("container brand", "label", kind="video", words=True),
    Field("frames", "clip", "the number of frames is not said", "video"),
    Field("seconds", "clip", "the duration is not said", "video"),
    Field("frames a second", "clip", "the frame rate is not said", "video"),
    Field("kbit a second", "storage", "the duration is not said", "video"),
    Field("audio", "label", "it is not known whether there is sound", "video", yes=True),
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
            return _read(io.BytesIO(read_bytes(root, path)), root, path, item_id, size)
        with there.open("rb") as file:
            return _read(file, root, path, item_id, size)
    except (UnreadableImageError, OSError):
        return None


def _read(
    file: BinaryIO, root: Path, path: str, item_id: str, size: int
) -> dict[str, Value] | None:
    head = file.read(HEAD)
    if is_clip(head):
        found = _clip(file, root, path, size)
    else:
        file.seek(0)
        found = _picture(file, file_format(head), size)
    return None if found is None else _BLANK | name_fields(item_id) | found


def name_fields(item_id: str) -> dict[str, Value]:
    """Return what an item's own name says, folders left aside."""
    stem = os.path.splitext(item_id.rsplit("/", 1)[-1])[0]  # noqa: PTH122
    digits = sum(letter.isdigit() for letter in stem)
    numbers = re.findall(r"[0-9]+", stem)
    prefix = re.match(r"[^0-9]*", stem)
    return {
        "extension": suffix_of(item_id),
        "name length": float(len(stem)),
        "digits in the name": digits / max(1, len(stem)),
        "number in the name": float(min(int(numbers[-1][-15:]), 10**12)) if numbers else NONE,
        "name prefix": prefix[0].rstrip("_- (").lower()[:20] if prefix else "",
    }


def _picture(file: BinaryIO, kind: str, size: int) -> dict[str, Value] | None:
    found = read_picture(file)
    if found is None or not found.width or not found.height:
        return None
    return _shape(found.width, found.height, size, size / (found.width * found.height)) | {
        "format": kind,
        "colour type": found.mode,
        "JPEG quality": float(found.quality),
        "JPEG luma table": found.luma,
        "JPEG tables": found.tables,
        "JPEG chroma": found.subsampling,
        "JPEG progressive": float(found.progressive),
        "EXIF": float(found.exif),
        "colour profile": float(found.profile),
        "software": found.software,
        "camera": found.camera,
        "PNG texts": found.texts,
    }


def _clip(file: BinaryIO, root: Path, path: str, size: int) -> dict[str, Value] | None:
    found = read_mp4(file, size)
    if found is None or not found.width or not found.height:
        return _any_clip(root, path, size)
    return _timed(found.width, found.height, size, found.frames, found.seconds) | {
        "format": "mp4",
        "software": found.software,
        "codec": found.codec,
        "container brand": found.brand,
        "audio": float(found.audio),
    }


def _any_clip(root: Path, path: str, size: int) -> dict[str, Value] | None:
    """Return the fields of a clip in another container, as OpenCV's FFmpeg tells them."""
    with open_clip(root, path) as there:
        found = probe(there)
    if not found.width or not found.height:
        return None
    return _timed(found.width, found.height, size, found.announced, found.duration) | {
        "format": suffix_of(path).removeprefix("."),
        "codec": found.codec,
    }


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
