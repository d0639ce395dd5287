"""The file itself: what it is against what it is called, and the tags of a clip (PyAV)."""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import PurePath

from src.data.audit.headers import clip_fields
from src.data.pixels.formats import describe_unknown, named
from src.data.pixels.video_decoders import open_video
from src.data.provenance.finding import (
    DAMAGED,
    HINT,
    STATED,
    UNSUPPORTED,
    Finding,
    because,
    finding,
)  # fmt: skip
from src.data.provenance.generators import of_text
from src.data.provenance.opened import CLIP, READERS, UNKNOWN, OpenedFile
from src.data.provenance.source_types import of_credit, of_software
from src.errors import UnreadableImageError

SOURCE = "container"
MOST_TAGS = 60
_ALIKE = {
    "jpg": "jpeg", "jpe": "jpeg", "jfif": "jpeg", "jif": "jpeg", "pjpeg": "jpeg", "mpo": "jpeg",
    "apng": "png", "tif": "tiff", "heif": "heic", "hif": "heic", "j2k": "jp2", "jpx": "jp2",
    "dng": "tiff", "nef": "tiff", "arw": "tiff", "cr2": "tiff", "pnm": "ppm",
}  # fmt: skip
_PICTURES = ("jpeg", "png", "gif", "bmp", "tiff", "webp", "avif", "heic", "jp2")
# Of tags the last part of the name: `com.apple.quicktime.make` is a make.
_TOOLS = ("encoder", "software", "encoded_by", "application", "creator", "writing_library")
_CAMERA = ("make", "model", "manufacturer")
_TIMES = ("creation_time", "creationdate", "date", "modification_time", "date_recorded")
_DULL = ("major_brand", "minor_version", "compatible_brands", "language", "vendor_id", "rotate")


@READERS.register(SOURCE)
def read_container(file: OpenedFile) -> Iterator[Finding]:
    """Yield a name that does not fit, and the tags of a clip.

    Raises:
        NotReadError: neither picture nor clip, or a clip that cannot be opened.
    """
    if file.kind == UNKNOWN:
        raise because(UNSUPPORTED, describe_unknown(file.head))
    suffix = PurePath(file.name).suffix.lower().lstrip(".")
    suffix = _ALIKE.get(suffix, suffix)
    if suffix in _PICTURES and suffix != file.kind:
        what = "a clip" if file.kind == CLIP else named(file.kind)
        yield finding(SOURCE, "name", f"{what}, called .{suffix}", "renamed", HINT)
    if file.kind == CLIP:
        yield from _of_clip(file)


def _of_clip(file: OpenedFile) -> Iterator[Finding]:
    try:
        fields = clip_fields(file.path)
        clip, _ = open_video(file.path)
    except UnreadableImageError as error:
        raise because(DAMAGED, error) from None
    with clip:
        yield from _of_tags("", clip.metadata)
        for stream in islice(clip.streams, 8):
            yield from _of_tags(f"{stream.type}: ", stream.metadata)
    if fields["encoder"]:
        yield finding(SOURCE, "encoder of the pictures", fields["encoder"], "writer", HINT)
    if fields["container brand"]:
        yield finding(SOURCE, "major_brand", fields["container brand"], "parts", HINT)


def _of_tags(where: str, tags: Mapping[str, str]) -> Iterator[Finding]:
    for key, value in islice(tags.items(), MOST_TAGS):
        name = key.lower().rsplit(".", 1)[-1]
        if name in _DULL or not value:
            continue
        yield from list(of_text(SOURCE, key, value)) or [_of_tag(f"{where}{key}", name, value)]


def _of_tag(field: str, name: str, value: str) -> Finding:
    if name in _TOOLS:
        return finding(SOURCE, field, value, of_software(value), STATED)
    if name in _CAMERA:
        return finding(SOURCE, field, value, "camera", STATED)
    if name in _TIMES:
        return finding(SOURCE, field, value, "time", STATED)
    if name.startswith(("location", "iso6709", "gps", "xyz")):
        return finding(SOURCE, field, "a place is given (not shown)", "place", STATED)
    if name == "handler_name":
        return finding(SOURCE, field, value, "parts", HINT)
    return finding(SOURCE, field, value, of_credit(value, "note"), STATED)
