"""Clips and images in one folder, from the fold file to the submission."""

import json
import logging
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest

from src import paths
from src.artifacts.oof import read_views
from src.cli import predict, train, tune
from src.config import READING, FramesConfig, InputSpec
from src.data.pixels.source import Canvas, PixelSource
from src.inference.passes import warn_of_reading
from src.inference.predict import parts_of
from tests.clips import boxes, index_first, write_clip

MODEL = """
backbone: {{name: compact_net, pretrained: none, kwargs: {{widths: [8, 8, 16]}}}}
input: {{image_size: 16}}
augment: {augment}
strategy: {strategy}
tta: flip
frames: {{train: 6, eval: 4}}
optim: {{lr: 1e-2, epochs: 1, batch_size: 8, warmup_epochs: 0.5}}
"""


@pytest.fixture
def mixed(artefact_root):
    """Write clips and images, brighter where fake, and a test folder with a cut-off clip."""
    home = artefact_root / "input" / "mixed"
    rng = np.random.default_rng(0)
    for number in range(20):
        fake = number % 2
        folder = home / "train" / ("fake" if fake else "real")
        low = int(rng.integers(0, 60)) + 60 * fake
        write_clip(folder / f"c{number:02d}.mp4", 2 + number, low=low, step=3)
        noise = rng.integers(80 * fake, 80 * fake + 170, (24, 24, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"i{number:02d}.png"), noise)
    test = home / "test"
    test.mkdir()
    whole = index_first(write_clip(test / "cut.mp4", 24, size=(64, 64)).read_bytes())
    start, end = boxes(whole)[b"mdat"]
    (test / "cut.mp4").write_bytes(whole[: start + (end - start) // 2])
    write_clip(test / "good.mp4", 9)
    (test / "lost.mp4").write_bytes(b"\0" * 300)
    cv2.imwrite(str(test / "image.png"), np.full((20, 20, 3), 90, np.uint8))
    (test / "photo.mp4").write_bytes((test / "image.png").read_bytes())
    (test / "video.jpg").write_bytes((test / "good.mp4").read_bytes())
    configs = artefact_root / "configs" / "models"
    configs.mkdir(parents=True)
    (configs / "whole.yaml").write_text(MODEL.format(augment="crop_flip", strategy="fine_tuning"))
    (configs / "frozen.yaml").write_text(MODEL.format(augment="none", strategy="feature_extractor"))
    return home


def run(command, *arguments):
    assert command.main([*arguments, "--data", "mixed"]) == 0
    logging.getLogger("rvf").handlers.clear()


def test_from_folders_to_a_submission(mixed, capsys):
    for model in ("whole", "frozen"):
        run(train, "--model", model, "--fold", "0", "--workers", "0", "--track", "none")
    for model in ("whole", "frozen"):
        path = paths.oof_views("mixed", "sgkf5_s42", model, 0)
        views, metadata = read_views(path)
        oof = pd.read_csv(paths.oof_csv("mixed", "sgkf5_s42", model, 0))
        assert oof["item_id"].is_unique
        assert metadata["pool"] == "mean_prob"
        for item_id, part in views.groupby("item_id"):
            names = ["full", "full+flip"]
            if item_id.endswith(".mp4"):
                count = min(4, 2 + int(item_id[-6:-4]))
                names = [f"f{k:02d}{end}" for k in range(count) for end in ("", "+flip")]
            assert part["view"].tolist() == names
    run(tune, "--strategies", "mean@0.5", "mean")
    run(predict, "--device", "cpu")
    out = capsys.readouterr().out
    assert "3 not read as a whole: cut.mp4: decoded" in out
    assert "photo.mp4: it is an image under a clip's name" in out
    assert "video.jpg: it is a video under an image's name; its middle frame is used" in out
    answers = pd.read_csv(paths.submission_csv("mixed", "tuned"))
    assert answers["filename"].tolist() == [
        "cut.mp4", "good.mp4", "image.png", "lost.mp4", "photo.mp4", "video.jpg"
    ]  # fmt: skip
    file = paths.submission_csv("mixed", "tuned").with_suffix(".json")
    sidecar = json.loads(file.read_text())
    assert sidecar["fallback"]["items"] == ["lost.mp4"]
    assert list(sidecar["partial"]) == ["cut.mp4", "photo.mp4", "video.jpg"]
    assert sidecar["stages"][0]["name"] == "pooling"
    run(predict, "--device", "cpu")  # nothing is decoded again, and the flags stay
    assert json.loads(file.read_text())["partial"] == sidecar["partial"]

    checkpoint = paths.checkpoint("mixed", "sgkf5_s42", "whole", 0)
    folder = ["--checkpoint", str(checkpoint), "--input-dir", str(mixed / "test")]
    folder += ["--output", str(mixed / "out.csv"), "--prob"]
    assert predict.main([*folder, "--device", "cpu"]) == 0
    table = pd.read_csv(mixed / "out.csv").set_index("filename")
    assert table["prob"].notna().to_dict() == {
        "cut.mp4": True, "good.mp4": True, "image.png": True, "lost.mp4": False,
        "photo.mp4": True, "video.jpg": True,
    }  # fmt: skip
    assert "3 not read as a whole: cut.mp4" in capsys.readouterr().out


def test_a_clip_is_not_cut_by_a_batch(tmp_path):
    names = ["a.mp4", "b.png", "c.mp4", "d.mp4"]
    canvases = [Canvas(8, "squash", "bicubic")]
    source = PixelSource(tmp_path, names, canvases, frames=FramesConfig(train=1, eval=4))
    rows = source.numbers.eval_rows(np.arange(4)).rows
    assert list(parts_of(source, rows, 6)) == [[0, 1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]
    assert list(parts_of(source, rows, 9)) == [list(range(9)), [9, 10, 11, 12]]
    assert list(parts_of(source, rows, 3)) == [[0, 1, 2], [3, 4], [5, 6, 7], [8], [9, 10, 11], [12]]


def test_a_checkpoint_of_another_reading_says_so_where_there_are_clips(tmp_path, caplog):
    new = InputSpec(8, 8, "squash", "bicubic", (0.5,) * 3, (0.5,) * 3, reading=READING)
    old = InputSpec(8, 8, "squash", "bicubic", (0.5,) * 3, (0.5,) * 3)  # as those written before
    engines = [SimpleNamespace(spec=new), SimpleNamespace(spec=old)]
    for names, lines in ((["a.png"], 0), (["a.png", "b.mp4"], 1)):
        source = PixelSource(tmp_path, names, [Canvas(8, "squash", "bicubic")])
        with caplog.at_level(logging.WARNING, "rvf"):
            warn_of_reading(engines, source)
        assert len(caplog.messages) == lines
    assert caplog.messages[0].startswith("1 of 2 checkpoints saw clips as an earlier version")
