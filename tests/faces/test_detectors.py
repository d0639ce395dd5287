import builtins
import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from src.errors import UserError
from src.faces import mtcnn
from src.faces.crop import Face, iou
from src.faces.detectors import DETECTORS, detect_each, shrink


class Corner:
    """Finds one face, in the upper left quarter of what it is shown."""

    identity = "corner"
    batch = 2
    longest = 40

    def __init__(self):
        self.seen = []

    def detect(self, pictures):
        self.seen.append([p.shape[:2] for p in pictures])
        return [[Face((0, 0, p.shape[1] / 2, p.shape[0] / 2), 0.9)] for p in pictures]


def test_pictures_are_shrunk_before_and_boxes_enlarged_after():
    detector = Corner()
    sizes = [(80, 160), (20, 30), (100, 100)]
    pictures = [shrink(np.zeros((*size, 3), np.uint8), detector) for size in sizes]
    found = detect_each(detector, pictures)
    assert [faces[0].box for faces in found] == [(0, 0, w / 2, h / 2) for h, w in sizes]
    assert detector.seen == [[(20, 40), (20, 30)], [(40, 40)]]


def test_the_surest_comes_first_and_faces_outside_are_gone():
    class Two(Corner):
        def detect(self, pictures):
            weak, sure, gone = Face((0, 0, 4, 4), 0.8), Face((1, 1, 5, 5), 0.9), (90, 90, 95, 95)
            return [[weak, sure, Face(gone, 1.0)] for _ in pictures]

    picture = shrink(np.zeros((20, 20, 3), np.uint8), Two())
    assert [face.score for face in detect_each(Two(), [picture])[0]] == [0.9, 0.8]


def test_whole_is_the_whole_picture():
    detector = DETECTORS.get("whole")(None)
    picture = shrink(np.zeros((500, 1000, 3), np.uint8), detector)
    assert detect_each(detector, [picture]) == [[Face((0, 0, 1000, 500), 1.0)]]


def test_an_unknown_detector_lists_the_known_ones():
    with pytest.raises(UserError, match=r"unknown face detector 'mtcn'.*did you mean 'mtcnn'"):
        DETECTORS.get("mtcn")(None)
    assert {"blazeface", "mtcnn", "yunet", "whole"} <= set(DETECTORS.names())


def test_files_that_are_missing_unwanted_or_no_detector(tmp_path):
    with pytest.raises(UserError, match=r"yunet wants face\.detector_file"):
        DETECTORS.get("yunet")(None)
    with pytest.raises(UserError, match=r"none\.onnx is not there"):
        DETECTORS.get("yunet")(tmp_path / "none.onnx")
    with pytest.raises(UserError, match="mtcnn reads no file"):
        DETECTORS.get("mtcnn")(tmp_path / "some.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a net")
    picture = shrink(np.zeros((20, 20, 3), np.uint8), DETECTORS.get("yunet")(broken))
    with pytest.raises(UserError, match="not a YuNet that OpenCV can run"):
        detect_each(DETECTORS.get("yunet")(broken), [picture])


