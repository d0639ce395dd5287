"""The contact sheet of what a net sees."""

import cv2
import numpy as np
import pytest

from src import paths
from src.cli.data import main
from src.config import parse_model
from src.data.layouts.load import load_dataset
from src.data.pixels.images import Canvas, make_canvases
from src.reporting.contact_sheets import collect_rows, spec_of

TOY = {
    "backbone": {"name": "compact_net", "pretrained": "none", "kwargs": {"widths": [8, 16]}},
    "input": {"image_size": 12, "crop_pct": 0.75, "mean": [0.5, 0.4, 0.3]},
}


def rows_of(per_class=2, draws=3, **changes):
    config = parse_model({**TOY, **changes}, "toy")
    return collect_rows(config, spec_of(config), load_dataset("toy", None), per_class, draws)


def test_rows_hold_canvas_evaluation_view_and_draws(toy):
    rows = rows_of(augment="crop_flip")
    assert [row.label for row in rows] == [0, 0, 1, 1]
    for row in rows:
        canvas, view, *draws = row.pictures
        data = (paths.dataset_dir("toy") / "train" / row.item_id).read_bytes()
        assert np.array_equal(canvas, make_canvases(data, [Canvas(16, "squash", "bicubic")])[0][0])
        assert np.array_equal(view, canvas[2:14, 2:14])
        assert len(draws) == 3
        windows = [canvas[t : t + 12, x : x + 12] for t in range(5) for x in range(5)]
        assert any(np.array_equal(draws[0], w) or np.array_equal(draws[0], w[:, ::-1])
                   for w in windows)  # fmt: skip
    same = rows_of(augment="crop_flip")
    assert all(np.array_equal(a, b) for x, y in zip(rows, same, strict=True)
               for a, b in zip(x.pictures, y.pictures, strict=True))  # fmt: skip


def test_what_is_erased_has_the_mean_colour(toy):
    rows = rows_of(augment={"name": "none", "erase": 1.0}, draws=2)
    for row in rows:
        _, view, *draws = row.pictures
        for draw in draws:
            other = (draw != view).any(-1)
            assert other.any()
            assert (draw[other] == np.array([128, 102, 76])).all()


def test_mixed_items_are_shown_mixed(toy):
    rows = rows_of(augment="none", mixup=5.0, draws=1)
    views = [row.pictures[1].astype(float) for row in rows]
    for row, view in zip(rows, views, strict=True):
        drawn = row.pictures[2].astype(float)
        gaps = [
            np.abs(view + t * (other - view) - drawn).max()
            for other in views
            for t in np.linspace(0, 1, 201)
        ]
        assert min(gaps) < 2


def test_a_real_stands_beside_its_blend_and_the_mask(toy, monkeypatch):
    def points_of(canvas):
        angle = np.linspace(0, 2 * np.pi, 468)
        return np.stack([np.sin(angle), np.cos(angle)], 1) * 5 + 8

    monkeypatch.setattr("src.data.pixels.landmarks.points_of", points_of)
    rows = rows_of(augment="none", blend={"hulls": ["face"]}, draws=2)
    assert [row.label for row in rows] == [0, 0]
    for row in rows:
        _, _, *draws = row.pictures
        assert len(draws) == 6
        for real, blend, mask in (draws[:3], draws[3:]):
            assert mask.any()
            assert (mask[..., :1] == mask).all()
            assert (real[mask == 0] == blend[mask == 0]).all()


def test_an_unreadable_item_is_not_chosen(toy):
    root = paths.dataset_dir("toy") / "train" / "real"
    for path in sorted(root.iterdir())[:-1]:
        path.write_bytes(b"no image")
    rows = rows_of(per_class=5, augment="none")
    assert [row.label for row in rows].count(0) == 1


def test_the_command_writes_the_picture_and_mistakes_answer_first(toy, capsys):
    folder = paths.root() / "configs" / "models"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("extends: compact32\naugment: robust\n")
    assert main(["--preview", "mine"]) == 0
    path = paths.preview_png("toy", "mine")
    assert f"preview: {path}" in capsys.readouterr().out
    assert cv2.imread(str(path)).shape[1] == 100 * (1.5 * 8 + 1)
    (folder / "mine.yaml").write_text("extends: compact32\naugment: forensic\n")
    for words, message in (
        (["--preview", "compact23"], "did you mean 'compact32'"),
        (["--preview", "mine"], "forensic is for pixels as they are"),
        (["--preview", "mine", "--adversarial"], "two commands"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err


@pytest.mark.real
def test_real_faces_at_the_size_of_the_net(shared_data, artefact_root):
    config = parse_model({**TOY, "augment": "standard"}, "toy")
    dataset = load_dataset("dfdc_faces", shared_data)
    rows = collect_rows(config, spec_of(config), dataset, 3, 2)
    assert [row.label for row in rows] == [0] * 3 + [1] * 3
    assert {p.shape for row in rows for p in row.pictures} == {(16, 16, 3), (12, 12, 3)}
    assert all(not np.array_equal(row.pictures[2], row.pictures[3]) for row in rows)
