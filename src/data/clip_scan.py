"""One look at a clip: can it be decoded, how long is it, of how many frames."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from src.data.clips import open_clip, read_clip
from src.data.hashes import perceptual_hashes
from src.data.images import UnreadableImageError
from src.data.video import probe
from src.data.video_decoders import ClipInfo


class ClipLook(NamedTuple):
    """What was found in one clip.

    Attributes:
        width, height: pixels, upright; 0 if it cannot be read.
        sha256: of the file's bytes.
        hashes: of its middle frame, see `perceptual_hashes`: copies stored again, and often a face
            swap and its original, are known by it.
        error: "" or why it cannot be read.
        fps, duration, codec, announced: see `ClipInfo`.
        frames: number of frames that can be decoded.
        note: "" or what is wrong with a clip that was read only in part.
    """

    width: int
    height: int
    sha256: str
    hashes: tuple[int, int, bool] = (0, 0, False)
    error: str = ""
    fps: float = 0.0
    duration: float = 0.0
    codec: str = ""
    announced: int = 0
    frames: int = 0
    note: str = ""


def look_at_clip(root: Path, path: str) -> ClipLook:
    """Read a clip from its start to its end; never raises for a file that is merely broken."""
    digest, info = "", ClipInfo(0.0, 0.0, "", 0, 0, 0, 0)
    try:
        with open_clip(root, path) as file:
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            clip = read_clip(
                root, path, 1, convert=lambda frame, _: (frame.shape, perceptual_hashes(frame))
            )
            if not clip.problem or clip.announced > 1:
                info = probe(file)
    except UnreadableImageError as error:
        return ClipLook(0, 0, digest, error=str(error) or "not decodable")
    (height, width, _), hashes = clip.frames[0]
    about = (info.fps, info.duration, info.codec, clip.announced, clip.decoded)
    return ClipLook(width, height, digest, hashes, "", *about, clip.problem)
