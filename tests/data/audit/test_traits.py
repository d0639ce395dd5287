"""Traits of images whose answers are known."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from src.data.audit.adversarial import BANDS, NAMES, blockiness, spectrum, traits_of


def traits(folder: Path, data: bytes) -> dict[str, float]:
    (folder / "x").write_bytes(data)
    return dict(zip(NAMES, traits_of(folder, "x"), strict=True))


def noise(height: int = 64, width: int = 48, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("quality", [30, 90])
@pytest.mark.parametrize(("subsampling", "mean_factor"), [(0, 1.0), (2, 2.0)])
def test_a_jpeg_tells_how_it_was_stored(
    tmp_path: Path, quality: int, subsampling: int, mean_factor: float
):
    buffer = io.BytesIO()
    Image.fromarray(noise()).save(buffer, "jpeg", quality=quality, subsampling=subsampling)
    found = traits(tmp_path, buffer.getvalue())
    assert (found["width"], found["height"], found["aspect"]) == (48, 64, 0.75)
    assert found["bytes"] == len(buffer.getvalue())
    assert found["bytes per pixel"] == found["bytes"] / (48 * 64)
    assert found["jpeg chroma subsampling"] == mean_factor
    table = Image.open(io.BytesIO(buffer.getvalue())).quantization[0]  # type: ignore[attr-defined]
    assert found["jpeg quantisation"] == pytest.approx(np.mean(table))


def test_colours_are_those_of_the_picture(tmp_path: Path):
    pixels = np.empty((40, 40, 3), np.uint8)
    pixels[:] = (10, 100, 200)
    found = traits(tmp_path, cv2.imencode(".png", pixels[:, :, ::-1])[1].tobytes())
    assert [found[f"mean of {c}"] for c in ("red", "green", "blue")] == [10, 100, 200]
    assert [found[f"spread of {c}"] for c in ("red", "green", "blue")] == [0, 0, 0]
    assert found["saturation"] == 190
    assert found["sharpness"] == found["clipped"] == 0
    assert found["jpeg quantisation"] == -1


def test_what_cannot_be_read_has_no_traits(tmp_path: Path):
    assert np.isnan(list(traits(tmp_path, b"no image").values())).all()


@pytest.mark.parametrize("frequency", [2, 9, 17, 26, 30])
def test_a_wave_lies_in_its_ring(frequency: int):
    wave = np.cos(2 * np.pi * frequency * np.arange(64) / 64)[:, None] * np.ones((1, 64))
    assert spectrum(100 * wave).argmax() == frequency * 2 * BANDS // 64


def test_contrast_plays_no_part_in_the_spectrum():
    grey = noise()[..., 0].astype(float)
    np.testing.assert_allclose(spectrum(grey), spectrum(0.1 * grey + 90), atol=1e-9)


def test_blocks_of_eight_are_seen_and_noise_is_not():
    rng = np.random.default_rng(0)
    blocks = np.kron(rng.uniform(0, 255, (8, 8)), np.ones((8, 8)))
    assert blockiness(blocks) > 100
    assert blockiness(rng.uniform(0, 255, (256, 256))) == pytest.approx(1, abs=0.02)
    assert blockiness(np.zeros((8, 300))) == 1


@given(st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_traits_of_any_shape_are_finite(height: int, width: int, flat: bool):
    from src.data.audit.adversarial import _pixel_traits

    pixels = np.zeros((height, width, 3), np.uint8) if flat else noise(height, width)
    assert np.isfinite(_pixel_traits(pixels)).all()
