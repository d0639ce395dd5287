import hashlib
import os
import zipfile

import numpy as np
import pytest

from src.config import FaceConfig, FramesConfig, parse_model
from src.data.items.dataset_yaml import says_cropped
from src.data.pixels import faces
from src.data.pixels.cache import canvas_name, identity
from src.data.pixels.faces import FaceBoxes
from src.data.pixels.images import Canvas
from src.data.pixels.source import PixelSource
from src.data.pixels.video import read_frames
from src.errors import UnreadableImageError, UserError
from src.faces import store
from src.faces.crop import Face, crop_face
from src.faces.detectors import detector_of, face_spec
from tests.faces_stub import Red, picture, use_red, write_film, write_picture

FACE = FaceConfig(detector="red", margin=1.0)
SQUARE = Canvas(8, "squash", "bicubic", None, FACE)


@pytest.fixture
def root(artefact_root, monkeypatch):
    use_red(monkeypatch)
    says_cropped.cache_clear()
    folder = artefact_root / "input" / "set"
    write_picture(folder / "one.png", picture((10, 20, 12)))
    write_picture(folder / "two.png", picture((2, 2, 8), (30, 10, 20)))
    write_picture(folder / "none.png", picture())
    return folder


@pytest.fixture
def red(root):
    return Red


NAMES = ["one.png", "two.png", "none.png"]


def test_a_canvas_shows_the_largest_face_or_the_whole_picture(root):
    full = Canvas(8, "squash", "bicubic")
    source = PixelSource(root, NAMES, [SQUARE, full])
    for item in (0, 1):
        face, whole = source.read(item)
        assert np.array_equal(face, np.full((8, 8, 3), (255, 0, 0), np.uint8))
        assert whole[0, 0, 1] > 0
    lost, whole = source.read(2)
    assert np.array_equal(lost, whole)


def test_pixels_are_the_same_kept_on_disk_in_memory_or_not_at_all(root, tmp_path):
    wide = Canvas(16, "short_side", "bilinear", 90, FaceConfig("red", margin=1.7))
    alone = [PixelSource(root, NAMES, [wide]).read(item)[0] for item in range(3)]
    for cache in ("disk", "ram", "none"):
        source = PixelSource(root, NAMES, [wide])
        assert source.preload(tmp_path / "pixels", cache) == cache
        assert all(np.array_equal(source.read(k)[0], alone[k]) for k in range(3))


def test_boxes_are_found_once_for_all_models(root, red):
    FaceBoxes(root, FACE).search(NAMES)
    assert red.looked == 3
    again = FaceBoxes(root, FaceConfig(detector="red", margin=2.0, which="all"))
    again.search([*NAMES, *NAMES])
    assert red.looked == 3
    assert [len(again.people(name)) for name in NAMES] == [1, 2, 0]
    assert again.faceless(NAMES) == ["none.png"]


def test_a_changed_file_is_searched_again(root, red):
    FaceBoxes(root, FACE).search(NAMES)
    write_picture(root / "none.png", picture((5, 5, 9)))
    os.utime(root / "none.png", ns=(1, 1))
    boxes = FaceBoxes(root, FACE)
    boxes.search(NAMES)
    assert red.looked == 4
    assert boxes.people("none.png")[0][0].box == (5, 5, 14, 14)


def test_a_killed_search_goes_on_where_it_was(root, red, monkeypatch):
    names = [f"p{k:02d}.png" for k in range(12)]
    for k, name in enumerate(names):
        write_picture(root / name, picture((k, 3, 9)))
    monkeypatch.setattr(faces, "IMAGES", 4)
    monkeypatch.setattr(faces, "SAVE_SECONDS", 0.0)
    written = []

    def killed(folder, items):
        if len(written) == 5:
            raise SystemExit  # what a kill would not let happen is the writing below
        written.extend(items)
        store.write_part(folder, items)

    monkeypatch.setattr(faces, "write_part", killed)
    with pytest.raises(SystemExit):
        FaceBoxes(root, FACE).search(names)
    monkeypatch.setattr(faces, "write_part", store.write_part)
    before = red.looked
    boxes = FaceBoxes(root, FACE)
    boxes.search(names)
    assert red.looked - before == 12 - 5
    assert [boxes.people(name)[0][0].box[0] for name in names] == list(range(12))
    assert [file.name for file in boxes.home.glob("*.parquet")] == ["boxes.parquet"]


def test_nothing_is_lost_where_nothing_can_be_written(root, red, monkeypatch):
    def full(*_, **__):
        raise UserError("no access")

    monkeypatch.setattr(faces, "file_lock", full)
    boxes = FaceBoxes(root, FACE)
    boxes.search(NAMES)
    assert boxes.people("one.png")[0][0].box == (10, 20, 22, 32)


