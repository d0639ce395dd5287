"""Faces cut out of pictures: a square with a margin, or turned upright by five points."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

# The 112 x 112 template of ArcFace (Deng et al. 2019), x moved by 8 as in insightface's and
# DeepfakeBench's (Yan et al. 2023) `img_align_crop`: eyes, nose, corners of the mouth, x + iy as
# shares of the square's side.
_TEMPLATE = (
    np.array([38.2946, 73.5318, 56.0252, 41.5493, 70.7299])
    + 1j * np.array([51.6963, 51.5014, 71.7366, 92.3655, 92.2041])
) / 112
_LARGEST = 2**15 - 1  # px: what OpenCV's warp can address
_SPREAD = 2.0  # an aligned square is at most so many times the picture's longer side

Picture = NDArray[np.uint8]


Box = tuple[float, float, float, float]
# x, y of: the eye at the left of the picture, the other eye, nose, the corners of the mouth.
Points = tuple[tuple[float, float], ...]


class Face(NamedTuple):
    """A face, in pixels of its picture."""

    box: Box  # x0, y0, x1, y1; may reach over the edge of the picture
    score: float  # how sure the detector is, 0 to 1
    points: Points | None = None  # five of them, see `Points`; None where the detector gives none


def area(box: Box) -> float:
    """Return the area of a box in square pixels; 0 where its corners are the wrong way round."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def iou(one: Box, other: Box) -> float:
    """Return intersection over union of two boxes, 0 to 1."""
    low = max(one[0], other[0]), max(one[1], other[1])
    shared = area((*low, min(one[2], other[2]), min(one[3], other[3])))
    union = area(one) + area(other) - shared
    return shared / union if union > 0 else 0.0


def between(one: Face, other: Face, share: float) -> Face:
    """Return the face that lies `share` (0 to 1) of the way from one to another."""
    x0, y0, x1, y1 = (a + share * (b - a) for a, b in zip(one.box, other.box, strict=True))
    points = None
    if one.points is not None and other.points is not None:
        pairs = zip(one.points, other.points, strict=True)
        points = tuple((x + share * (u - x), y + share * (v - y)) for (x, y), (u, v) in pairs)
    return Face((x0, y0, x1, y1), min(one.score, other.score), points)


def scaled(face: Face, across: float, down: float) -> Face:
    """Return a face of a picture that was made so many times as wide and as high."""
    x0, y0, x1, y1 = face.box
    points = face.points and tuple((across * x, down * y) for x, y in face.points)
    return Face((across * x0, down * y0, across * x1, down * y1), face.score, points)


def moved(face: Face, right: float, down: float) -> Face:
    """Return a face so many pixels farther right and down."""
    x0, y0, x1, y1 = face.box
    points = face.points and tuple((x + right, y + down) for x, y in face.points)
    return Face((x0 + right, y0 + down, x1 + right, y1 + down), face.score, points)


def inside(faces: list[Face], picture: NDArray) -> list[Face]:
    """Return the faces at least half of whose box lies in the picture."""
    height, width = picture.shape[:2]

    def seen(box: Box) -> float:
        return area((max(0.0, box[0]), max(0.0, box[1]), min(width, box[2]), min(height, box[3])))

    return [face for face in faces if 2 * seen(face.box) >= area(face.box) > 0]


def crop_face(picture: Picture, face: Face, margin: float, *, align: bool) -> Picture:
    """Cut a face out of a picture, at its own resolution: (height, width, 3) to (side, side, 3).

    A square that reaches over the picture's edge is moved into it, and is smaller where the
    picture is: no pixel is made up. (Mirrored borders show further eyes, black ones tell how near
    to the edge a face was.) Only an aligned square may have corners outside; there the edge goes
    on.

    The square's side is `margin` times the longer side of the box (FaceForensics++ and FSFM take
    1.3); with `align` the face is turned upright and to a common place by its points, and `margin`
    is the size of the square over that of the template (so DeepfakeBench). A face without points,
    or with points that fall together, is cut out as it is.
    """
    if align and face.points is not None and max(picture.shape) <= _LARGEST:
        aligned = _aligned(picture, face.points, margin)
        if aligned is not None:
            return aligned
    left, top, side = square_of(face.box, margin, *picture.shape[:2])
    return np.ascontiguousarray(picture[top : top + side, left : left + side])


def square_of(box: Box, margin: float, height: int, width: int) -> tuple[int, int, int]:
    """Return left, top and side in whole pixels of the square around a box, inside a picture."""
    x0, y0, x1, y1 = box
    side = min(max(1, round(margin * max(x1 - x0, y1 - y0))), height, width)
    left, top = round((x0 + x1 - side) / 2), round((y0 + y1 - side) / 2)
    return min(max(0, left), width - side), min(max(0, top), height - side), side


def similarity(points: Points, margin: float) -> NDArray[np.float64] | None:
    """Return the (2, 3) similarity that best takes five points to the unit square's template.

    Least squares over turn, scale and shift (Umeyama 1991, without mirroring), solved with
    complex numbers. The template is drawn together around the middle by `margin`. None where the
    points fall together.
    """
    target = (_TEMPLATE + (1 + 1j) * (margin - 1) / 2) / margin
    source = np.array(points, np.float64) @ np.array([1, 1j])
    centred = source - source.mean()
    spread = float((np.abs(centred) ** 2).sum())
    if not spread > 0:
        return None
    turn = complex(np.vdot(centred, target - target.mean()) / spread)
    if abs(turn) == 0 or not np.isfinite(abs(turn)):
        return None
    shift = complex(target.mean() - turn * source.mean())
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def _aligned(picture: Picture, points: Points, margin: float) -> Picture | None:
    matrix = similarity(points, margin)
    if matrix is None:
        return None
    side = round(1 / float(np.hypot(matrix[0, 0], matrix[1, 0])))
    if not 0 < side <= min(_LARGEST, _SPREAD * max(picture.shape[:2])):
        return None
    turned = cv2.warpAffine(
        picture,
        matrix * side,
        (side, side),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.ascontiguousarray(turned, np.uint8)
