"""One look at a clip: can it be decoded, how long is it, of how many frames."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from src.data.clips import open_clip, read_clip
from src.data.hashes import perceptual_hashes
from src.data.images import UnreadableImageError


class Look(NamedTuple):
    """What was found in one file.

    Attributes:
        width, height: pixels, upright; 0 if it cannot be read.
        sha256: of the file's bytes.
        phash, phash_flip, hashable: see `perceptual_hashes`; of a clip those of its middle frame:
            copies stored again, and often a face swap and its original, are known by it.
        format: by the first bytes; `video` for what is named as a clip.
        error: "" or why it cannot be read.
        fps, duration, codec, announced: of a clip, see `ClipInfo`.
        frames: of a clip, those that can be decoded.
        note: "" or what is odd about a file that can be read.
    """

    width: int
    height: int
    sha256: str
    phash: int
    phash_flip: int
    hashable: bool
    format: str
    error: str
    fps: float = 0.0
    duration: float = 0.0
    codec: str = ""
    announced: int = 0
    frames: int = 0
    note: str = ""


def look_at_clip(root: Path, path: str) -> Look:
    """Read a clip from its start to its end; never raises for a file that is merely broken."""
    digest = ""
    try:
        with open_clip(root, path) as file:
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            clip = read_clip(
                root, path, 1, convert=lambda frame, _: (frame.shape, perceptual_hashes(frame))
            )
    except UnreadableImageError as error:
        return Look(0, 0, digest, 0, 0, False, "video", str(error) or "not decodable")
    (height, width, _), (phash, flip, hashable) = clip.frames[0]
    info = clip.info
    note = "; ".join(filter(None, (clip.problem, info.colours)))
    return Look(
        width, height, digest, phash, flip, hashable, "video", "", info.fps, info.duration,
        info.codec, clip.announced, clip.decoded, note,
    )  # fmt: skip
