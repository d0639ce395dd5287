import cv2
import numpy as np
import pytest

from src.faces.crop import Face, crop_face, similarity, square_of

# insightface's template for 112 x 112 after its shift by 8, typed from its source once more.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
     [70.7299, 92.2041]]
)  # fmt: skip


@pytest.fixture
def picture():
    y, x = np.mgrid[:40, :60]
    return np.stack([x, y, x + y], 2).astype(np.uint8)


@pytest.mark.parametrize(
    ("box", "margin", "rows", "columns"),
    [
        ((20, 10, 30, 20), 1.4, slice(8, 22), slice(18, 32)),  # round the middle of the box
        ((20, 10, 24, 20), 1.0, slice(10, 20), slice(17, 27)),  # of its longer side
    ],
)
def test_the_square_has_the_margin_and_the_middle_of_the_box(picture, box, margin, rows, columns):
    crop = crop_face(picture, Face(box, 1), margin, align=False)
    assert np.array_equal(crop, picture[rows, columns])


@pytest.mark.parametrize("box", [(-5, -5, 5, 5), (55, 35, 65, 45), (0, 0, 60, 40), (58, 1, 60, 3)])
def test_a_square_over_the_edge_is_moved_into_the_picture(picture, box):
    left, top, side = square_of(box, 1.3, *picture.shape[:2])
    assert 0 <= left <= 60 - side
    assert 0 <= top <= 40 - side
    assert side == min(round(1.3 * max(box[2] - box[0], box[3] - box[1])), 40)
    crop = crop_face(picture, Face(box, 1), 1.3, align=False)
    assert np.array_equal(crop, picture[top : top + side, left : left + side])


def test_the_similarity_is_the_least_squares_one():
    rng = np.random.default_rng(1)
    for margin in (1.0, 1.3):
        points = rng.normal(size=(5, 2)) * 10 + 50
        goal = (TEMPLATE / 112 + (margin - 1) / 2) / margin
        # a x - b y + c, b x + a y + d: the same as linear equations.
        rows = [[x, -y, 1, 0] for x, y in points] + [[y, x, 0, 1] for x, y in points]
        a, b, c, d = np.linalg.lstsq(np.array(rows), goal.T.ravel(), rcond=None)[0]
        found = similarity(tuple(map(tuple, points)), margin)
        assert found == pytest.approx(np.array([[a, -b, c], [b, a, d]]), abs=1e-12)


def test_an_aligned_crop_undoes_a_turn():
    upright = np.full((150, 150, 3), 90, np.uint8)
    for x, y in TEMPLATE:
        cv2.circle(upright, (round(x + 19), round(y + 19)), 3, (255, 255, 255), -1)
    turn = cv2.getRotationMatrix2D((75, 75), 35, 1.0)
    turned = cv2.warpAffine(upright, turn, (150, 150), borderValue=(90, 90, 90))
    points = tuple(map(tuple, (TEMPLATE + 19) @ turn[:, :2].T + turn[:, 2]))
    face = Face((40, 40, 110, 110), 1, points)
    crop = crop_face(np.asarray(turned, np.uint8), face, 1.3, align=True)
    side = crop.shape[0]
    assert side == pytest.approx(112 * 1.3, abs=1)
    places = (TEMPLATE / 112 + 0.15) / 1.3 * side
    bright = [crop[round(y), round(x), 0] for x, y in places]
    assert min(bright) > 200
    assert crop[5, 5, 0] == 90


def test_points_that_fall_together_leave_the_plain_square(picture):
    face = Face((20, 10, 30, 20), 1, ((25.0, 15.0),) * 5)
    plain = crop_face(picture, face._replace(points=None), 1.3, align=True)
    assert np.array_equal(crop_face(picture, face, 1.3, align=True), plain)
    assert similarity(face.points, 1.3) is None


def test_nearly_equal_points_ask_for_no_giant_square(picture):
    wide = tuple((1e4 * k, 1e4 * (k % 3)) for k in range(5))
    crop = crop_face(picture, Face((20, 10, 30, 20), 1, wide), 1.0, align=True)
    assert crop.shape == (10, 10, 3)
