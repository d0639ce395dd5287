"""Frames of a mixed list of clips and images: numbers, reading, caches."""

import cv2
import numpy as np
import pytest

from src.config import FramesConfig, InputSpec
from src.data.batches.loader import EvalBatches, TrainBatches
from src.data.batches.samplers import BatchKey
from src.data.pixels import reader
from src.data.pixels.cache import ABSENT
from src.data.pixels.frames import IMAGE, FrameNumbers
from src.data.pixels.source import Canvas, PixelSource
from src.data.pixels.video import read_frames
from src.errors import UserError
from tests.clips import grey_of, write_clip

CANVAS = Canvas(16, "squash", "bicubic")
NAMES = ["long.mp4", "a.png", "short.mp4", "b.png"]
FEW = FramesConfig(train=6, eval=4)


@pytest.fixture
def folder(tmp_path):
    write_clip(tmp_path / "long.mp4", 20)
    write_clip(tmp_path / "short.mp4", 3)
    for number, name in enumerate(("a.png", "b.png")):
        cv2.imwrite(str(tmp_path / name), np.full((16, 16, 3), 5 + 10 * (24 - number), np.uint8))
    return tmp_path


def source_of(folder, frames=FEW, names=NAMES):
    return PixelSource(folder, names, [CANVAS], frames=frames)


def seen(source, rows):
    return [None if f.canvases is None else grey_of(f.canvases[0]) for f in source.read_eval(rows)]


def test_numbers_of_images_are_those_of_the_items_and_clips_have_more():
    numbers, items = FrameNumbers(["a.png", "b.JPG"], FEW), np.array([1, 0])
    rows, place, frame = numbers.eval_rows(items)
    assert rows is items
    assert (place.tolist(), frame.tolist()) == ([0, 1], [IMAGE, IMAGE])
    assert numbers.slot_starts.tolist() == [0, 1, 2]
    numbers = FrameNumbers(NAMES, FEW)
    assert numbers.slot_starts.tolist() == [0, 6, 7, 13, 14]
    assert numbers.eval_starts.tolist() == [0, 4, 5, 9, 10]
    rows, place, frame = numbers.eval_rows(np.array([3, 2]))
    assert rows.tolist() == [9, 5, 6, 7, 8]
    assert place.tolist() == [0, 1, 1, 1, 1]
    assert frame.tolist() == [IMAGE, 0, 1, 2, 3]
    assert numbers.item_of(rows.tolist()).tolist() == [3, 2, 2, 2, 2]
    assert numbers.item_of([5, 6, 12, 13], slots=True).tolist() == [0, 1, 2, 3]


def test_evaluation_sees_some_of_the_slots(folder):
    source = source_of(folder)
    slots = read_frames(folder / "long.mp4", 6).indices
    want = [slots[k] for k in (0, 2, 3, 5)]  # the centres of four parts of six
    assert seen(source, range(10)) == [*want, 24, 0, 1, 2, None, 23]


@pytest.mark.parametrize("where", ["disk", "ram"])
def test_kept_frames_are_those_read(folder, where, tmp_path, monkeypatch):
    plain, kept = source_of(folder), source_of(folder)
    assert kept.preload(tmp_path / "pixels", where) == where
    monkeypatch.setattr(reader, "read_clip", lambda *_, **__: pytest.fail("decoded again"))
    again = source_of(folder)
    if where == "disk":
        assert again.preload(tmp_path / "pixels", where) == where
    monkeypatch.undo()
    for source in (kept, again):
        for one, other in zip(source.read_eval(range(10)), plain.read_eval(range(10)), strict=True):
            assert (one.canvases is None) == (other.canvases is None)
            np.testing.assert_array_equal(one.canvases, other.canvases)
        for draw in (0.0, 0.4, 0.99):
            draws = np.full(4, draw)
            np.testing.assert_array_equal(
                list(source.read_train(range(4), draws)), list(plain.read_train(range(4), draws))
            )
    assert kept._kept is not None
    assert (kept._kept[0].rows == ABSENT).sum() == 3


