"""The fields of a metadata audit: what is known of a file without decoding it."""

import io
import math
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, cast

from src.data.audit.headers import NONE, Value, clip_fields, name_fields, picture_fields
from src.data.items.files import local_path, read_bytes
from src.data.pixels.formats import HEAD, file_format, is_clip
from src.data.pixels.video import open_clip
from src.errors import UnreadableImageError

# What a net may still see of a field, and hence what helps: how pixels were stored, their
# number, how a clip was recorded; `label` never reaches a net.
Family = Literal["storage", "shape", "clip", "label"]


class Field(NamedTuple):
    """One field."""

    name: str  # for people
    family: Family  # what remains of it for a net
    absent: str = ""  # in words, that a file does not have it; "" where every file has it
    words: bool = False  # its values are words, not numbers
    yes: bool = False  # its numbers are 0 and 1


PATTERN = "name pattern"
FIELDS = (
    Field("bytes", "storage"),
    Field("bytes per pixel", "storage"),
    Field("format", "storage", words=True),
    Field("extension", "label", words=True),
    Field("name length", "label"),
    Field("number in the name", "label", "the name has no number"),
    Field(PATTERN, "label", words=True),
    Field("width", "shape"),
    Field("height", "shape"),
    Field("aspect", "shape"),
    Field("software", "label", words=True),
    # of pictures
    Field("colour type", "storage", words=True),
    Field("JPEG quality", "storage", "it is no JPEG"),
    Field("JPEG chroma quality", "storage", "it is no JPEG in colour"),
    Field("JPEG tables", "storage", words=True),
    Field("JPEG chroma", "storage", words=True),
    Field("JPEG progressive", "storage", "it is no JPEG", yes=True),
    Field("compression", "storage", words=True),
    Field("parts of the file", "label", words=True),
    Field("density", "label", words=True),
    Field("EXIF tags", "label", words=True),
    Field("EXIF orientation", "label", "no EXIF orientation"),
    Field("colour profile", "label", words=True),
    Field("camera", "label", words=True),
    Field("notes", "label", words=True),
    # of clips
    Field("codec", "storage", words=True),
    Field("codec profile", "storage", words=True),
    Field("pixel format", "storage", words=True),
    Field("encoder", "storage", words=True),
    Field("frames between keys", "storage", "key frames are not said"),
    Field("container brand", "label", words=True),
    Field("handler", "label", words=True),
    Field("frames", "clip", "the number of frames is not said"),
    Field("seconds", "clip", "the duration is not said"),
    Field("frames a second", "clip", "the frame rate is not said"),
    Field("kbit a second", "storage", "the duration is not said"),
    Field("sound codec", "label", words=True),
)
_BLANK: dict[str, Value] = {field.name: "" if field.words else NONE for field in FIELDS}


def fields_of(root: Path, path: str, item_id: str, size: int) -> dict[str, Value] | None:
    """Return the fields of one item by name; None where its header cannot be read.

    A file in a folder is read as far as its header goes, a member of a zip whole (it is unpacked
    from its start anyway). The kind is that of the content, whatever the name says; of `item_id`
    the last part is looked at, folders often are the label. `size` is the file's, in bytes.

    Raises:
        UserError: the file is not there any more.
    """
    try:
        there = local_path(root, path)
        if there is None:
            data = read_bytes(root, path)
            found = _read(io.BytesIO(data), root, path, len(data))
        else:
            with there.open("rb") as file:
                found = _read(file, root, path, size)
    except (UnreadableImageError, OSError):
        return None
    return None if found is None else _BLANK | name_fields(item_id, path) | found


def _read(file: BinaryIO, root: Path, path: str, size: int) -> dict[str, Value] | None:
    head = file.read(HEAD)
    if is_clip(head):
        with open_clip(root, path) as there:
            found = clip_fields(there)
        found |= _over_time(size, cast(float, found["frames"]), cast(float, found["seconds"]))
    else:
        file.seek(0)
        found = picture_fields(file)
        if found is not None:
            found["format"] = file_format(head)
    if found is None or not found["width"] or not found["height"]:
        return None
    width, height = cast(float, found["width"]), cast(float, found["height"])
    frames = max(1.0, cast(float, found.get("frames", NONE)))
    return found | {
        "bytes": float(size),
        "bytes per pixel": size / (width * height * frames),
        "aspect": width / height,
    }


def _over_time(size: int, frames: float, seconds: float) -> dict[str, Value]:
    known = seconds > 0 and math.isfinite(seconds)
    return {
        "frames": frames or NONE,
        "seconds": seconds if known else NONE,
        "frames a second": round(frames / seconds, 2) if known and frames else NONE,
        "kbit a second": size * 8e-3 / seconds if known else NONE,
    }
