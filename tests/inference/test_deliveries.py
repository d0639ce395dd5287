"""A pass over delivered pictures: columns by level and view, each clip decoded once."""

import numpy as np
import pytest
import torch

from src.artifacts.oof import Levels
from src.compute.request import Compute
from src.config import FramesConfig, InputSpec
from src.data.pixels import reader
from src.data.pixels.deliveries import CARD, Level
from src.data.pixels.images import Canvas
from src.data.pixels.source import PixelSource
from src.inference.predict import predict_each, views_at
from tests.faces_stub import picture, write_film, write_picture

FRAMES = FramesConfig(train=2, eval=16)


class Left:
    """Says how bright the left half is."""

    engine, precision = "eager", "fp32"

    def __init__(self, size):
        half = (0.5, 0.5, 0.5)
        self.spec = InputSpec(size, size, "squash", "bicubic", half, half, frames=FRAMES)

    def __call__(self, pixels):
        return pixels[:, :, : self.spec.image_size // 2].float().mean((1, 2, 3))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    frames = [np.clip(picture() + rng.integers(0, 40, (48, 64, 3)), 0, 255) for _ in range(20)]
    write_film(tmp_path / "clip.avi", [frame.astype(np.uint8) for frame in frames])
    write_picture(tmp_path / "one.png", frames[3].astype(np.uint8))
    return tmp_path


def test_every_level_comes_from_one_decode_and_stands_in_its_own_column(folder, monkeypatch):
    calls = []
    for name in ("read_clip", "decode"):
        own = getattr(reader, name)
        monkeypatch.setattr(reader, name, lambda *a, own=own, **k: calls.append(1) or own(*a, **k))
    models = [Left(8), Left(12)]
    views = [["full"], ["full", "full+flip"]]
    canvases = [Canvas.of(model.spec) for model in models]
    source = PixelSource(folder, ["clip.avi", "one.png"], canvases, frames=FRAMES)
    levels = Levels(CARD, 42)
    source = source.delivering(levels)
    compute = Compute("cpu", "fp32", 0)
    seen, cut = predict_each(models, views, source, np.arange(2), compute)
    assert len(calls) == 2  # the clip and the picture, whatever the levels
    assert not len(cut)
    for model, names, found in zip(models, views, seen, strict=True):
        columns = views_at(levels, names)
        assert found.logits.shape == (17, len(columns))
        monkeypatch.undo()
        pixels = source.paths and reader.decode((folder / "one.png").read_bytes(), [None])[0][0]
        for column, view in enumerate(columns):
            level, _, rest = view.partition(":")
            sent = Level(level).deliver(pixels, "one.png").pixels
            canvas = Canvas.of(model.spec).draw(sent)
            canvas = canvas[:, ::-1] if rest.endswith("+flip") else canvas
            wanted = float(model(torch.from_numpy(canvas.copy())[None])[0])
            assert found.logits[-1, column] == pytest.approx(wanted, abs=1e-3)
        table = found.table(["clip.avi", "one.png"], 0, columns)
        assert {"jpeg50:f03", "jpeg50:full"} <= set(table["view"])


def test_frames_of_a_clip_share_jitter_and_not_noise(folder):
    source = PixelSource(folder, ["clip.avi"], [Canvas(32, "squash", "bicubic")], frames=FRAMES)
    plain = [one.canvases[0].astype(float) for one in source.read_eval(range(16))]
    sent = source.delivering(Levels(("jitter0.2", "noise0.05"), 1))
    drawn = [one.canvases for one in sent.read_eval(range(16))]
    lit = [d[0].mean() / p.mean() for d, p in zip(drawn, plain, strict=True)]
    assert np.ptp(lit) < 0.02
    noise = [d[1].astype(float) - p for d, p in zip(drawn, plain, strict=True)]
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.2
