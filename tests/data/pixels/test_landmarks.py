"""Landmarks of canvases: found once, kept, and known by the pixels."""

import logging

import numpy as np
import pytest

from src.data.batches.blend import CHIN, EYES, MOUTH, NOSE
from src.data.layouts.load import load_dataset
from src.data.pixels import landmarks
from src.data.pixels.landmarks import Landmarks
from src.data.pixels.source import Canvas, PixelSource


@pytest.fixture
def looked(monkeypatch):
    """Points that follow from a picture; none of one that begins with an even value."""
    seen = []

    def points_of(canvas):
        seen.append(canvas.shape)
        first = int(canvas[0, 0, 0])
        return None if first % 2 == 0 else np.full((468, 2), first, np.float64)

    monkeypatch.setattr(landmarks, "points_of", points_of)
    return seen


@pytest.fixture
def source(tmp_path, make_images):
    make_images(tmp_path / "a", 8, size=(20, 26), suffix=".png")
    names = sorted(f"a/{path.name}" for path in (tmp_path / "a").glob("*.png"))
    return PixelSource(tmp_path, names, [Canvas(16, "squash", "bicubic")])


def test_they_are_found_once_and_kept_for_the_next_process(source, looked, tmp_path):
    found = Landmarks(tmp_path / "kept")
    lost = found.find(source, [5, 1, 3])
    assert lost == [row for row in (5, 1, 3) if source.read(row)[0][0, 0, 0] % 2 == 0]
    assert len(looked) == 3
    again = Landmarks(tmp_path / "kept")
    assert again.find(source, [1, 3, 5, 6])
    assert len(looked) == 4
    for row in (1, 3, 5, 6):
        canvas = source.read(row)[0]
        marks = again.of(canvas)
        first = int(canvas[0, 0, 0])
        assert marks is None if first % 2 == 0 else (marks == first).all()
    assert len(looked) == 4
    again.of(source.read(0)[0])  # never searched: now
    assert len(looked) == 5


def test_a_damaged_file_is_looked_for_anew(source, looked, tmp_path, caplog):
    Landmarks(tmp_path).find(source, [0, 1])
    (file,) = tmp_path.glob("*/*.npz")
    file.write_bytes(file.read_bytes()[:60])
    with caplog.at_level(logging.WARNING, "rvf"):
        Landmarks(tmp_path).find(source, [0, 1])
    assert len(looked) == 4
    assert "is damaged" in caplog.text


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(source, looked, tmp_path):
    (tmp_path / "file").write_text("")
    found = Landmarks(tmp_path / "file")
    found.find(source, [0, 1])
    found.of(source.read(1)[0])
    assert len(looked) == 2


@pytest.mark.real
def test_real_faces_have_points_on_their_features(shared_data, artefact_root):
    dataset = load_dataset("dfdc_faces", shared_data)
    reals = dataset.train[dataset.train["label"] == 0]["path"].tolist()[:24]
    source = PixelSource(dataset.root, reals, [Canvas(224, "squash", "bicubic")])
    found = Landmarks(None)
    assert len(found.find(source, range(24))) <= 1
    for row in range(24):
        marks = found.of(source.read(row)[0])
        if marks is not None:
            eyes, nose, mouth, chin = (marks[list(k)].mean(0) for k in (EYES, NOSE, MOUTH, [CHIN]))
            down = chin - eyes
            places = [(part - eyes) @ down / (down @ down) for part in (nose, mouth)]
            assert 0 < places[0] < places[1] < 1
            assert (marks > -60).all()
            assert (marks < 284).all()
