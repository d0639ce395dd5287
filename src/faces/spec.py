"""From a model's config to the faces it sees."""

from dataclasses import replace
from pathlib import Path

from src import paths
from src.artifacts.files import sha256_file
from src.config import FaceConfig, ModelConfig
from src.errors import UserError
from src.faces.detectors import AbsentDetector, Detector
from src.faces.make import make_detector

CROPPING = 2  # version of tracking and cutting out: pixels cut out otherwise are made again


def face_spec(config: ModelConfig) -> FaceConfig | None:
    """Return how a model's faces are cut out, as it travels with its weights.

    Returns:
        With the checksum of the detector's file; None for a model that sees the whole picture.

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
    detector = make_detector(face.detector, file)
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