def test_cropped_data_is_left_alone(root, red):
    (root / "dataset.yaml").write_text("faces: cropped\n")
    plain = PixelSource(root, NAMES, [Canvas(8, "squash", "bicubic")])
    face = PixelSource(root, NAMES, [SQUARE])
    face.find_faces()
    assert red.looked == 0
    assert all(np.array_equal(face.read(k)[0], plain.read(k)[0]) for k in range(3))
    assert face.cuts.faceless(FACE, NAMES) == []
    marks = face.marks()
    (root / "dataset.yaml").unlink()
    says_cropped.cache_clear()
    assert (PixelSource(root, NAMES, [SQUARE]).marks() != marks).all()


def test_a_neighbour_says_for_itself_that_it_is_cropped(root, red):
    write_picture(root.parent / "other" / "x.png", picture((1, 1, 9)))
    (root.parent / "other" / "dataset.yaml").write_text("faces: cropped\n")
    boxes = FaceBoxes(root, FACE)
    boxes.search(["one.png", "../other/x.png"])
    assert red.looked == 1
    assert boxes.is_cropped("../other/x.png")
    assert not boxes.is_cropped("one.png")


@pytest.fixture
def film(root):
    frames = [picture((4 * k, 10, 20 if k < 8 else 12)) for k in range(10)]
    frames[4] = picture()
    frames[6] = picture((24, 10, 20), (50, 34, 12))
    write_film(root / "c.mp4", frames)
    return root


def test_a_person_is_followed_through_a_clip(film, red):
    boxes = FaceBoxes(film, FACE, FramesConfig(train=10, eval=5))
    boxes.search(["c.mp4"])
    assert red.looked == 10
    (person,) = boxes.people("c.mp4")
    assert sorted(person) == [0, 1, 2, 3, 5, 6, 7, 8, 9]  # not in frame 4; the other one is short
    assert person[6].box[0] == pytest.approx(24, abs=1)
    boxes.search(NAMES)
    assert [boxes.count_filled(p) for p in ("c.mp4", "one.png", "none.png")] == [1, 0, 0]


def test_frames_of_a_clip_show_the_face_where_it_is(film):
    settings = FramesConfig(train=10, eval=5)
    source = PixelSource(film, ["one.png", "c.mp4"], [SQUARE], frames=settings)
    rows = source.numbers.eval_rows(np.arange(2)).rows.tolist()
    seen = [frame.canvases[0] for frame in source.read_eval(rows)]
    assert len(seen) == 6
    clip = read_frames(film / "c.mp4", 5)
    person = source.cuts.boxes[FACE].people("c.mp4")[0]
    for number, frame, shown in zip(clip.indices.tolist(), clip.frames, seen[1:], strict=True):
        face = faces.place(person, number).face
        assert np.array_equal(shown, SQUARE.draw(crop_face(frame, face, 1.0, align=False)))
        if number != 4:
            assert shown[..., 0].mean() > 200


def test_boxes_of_other_frames_are_not_taken(film, red):
    FaceBoxes(film, FACE, FramesConfig(train=10, eval=5)).search(["c.mp4"])
    FaceBoxes(film, FACE, FramesConfig(train=4, eval=5)).search(["c.mp4"])
    assert red.looked == 15


def test_boxes_of_frames_by_another_decoder_are_not_taken(film):
    opencv, pyav = (FaceBoxes(film, FACE, FramesConfig(decoder=d)) for d in ("opencv", "pyav"))
    names = ["one.png", "c.mp4"]
    same = np.array(opencv._marks(names)) == np.array(pyav._marks(names))
    assert same.tolist() == [True, False]
    opencv.search(names)
    assert len(store.read_boxes(opencv.home)) == 2
    pyav._take(dict(zip(names, pyav._marks(names), strict=True)), store.read_boxes(pyav.home))
    assert pyav.frames_of("one.png")
    assert not pyav.frames_of("c.mp4")


def test_the_crop_is_part_of_what_a_cache_is_of():
    plain = Canvas(8, "squash", "bicubic")
    faces = [FaceConfig("whole", margin=m, align=a) for m in (1.0, 1.3) for a in (False, True)]
    canvases = [plain, *(plain._replace(face=face) for face in faces)]
    assert len({canvas_name(one) for one in canvases}) == 5
    assert len({str(identity(one)) for one in canvases}) == 5
    assert canvas_name(plain) == "squash_8_bicubic"
    assert identity(plain)[1] == [8, "squash", "bicubic"]
    both = plain._replace(face=FaceConfig("whole", which="all"))
    assert canvas_name(both) == canvas_name(plain._replace(face=FaceConfig("whole")))


def test_a_config_names_its_detector(tmp_path):
    backbone = {"backbone": {"name": "compact_net"}}
    config = parse_model(backbone, "c")
    assert face_spec(config) is None
    wrong = parse_model(backbone | {"input": {"crop": "face"}, "face": {"detector": "retina"}}, "c")
    with pytest.raises(UserError, match="unknown face detector 'retina'"):
        face_spec(wrong)
    with pytest.raises(UserError, match=r"input\.crop: native is written input\.geometry: native"):
        parse_model(backbone | {"input": {"crop": "native"}}, "c")
    with pytest.raises(UserError, match=r"face\.margin must be >= 1 \(found 0\.5\)"):
        parse_model(backbone | {"face": {"margin": 0.5}}, "c")


