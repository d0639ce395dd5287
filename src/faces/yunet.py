"""YuNet (Wu et al. 2023) from a user's ONNX file, through OpenCV."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from src.artifacts.files import sha256_file
from src.errors import UserError
from src.faces.crop import Face, Picture
from src.faces.detectors import DETECTORS, Detector
from src.faces.parts import MARGIN, look_again

LONGEST = 640
MIN_SCORE = 0.8


@DETECTORS.register("yunet")
class YuNet(Detector):
    """Boxes and five points, on the CPU; fast."""

    batch = 16
    longest: int | None = LONGEST

    def __init__(self, file: Path | None) -> None:
        if file is None:
            raise UserError(
                "face.detector: yunet wants face.detector_file: PATH of a YuNet .onnx file "
                "(face_detection_yunet_*.onnx of OpenCV's model zoo)"
            )
        if not file.is_file():
            raise UserError(f"face.detector_file: {file} is not there")
        self.identity = f"yunet-{sha256_file(file)[:12]}-{LONGEST}-{MIN_SCORE}-{MARGIN}"
        self._file = file
        self._net: cv2.FaceDetectorYN | None = None

    def detect(self, pictures: Sequence[Picture]) -> list[list[Face]]:
        """See `Detector`; a picture with a face over its edge is looked at again, with a margin.

        Raises:
            UserError: the file is not a YuNet.
        """
        return look_again(lambda some: [self._look(one) for one in some], pictures)

    def _look(self, picture: Picture) -> list[Face]:
        height, width = picture.shape[:2]
        try:
            if self._net is None:
                self._net = cv2.FaceDetectorYN.create(str(self._file), "", (320, 320), MIN_SCORE)
            self._net.setInputSize((width, height))
            rows = self._net.detect(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
        except cv2.error as error:
            raise UserError(
                f"face.detector_file: {self._file} is not a YuNet that OpenCV can run "
                f"({error.err or error})"
            ) from None
        return [] if rows is None else [_face(row, float(row[14])) for row in rows]


def _face(row: np.ndarray, score: float) -> Face:
    """Read a row of OpenCV: x, y, width, height, five points (the person's right eye first)."""
    x, y, width, height = (float(value) for value in row[:4])
    points = tuple((float(a), float(b)) for a, b in row[4:14].reshape(5, 2))
    return Face((x, y, x + width, y + height), score, points)