def test_without_the_package_the_message_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name.startswith("facenet_pytorch"):
            raise ImportError("No module named 'facenet_pytorch'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    picture = shrink(np.zeros((40, 40, 3), np.uint8), DETECTORS.get("whole")(None))
    with pytest.raises(UserError, match=r"pip install --no-deps facenet-pytorch==2\.6\.0"):
        detect_each(DETECTORS.get("mtcnn")(None), [picture])


def test_a_detector_of_single_pictures_looks_at_several_side_by_side():
    class Slow(Corner):
        batch = 1

        def detect(self, pictures):
            meeting.wait()  # breaks where no second thread comes
            return super().detect(pictures)

    meeting = threading.Barrier(2, timeout=20)
    pictures = [shrink(np.zeros((20, 30 + k, 3), np.uint8), Slow()) for k in range(4)]
    with ThreadPoolExecutor(2) as pool:
        found = detect_each(Slow(), pictures, pool)
    assert [faces[0].box for faces in found] == [(0, 0, 15 + k / 2, 10) for k in range(4)]


class Fill:
    """Stands for MTCNN's net: the face fills what is not black, and reaches over its edge."""

    def detect(self, pictures, landmarks):
        assert landmarks
        rows = [np.nonzero(picture[..., 0])[:2] for picture in pictures]
        boxes = [np.array([[x.min() - 3, y.min(), x.max() + 1, y.max() + 1]]) for y, x in rows]
        points = [np.full((1, 5, 2), box[0, :2]) for box in boxes]
        return boxes, [[1.0]] * len(boxes), points


def test_mtcnn_looks_again_with_a_margin_where_a_face_reaches_over_the_edge(monkeypatch):
    looked = []

    class Net(Fill):
        def detect(self, pictures, landmarks):
            looked.append([picture.shape[:2] for picture in pictures])
            return super().detect(pictures, landmarks)

    monkeypatch.setattr(mtcnn, "_load", Net)
    roomy = np.zeros((80, 40, 3), np.uint8)
    roomy[10:50, 10:30] = 9
    tight = np.full((80, 40, 3), 9, np.uint8)
    first, second = DETECTORS.get("mtcnn")(None).detect([roomy, tight])
    assert looked == [[(80, 40), (80, 40)], [(120, 80)]]
    assert first[0].box == (7, 10, 30, 50)
    assert second[0].box == (-3, 0, 40, 80)
    assert second[0].points == ((-3, 0),) * 5


def test_yunet_looks_again_with_a_margin_where_a_face_reaches_over_the_edge(tmp_path, monkeypatch):
    class Net:
        """Fills what is not black, one pixel over its left edge."""

        def setInputSize(self, size):  # noqa: N802 - OpenCV's name
            looked.append(size)

        def detect(self, picture):
            y, x = np.nonzero(picture[..., 0])
            row = np.full((1, 15), 1.0, np.float32)
            row[0, :4] = x.min() - 1, y.min(), np.ptp(x) + 2, np.ptp(y) + 1
            row[0, 4:14] = x.min()
            return 1, row

    looked = []
    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *_: Net())
    file = tmp_path / "net.onnx"
    file.write_bytes(b"any")
    roomy, tight = np.zeros((80, 40, 3), np.uint8), np.full((80, 40, 3), 9, np.uint8)
    roomy[10:50, 10:30] = 9
    detector = DETECTORS.get("yunet")(file)
    first, second = detector.detect([roomy, tight])
    assert looked == [(40, 80), (40, 80), (80, 120)]  # width, height
    assert first[0].box == (9, 10, 30, 50)
    assert second[0].box == (-1, 0, 40, 80)
    assert second[0].points[0] == (0, 0)
    assert detector.identity.endswith("-0.25")


def reader(shared_data):
    from src.data.pixels.video import read_frames

    return read_frames(shared_data / "videos" / "train" / "real" / "634.mp4", 1).frames[0]


@pytest.mark.real
def test_blazeface_agrees_with_mtcnn_on_a_frame_and_on_a_tight_crop(shared_data):
    pytest.importorskip("facenet_pytorch")
    frame = reader(shared_data)
    ways = [DETECTORS.get(name)(None) for name in ("mtcnn", "blazeface")]
    (truth,), (face,) = (detect_each(way, [shrink(frame, way)])[0] for way in ways)
    x0, y0, x1, y1 = (round(v) for v in truth.box)
    crop = np.ascontiguousarray(frame[y0:y1, x0:x1])
    eyes = float(np.linalg.norm(np.subtract(*truth.points[:2])))

    def apart(one, x=0, y=0):
        return np.linalg.norm(np.add(one.points, (x, y)) - truth.points, axis=1).mean() / eyes

    assert face.score >= ways[1].sure
    assert iou(face.box, truth.box) > 0.8
    assert apart(face) < 0.12
    assert apart(ways[1].exact(frame, face)) < 0.08
    for way, most in zip(ways, (0.1, 0.15), strict=True):
        (tight,) = detect_each(way, [shrink(crop, way)])[0]
        assert apart(tight, x0, y0) < most
        assert apart(way.exact(crop, tight), x0, y0) < 0.1


@pytest.mark.real
def test_mtcnn_finds_the_news_reader_and_no_face_in_noise(shared_data):
    pytest.importorskip("facenet_pytorch")
    frame = reader(shared_data)
    noise = np.random.default_rng(0).integers(0, 255, frame.shape, np.uint8)
    tiny = np.zeros((9, 9, 3), np.uint8)
    detector = DETECTORS.get("mtcnn")(None)
    found = detect_each(detector, [shrink(p, detector) for p in (frame, noise, tiny)])
    assert found[1] == found[2] == []
    (face,) = found[0]
    assert face.score > 0.99
    x0, y0, x1, y1 = face.box
    assert 100 < x1 - x0 < 260
    assert 100 < y1 - y0 < 320
    points = np.array(face.points)
    assert ((points > [x0, y0]) & (points < [x1, y1])).all()
    assert points[0, 0] < points[2, 0] < points[1, 0]
    assert points[0, 1] < points[2, 1] < points[4, 1]
