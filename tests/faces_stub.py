"""A detector for tests: a face is a patch of pure red, and pictures of them."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from src.faces.crop import Face
from src.faces.detectors import DETECTORS, Detector

RED, GREY = (255, 0, 0), 60


class Red(Detector):
    """Finds red patches; `looked` counts the pictures of all instances."""

    identity = "red"
    batch = 4
    longest: int | None = None
    looked = 0

    def __init__(self, file: Path | None) -> None:
        pass

    def detect(self, pictures: Sequence[NDArray[np.uint8]]) -> list[list[Face]]:
        type(self).looked += len(pictures)
        return [self._look(picture) for picture in pictures]

    def _look(self, picture: NDArray[np.uint8]) -> list[Face]:
        red = (picture[..., 0] > 180) & (picture[..., 1] < 90)
        _, _, stats, _ = cv2.connectedComponentsWithStats(red.astype(np.uint8))
        boxes = [(x, y, x + w, y + h) for x, y, w, h, n in stats[1:].tolist() if n > 8]
        return [Face(tuple(map(float, box)), 0.99) for box in boxes]


def use_red(monkeypatch: pytest.MonkeyPatch) -> type[Red]:
    """Register the detector as `red`, its count at 0."""
    monkeypatch.setitem(DETECTORS._things, "red", Red)
    monkeypatch.setattr(Red, "looked", 0)
    return Red


def picture(*patches: tuple[int, int, int], size: tuple[int, int] = (48, 64)) -> NDArray[np.uint8]:
    """Return a grey picture, RGB, with red squares: (left, top, side) each."""
    found = np.full((*size, 3), GREY, np.uint8)
    for left, top, side in patches:
        found[top : top + side, left : left + side] = RED
    return found


def write_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a picture as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels[..., ::-1])


def write_film(path: Path, frames: Sequence[NDArray[np.uint8]]) -> None:
    """Write pictures as a clip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    code = cv2.VideoWriter.fourcc(*"mp4v")
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, 25.0, (width, height))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
