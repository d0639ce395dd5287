"""Items that are clips: found by content where a name lies, inside zips too."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from src.data.items.files import local_path, read_bytes
from src.data.pixels.formats import HEAD, file_format
from src.data.pixels.images import decode_image
from src.data.pixels.stills import decode
from src.data.pixels.video import Clip, Pick, read_frames
from src.data.pixels.video_decoders import Picture, UnreadableVideoError
from src.errors import UnreadableImageError

NAMED_AS_IMAGE = "it is a video under an image's name; its middle frame is used"
_CLIPS = (b"\x1aE\xdf\xa3", b"\0\0\x01\xba", b"\0\0\x01\xb3", b"FLV", b"OggS", b"\x30\x26\xb2\x75")
_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")  # an MP4 may begin with
# Lists of other files, which FFmpeg would go and fetch.
_LISTS = (b"#EXT", b"ffconcat", b"[playlist", b"<")


def is_clip(head: bytes) -> bool:
    """Tell whether a file's first bytes are those of a video container."""
    box = head[4:8] in _BOXES and not is_picture(head)
    riff = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    return box or riff or head.startswith(_CLIPS)


def is_picture(head: bytes) -> bool:
    """Tell whether a file's first bytes are those of an image."""
    return file_format(head) != "unknown"


def read_clip(
    root: Path,
    path: str,
    count: int,
    *,
    pick: Pick | None = None,
    convert: Callable[[Picture, int], Any] | None = None,
    decoder: str = "pyav",
) -> Clip:
    """Return frames of an item that is a clip, or named like one.

    Args:
        root: the data set's folder.
        path: as in the manifest.
        count, pick, convert, decoder: see `read_frames`.

    Returns:
        Its frames; an image under a clip's name has one, and `problem` says so.

    Raises:
        UnreadableImageError: see `read_frames`; or an image that cannot be decoded, or a list of
            other files.
        UserError: the file is not there any more.
    """
    with open_clip(root, path) as file:
        with file.open("rb") as stream:
            head = stream.read(HEAD)
        if not head:
            raise UnreadableVideoError("the file is empty (0 bytes)")
        if head.lstrip().startswith(_LISTS):
            raise UnreadableVideoError("it is a text that may name other files, and no video")
        if is_picture(head):
            if pick is not None and not len(pick(1)):
                raise UnreadableVideoError("it is an image under a clip's name: one frame")
            (picture,), damaged = decode(read_bytes(root, path), [None])
            frame = picture if convert is None else convert(picture, 0)
            problem = damaged or "it is an image under a clip's name"
            return Clip([frame], np.zeros(1, np.int64), 1, 1, problem)
        return read_frames(file, count, pick=pick, convert=convert, decoder=decoder)


def middle_frame(data: bytes) -> Picture:
    """Return the middle frame of a clip under an image's name, uint8 RGB (height, width, 3).

    Raises:
        UnreadableVideoError: see `read_frames`.
    """
    with _as_file(data, ".bin") as file:
        return read_frames(file, 1).frames[0]


def read_picture(root: Path, path: str) -> Picture:
    """Return an image item's picture, uint8 RGB (height, width, 3), a clip's middle frame.

    Raises:
        UnreadableImageError, UserError: see `read_bytes` and `decode_image`.
    """
    data = read_bytes(root, path)
    try:
        return decode_image(data)
    except UnreadableImageError:
        if not is_clip(data):
            raise
        return middle_frame(data)


@contextmanager
def open_clip(root: Path, path: str) -> Iterator[Path]:
    """Lend a path that a video library can open; a member of a zip is unpacked for so long.

    Raises:
        UnreadableImageError, UserError: see `files.read_bytes`.
    """
    there = local_path(root, path)
    if there is not None:
        try:
            there.open("rb").close()
        except OSError as error:
            raise UnreadableImageError(str(error)) from None
        yield there
        return
    with _as_file(read_bytes(root, path), Path(path).suffix) as file:
        yield file


@contextmanager
def _as_file(data: bytes, suffix: str) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        file.write(data)
        file.flush()
        yield Path(file.name)
