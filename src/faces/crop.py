"""Faces cut out of pictures: a square with a margin, or turned upright by five points."""

import cv2
import numpy as np
from numpy.typing import NDArray

from src.faces.boxes import Box, Face, Points

# The 112 x 112 template of ArcFace (Deng et al. 2019), x moved by 8 as in insightface's and
# DeepfakeBench's (Yan et al. 2023) `img_align_crop`: eyes, nose, corners of the mouth, as shares
# of the square's side.
_ARCFACE = (
    np.array(
        [
            [38.2946, 51.6963],
            [73.5318, 51.5014],
            [56.0252, 71.7366],
            [41.5493, 92.3655],
            [70.7299, 92.2041],
        ]
    )
    / 112
)
_LARGEST = 2**15 - 1  # px: what OpenCV's warp can address
_SPREAD = 2.0  # an aligned square is at most so many times the picture's longer side

Picture = NDArray[np.uint8]


def crop_face(picture: Picture, face: Face, margin: float, *, align: bool) -> Picture:
    """Cut a face out of a picture, at the picture's own resolution.

    A square that reaches over the picture's edge is moved into it, and is smaller where the
    picture is: no pixel is made up. (Mirrored borders show further eyes, black ones tell how near
    to the edge a face was.) Only an aligned square may have corners outside; there the edge goes
    on.

    Args:
        picture: uint8 RGB (height, width, 3).
        face: where.
        margin: side of the square over the longer side of the box; FaceForensics++ and FSFM take
            1.3. Aligned: size of the square over that of the template; so DeepfakeBench.
        align: turn the face upright and to a common place by its points; a face without points,
            or with points that fall together, is cut out as it is.

    Returns:
        uint8 RGB (side, side, 3), contiguous.
    """
    if align and face.points is not None and max(picture.shape) <= _LARGEST:
        aligned = _aligned(picture, face.points, margin)
        if aligned is not None:
            return aligned
    return _square(picture, face.box, margin)


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
    goal = (_ARCFACE + (margin - 1) / 2) / margin
    source = np.array(points, np.float64) @ np.array([1, 1j])
    target = goal @ np.array([1, 1j])
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


def _square(picture: Picture, box: Box, margin: float) -> Picture:
    height, width = picture.shape[:2]
    left, top, side = square_of(box, margin, height, width)
    return np.ascontiguousarray(picture[top : top + side, left : left + side])