def test_each_clip_is_decoded_once_for_a_cache(folder, tmp_path, monkeypatch):
    read, calls = reader.read_clip, []
    monkeypatch.setattr(reader, "read_clip", lambda *a, **k: calls.append(a[1]) or read(*a, **k))
    source_of(folder).preload(tmp_path / "pixels", "disk")
    assert sorted(calls) == ["long.mp4", "short.mp4"]
    more = [*NAMES, "new.mp4"]
    write_clip(folder / "new.mp4", 9)
    source_of(folder, names=more).preload(tmp_path / "pixels", "disk")
    assert calls[2:] == ["new.mp4"]
    source_of(folder, FramesConfig(train=2, eval=2)).preload(tmp_path / "pixels", "disk")
    assert sorted(calls[3:]) == ["long.mp4", "short.mp4"]  # other frames: nothing fits


def test_training_draws_from_all_train_frames_and_no_other(folder):
    source = source_of(folder)
    draws = np.linspace(0, 0.999, 60)
    drawn = {grey_of(c[0]) for c in source.read_train([0] * 60, draws)}
    assert drawn == set(read_frames(folder / "long.mp4", 6).indices.tolist())
    assert {grey_of(c[0]) for c in source.read_train([2] * 60, draws)} == {0, 1, 2}


def test_a_batch_is_the_same_each_time_and_another_in_another_epoch(folder):
    source = source_of(folder, FramesConfig(train=16, eval=1))
    batches = TrainBatches(source, np.array([0, 1, 0, 1]), "none", 16, seed=3)
    keys = [BatchKey(epoch, 0, (0, 1, 2, 3)) for epoch in range(6)]
    first, second = ([batches[key]["pixels"].numpy() for key in keys] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert len({grey_of(pixels[0]) for pixels in first}) > 2
    assert all(grey_of(pixels[1]) == 24 for pixels in first)


def test_an_evaluation_batch_flags_what_is_not_there(folder):
    spec = InputSpec(16, 16, "squash", "bicubic", (0, 0, 0), (1, 1, 1), frames=FEW)
    (folder / "b.png").write_bytes(b"no image")
    batch = EvalBatches(source_of(folder), [spec])[list(range(4, 10))]
    assert batch["readable"].tolist() == [True, True, True, True, False, False]
    assert not batch["cut"].any()
    assert not batch["pixels0"][4:].any()


def test_a_file_under_another_kinds_name_is_flagged_and_described(folder):
    (folder / "a.png").write_bytes((folder / "long.mp4").read_bytes())
    (folder / "short.mp4").write_bytes((folder / "b.png").read_bytes())
    source = source_of(folder)
    rows = source.numbers.eval_rows(np.arange(4)).rows.tolist()
    frames = list(source.read_eval(rows))
    # long.mp4 f0-f3, a.png, short.mp4 (a picture: one frame of four), b.png
    assert [frame.cut for frame in frames if frame.canvases] == [False] * 4 + [True, True, False]
    assert source.describe(1) == "it is a video under an image's name; its middle frame is used"
    assert source.describe(2) == "it is an image under a clip's name"
    assert grey_of(frames[4].canvases[0]) == grey_of(
        read_frames(folder / "long.mp4", 1).frames[0][:16, :16]
    )


def test_a_clip_that_is_gone_is_named(folder, tmp_path):
    (folder / "short.mp4").write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match=r"short\.mp4: not a video.*readable when the folds"):
        source_of(folder).preload(tmp_path / "pixels", "disk")
    with pytest.raises(UserError, match=r"short\.mp4: not a video"):
        list(source_of(folder).read_train([2], np.zeros(1)))
    assert seen(source_of(folder), range(5, 9)) == [None] * 4


def test_another_reading_marks_the_frames_of_clips_alone(folder, monkeypatch):
    first = source_of(folder).marks()
    monkeypatch.setattr(reader, "READING", reader.READING + 1)
    changed = source_of(folder).marks() != first
    assert changed.tolist() == [True] * 6 + [False] + [True] * 6 + [False]
