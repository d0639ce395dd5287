"""Recipes that look at files: of whole pictures, and of faces that tell by their colour."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from src import paths
from src.cli import parsers
from src.compute.request import Compute
from src.evidence.looker import Looker, Looking
from tests.faces_stub import GREY, use_red, write_picture
from tests.shared import tiny_model

REAL, FAKE = (255, 0, 0), (255, 0, 220)  # of faces: both are red to the detector
CPU = Compute(device="cpu", workers=0, precision="fp32")


def people(*faces: tuple[int, int, int, tuple[int, int, int]], size=(64, 96)) -> np.ndarray:
    """Return a grey picture, RGB, with faces: (left, top, side, colour) each."""
    found = np.full((*size, 3), GREY, np.uint8)
    for left, top, side, colour in faces:
        found[top : top + side, left : left + side] = colour
    return found


@pytest.fixture(scope="session")
def face_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train and tune a net that crops faces, once, and return where all of it lies."""
    root = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    home = root / "input" / "tiny" / "train"
    for number in range(40):
        left, top, side = rng.integers(2, 30), rng.integers(2, 30), rng.integers(14, 26)
        name, colour = (("real", REAL), ("fake", FAKE))[number % 2]
        pixels = people((left, top, side, colour))
        noise = rng.integers(-9, 10, pixels.shape)
        pixels = np.clip(pixels + noise, 0, 255).astype(np.uint8)
        write_picture(home / name / f"{number:02d}.png", pixels)
    configs = root / "configs" / "models"
    configs.mkdir(parents=True)
    (configs / "tiny.yaml").write_text(
        tiny_model().replace("image_size: 16", "image_size: 16, crop: face")
        + "face: {detector: red, margin: 1.0}\nframes: {train: 4, eval: 4}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RVF_ROOT", str(root))
        use_red(patch)
        flags = ["--data", "tiny"]
        for fold in "01":
            words = ["--model", "tiny", "--fold", fold, "--scheme", "sgkf2_s0", "--no-report"]
            words += [*flags, "--device", "cpu", "--workers", "0"]
            assert parsers.main("train", words) == 0
        assert parsers.main("tune", ["--strategies", "mean", *flags]) == 0
    return root


@pytest.fixture
def face_looker(face_root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Looker]:
    """Return a call of what is asked to a `Looker` by that net; nothing may be changed there."""
    monkeypatch.setenv("RVF_ROOT", str(face_root))
    use_red(monkeypatch)

    def make(**asked: object) -> Looker:
        recipe = paths.recipe_json("tiny", "tuned")
        return Looker("tuned", recipe, CPU, Looking(**{"risk": 0, **asked}))  # type: ignore[arg-type]

    return make