def test_the_file_of_a_detector_travels_as_its_checksum(tmp_path):
    file = tmp_path / "yunet.onnx"
    file.write_bytes(b"one")
    face = {"detector": "yunet", "detector_file": str(file)}
    config = parse_model(
        {"backbone": {"name": "compact_net"}, "input": {"crop": "face"}, "face": face}, "c"
    )
    spec = face_spec(config)
    assert spec is not None
    assert len(spec.detector_sha256) == 64
    file.write_bytes(b"another")
    with pytest.raises(UserError, match="is not the detector that this model was trained with"):
        detector_of(spec)


def test_folders_of_one_name_do_not_share_boxes(root, red, tmp_path):
    """Equal names, sizes and times, other pictures: uncompressed, so that sizes cannot differ."""
    roots = [tmp_path / "a" / "set", tmp_path / "b" / "set"]
    size = (120, 160)
    for folder, left in zip(roots, (20, 90), strict=True):  # beginning and end are equal
        write_picture(folder / "one.bmp", picture((left, 50, 12), size=size))
        os.utime(folder / "one.bmp", ns=(5, 5))
    assert len({(f / "one.bmp").stat().st_size for f in roots}) == 1
    assert len({(f / "one.bmp").read_bytes()[:4096] for f in roots}) == 1
    found = []
    for folder in roots:
        boxes = FaceBoxes(folder, FACE)
        boxes.search(["one.bmp"])
        found.append(boxes.people("one.bmp")[0][0].box[0])
    assert found == [20, 90]
    assert red.looked == 2


def test_boxes_outlive_a_move_of_the_folder(root, red):
    FaceBoxes(root, FACE).search(NAMES)
    (root.parent / "elsewhere").mkdir()
    moved = root.rename(root.parent / "elsewhere" / "set")
    FaceBoxes(moved, FACE).search(NAMES)
    assert red.looked == 3


def test_boxes_of_a_zip_stay_good(root, red):
    """A member is known by the CRC of its bytes: its mark is what it always was."""
    with zipfile.ZipFile(root / "all.zip", "w") as packed:
        packed.write(root / "two.png", "two.png")
        crc, size = packed.getinfo("two.png").CRC, packed.getinfo("two.png").file_size
    name = "all.zip!/two.png"
    old = hashlib.blake2b(f"{name}\0{(size, crc)}".encode(), digest_size=8).digest()
    home = FaceBoxes(root, FACE).home
    home.mkdir(parents=True)
    face = Face((1.0, 2.0, 3.0, 4.0), 0.99)
    store.write_part(home, [store.Found(int.from_bytes(old, "little"), name, {0: [face]})])
    boxes = FaceBoxes(root, FACE)
    boxes.search([name])
    assert red.looked == 0
    assert boxes.people(name) == [{0: face}]


def test_what_cannot_be_decoded_is_tried_once(root, red, caplog, monkeypatch):
    (root / "bad.png").write_bytes(b"nothing at all")
    tried = []
    read = faces.read_picture
    monkeypatch.setattr(faces, "read_picture", lambda r, p: tried.append(p) or read(r, p))
    with caplog.at_level("INFO", logger="rvf"):
        for margin in (1.0, 1.5, 2.0):
            boxes = FaceBoxes(root, FaceConfig(detector="red", margin=margin))
            boxes.search([*NAMES, "bad.png"])
            boxes.search([*NAMES, "bad.png"])
            assert boxes.people("bad.png") == boxes.faceless(["bad.png"]) == []
    assert red.looked == 3
    assert tried.count("bad.png") == 1
    assert [line for line in caplog.messages if "looking" in line] == [
        "faces: looking for them in 4 items (red)"
    ]
    write_picture(root / "bad.png", picture((5, 5, 9)))
    boxes = FaceBoxes(root, FACE)
    boxes.search([*NAMES, "bad.png"])
    assert boxes.people("bad.png")[0][0].box == (5, 5, 14, 14)


def test_a_picture_that_was_decoded_after_all_is_looked_at(root, monkeypatch):
    def broken(*_):
        raise UnreadableImageError("the drive is gone for a moment")

    with monkeypatch.context() as patch:
        patch.setattr(faces, "read_picture", broken)
        boxes = FaceBoxes(root, FACE)
        boxes.search(["one.png"])
    shown = boxes.crop("one.png", picture((10, 20, 12)))
    assert shown.shape == (12, 12, 3)


def test_a_face_that_crosses_the_picture_fills_every_crop(root):
    """Each frame is cut out of what was drawn there, though no two boxes overlap."""
    frames = [picture((11 * k, 3 * k, 9), size=(48, 128)) for k in range(10)]
    write_film(root / "walk.mp4", frames)
    boxes = FaceBoxes(root, FACE, FramesConfig(train=10, eval=10))
    boxes.search(["walk.mp4"])
    for number, frame in enumerate(frames):
        shown = boxes.crop("walk.mp4", frame, number)
        red = (shown == (255, 0, 0)).all(axis=-1)
        assert red.mean() > 0.7
    assert boxes.count_filled("walk.mp4") == 0
