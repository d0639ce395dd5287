"""What pixels are known by in a cache: an item's path, and what changes when its file does."""

import zipfile

import cv2
import numpy as np
import pytest

from src.config import FramesConfig
from src.data.layouts.load import load_dataset
from src.data.pixels.cache import NoRoomError
from src.data.pixels.images import Canvas
from src.data.pixels.source import PixelSource, keep_on_disk


def test_marks_by_a_manifest_are_those_by_the_disk(artefact_root):
    home, pixels = artefact_root / "input" / "both", np.zeros((4, 4, 3), np.uint8)
    png = cv2.imencode(".png", pixels)[1].tobytes()
    for name in ("train/real/a.png", "train/fake/b.png", "train/fake/c.mp4"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(png)
    with zipfile.ZipFile(home / "test.zip", "w") as file:
        file.writestr("d.png", png)
    dataset = load_dataset("both")
    files, canvases = dataset.items["path"], [Canvas(4, "squash", "bicubic")]
    stamps = np.asarray(dataset.stamps).astype(np.int64)
    known = PixelSource(dataset.root, files, canvases, stamps=stamps).marks()
    looked = PixelSource(dataset.root, files.tolist(), canvases).marks()
    assert known.tolist() == looked.tolist()
    assert len(set(known.tolist())) == len(known) == int(3 + FramesConfig().eval)
    moved = PixelSource(dataset.root, files, canvases, stamps=stamps + 1).marks()
    assert not set(moved.tolist()) & set(known.tolist())


def test_without_room_no_file_is_looked_up_for_a_cache(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("looked up")

    monkeypatch.setattr(PixelSource, "marks", refuse)
    source = PixelSource(tmp_path, ["a.png"] * 5, [Canvas(2**20, "squash", "bicubic")])
    with pytest.raises(NoRoomError, match="do not fit into"):
        keep_on_disk(source, [], tmp_path / "home")
