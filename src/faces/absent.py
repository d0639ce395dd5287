"""A detector whose file is gone, for what is predicted without looking for a face."""

from collections.abc import Sequence
from pathlib import Path

from src.errors import UserError
from src.faces.boxes import Face
from src.faces.detectors import Picture


class AbsentDetector:
    """Stands for a checkpoint's detector as long as no picture is shown to it.

    Args:
        name: in `DETECTORS`.
        file: where its weights were looked for last.
        sha256: of these weights.
    """

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
