"""What finds faces: one registered interface, so that a better detector is a line of config.

From a model's config to the detector whose faces it sees, or what stands for one whose file is
gone. A new detector is a file of this folder, which registers itself.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from src import paths
from src.artifacts.files import sha256_file
from src.config import FaceConfig, ModelConfig
from src.errors import UserError
from src.faces.crop import Face, Picture, inside, scaled
from src.faces.tracks import SURE
from src.registry import Registry

CROPPING = 2  # version of tracking and cutting out: pixels cut out otherwise are made again


class Detector(Protocol):
    """Finds the faces in pictures."""

    identity: str  # name and everything that decides what is found; boxes on disk are kept under it
    # so many pictures are handed over at once, at most; where it is 1, from several threads
    batch: int
    longest: int | None  # px; a larger picture is looked at at this size. None takes any as it is.
    sure: float = SURE  # score from which a face is hardly ever a piece of background

    def detect(self, pictures: Sequence[Picture]) -> list[list[Face]]:
        """Return the faces of each picture (uint8 RGB, height, width, 3), in any order."""
        ...

    def exact(self, picture: Picture, face: Face) -> Face:
        """Return a face found in a picture with points good enough to turn it upright by.

        Only asked for where a crop is aligned, so a detector may find them more slowly there.
        """
        del picture
        return face


# A function from the detector's file (None where the config names none) to a `Detector`; it loads
# nothing heavy before the first picture.
DETECTORS: Registry[Callable[[Path | None], Detector]] = Registry("face detector")


class Shrunk(NamedTuple):
    """A picture at the size at which a detector looks at it, and its size before."""

    picture: Picture
    height: int
    width: int


def shrink(picture: Picture, detector: Detector) -> Shrunk:
    """Bring a picture (uint8 RGB, height, width, 3) to the size a detector looks at it."""
    height, width = picture.shape[:2]
    if detector.longest is None or max(height, width) <= detector.longest:
        return Shrunk(picture, height, width)
    scale = detector.longest / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return Shrunk(np.asarray(small, np.uint8), height, width)


def detect_each(
    detector: Detector, pictures: Sequence[Shrunk], pool: Executor | None = None
) -> list[list[Face]]:
    """Return the faces of each picture in pixels of its size before, the surest first.

    Those that lie outside of it are left out. A detector of single pictures looks at several side
    by side where there is a pool of threads.
    """
    found: list[list[Face]] = []
    starts = range(0, len(pictures), detector.batch)
    parts = [pictures[start : start + detector.batch] for start in starts]
    spread = map if pool is None or detector.batch > 1 else pool.map
    for part, seen in zip(
        parts,
        spread(lambda part: detector.detect([one.picture for one in part]), parts),
        strict=True,
    ):
        for one, faces in zip(part, seen, strict=True):
            across, down = one.width / one.picture.shape[1], one.height / one.picture.shape[0]
            kept = [scaled(face, across, down) for face in inside(faces, one.picture)]
            found.append(sorted(kept, key=lambda face: -face.score))
    return found


@DETECTORS.register("whole")
class Whole(Detector):
    """No detector: the whole picture stands for a face."""

    identity = "whole"
    batch = 64
    longest: int | None = None

    def __init__(self, file: Path | None) -> None:
        refuse_file("whole", file)

    def detect(self, pictures: Sequence[Picture]) -> list[list[Face]]:
        """See `Detector`."""
        shapes = [picture.shape for picture in pictures]
        return [[Face((0.0, 0.0, float(s[1]), float(s[0])), 1.0)] for s in shapes]


def refuse_file(name: str, file: Path | None) -> None:
    """Raise a UserError where a detector is given a file that it would not read."""
    if file is not None:
        raise UserError(f"face.detector_file: {name} reads no file; leave it out (null)")


class AbsentDetector(Detector):
    """Stands for a checkpoint's detector, whose weights are not there, until a picture comes."""

    batch = 1
    longest: int | None = None

    def __init__(self, name: str, file: Path, sha256: str) -> None:
        self.identity = f"{name}-{sha256[:12]}-absent"
        self._file, self._sha256 = file, sha256

    def detect(self, pictures: Sequence[Picture]) -> list[list[Face]]:
        """See `Detector`.

        Raises:
            UserError: a picture is shown.
        """
        if not pictures:
            return []
        raise UserError(
            f"face.detector_file: {self._file} is not there, and faces must be looked for with "
            f"it; put the file of SHA-256 {self._sha256[:12]}... there (or say `faces: cropped` in "
            "dataset.yaml, where the pictures are faces already)"
        )


def face_spec(config: ModelConfig) -> FaceConfig | None:
    """Return how a model's faces are cut out, with the checksum of its detector's file.

    So it travels with the weights. None for a model that sees the whole picture.

    Raises:
        UserError: unknown detector, or one whose file is not there.
    """
    if config.input.crop != "face":
        return None
    face = config.face
    detector_of(face)
    if face.detector_file is None:
        return face
    return replace(face, detector_sha256=sha256_file(_file(face.detector_file)))


def detector_of(face: FaceConfig) -> Detector:
    """Return the detector of a config or a checkpoint; it loads nothing heavy yet.

    A checkpoint's file that is gone is asked for by the first picture: items that are cropped
    already, or whose pixels are kept, need none.

    Raises:
        UserError: unknown detector, or a file that is not there, or not the one of the checkpoint.
    """
    file = None if face.detector_file is None else detector_file(face)
    if file is not None and face.detector_sha256 and not file.is_file():
        return AbsentDetector(face.detector, file, face.detector_sha256)
    detector = DETECTORS.get(face.detector)(file)
    if file is not None and face.detector_sha256 not in ("", sha256_file(file)):
        raise UserError(
            f"{file} is not the detector that this model was trained with (SHA-256 "
            f"{face.detector_sha256[:12]}...); put that file there"
        )
    return detector


def face_key(face: FaceConfig) -> list[object]:
    """Return everything beside its file that decides how an item's faces are cut out."""
    return [CROPPING, detector_of(face).identity, face.margin, face.align]


def detector_file(face: FaceConfig) -> Path:
    """Return where the file of a detector that has one is: what a bundle brought comes first."""
    name = face.detector_file or ""
    packed = paths.packed_detector(face.detector_sha256, name)
    brought = face.detector_sha256 and paths.bundle_contents().is_file() and packed.is_file()
    return packed if brought else _file(name)


def _file(name: str) -> Path:
    """Return a file named in a config: as it stands, or below the artefacts or the clone."""
    places = [Path(name), paths.root() / name, paths.REPO / name]
    return next((place for place in places if place.is_file()), places[0])
