"""A face detector by its name; a new one is imported here, and registers itself."""

from pathlib import Path

from src.faces import mtcnn, yunet  # noqa: F401 - they register themselves
from src.faces.detectors import DETECTORS, Detector


def make_detector(name: str, file: Path | None = None) -> Detector:
    """Return a detector.

    Args:
        name: in `DETECTORS`.
        file: its weights, for those that want a file.

    Raises:
        UserError: unknown name, or a file that is wanted and not there, or given and not wanted.
    """
    return DETECTORS.get(name)(file)
