"""Every picture stored the same way: what goes, what stays, and that caches keep apart."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from src.config import InputSpec, read_model
from src.data.pixels.cache import canvas_name, identity, open_cache
from src.data.pixels.cache_build import build_cache
from src.data.pixels.images import Canvas, decode_image, make_canvases, reencode, to_jpeg
from src.data.pixels.source import PixelSource
from src.errors import UserError

PLAIN, EQUAL = Canvas(24, "squash", "bicubic"), Canvas(24, "squash", "bicubic", 90)


def smooth(seed: int, side: int = 48) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels[:, :, ::-1])[1].tobytes()


@pytest.mark.parametrize("quality", [1, 50, 90, 100])
def test_it_is_what_pillow_reads_from_an_ordinary_jpeg(quality: int) -> None:
    pixels = smooth(0)
    with Image.open(io.BytesIO(to_jpeg(pixels, quality))) as image:
        table = image.quantization[0]  # type: ignore[attr-defined]
        assert image.info.get("progressive") is None
        theirs = np.asarray(image.convert("RGB")).astype(int)
    reference = io.BytesIO()
    Image.fromarray(pixels).save(reference, "jpeg", quality=quality)
    with Image.open(reference) as image:
        assert image.quantization[0] == table  # type: ignore[attr-defined]
    found = reencode(pixels, quality)
    assert (found.shape, found.dtype) == (pixels.shape, np.uint8)
    assert np.abs(found.astype(int) - theirs).max() <= 4  # decoders may round differently


def test_a_canvas_passes_through_it_once_it_has_its_size() -> None:
    data = png(smooth(1))
    (plain, equal), _ = make_canvases(data, [PLAIN, EQUAL])
    assert np.array_equal(equal, reencode(plain, 90))
    assert not np.array_equal(equal, plain)


def test_a_picture_that_was_stored_so_before_stays_as_it_is() -> None:
    pixels = np.repeat(smooth(2, 24)[:, :, :1], 3, axis=2)
    once = reencode(pixels, 75)
    assert np.abs(once.astype(int) - pixels).mean() > 1
    assert np.abs(reencode(once, 75).astype(int) - once).mean() < 0.5


def test_a_jpeg_is_decoded_whole_as_any_other_format() -> None:
    """Scaled decoding is for JPEG alone, and would tell the formats apart."""
    jpeg = to_jpeg(np.repeat(smooth(3, 96)[:, :, :1], 3, axis=2), 90)
    same = png(decode_image(jpeg))
    (of_jpeg,), (of_png,) = (make_canvases(data, [EQUAL])[0] for data in (jpeg, same))
    assert np.array_equal(of_jpeg, of_png)
    (of_jpeg,), (of_png,) = (make_canvases(data, [PLAIN])[0] for data in (jpeg, same))
    assert not np.array_equal(of_jpeg, of_png)


def test_caches_of_either_kind_keep_apart_and_old_ones_stay_good(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(smooth(number)))
    source = PixelSource(tmp_path, ["0.png", "1.png", "2.png"], [EQUAL])
    marks, home = source.marks(), tmp_path / "cache"
    kept = build_cache(home, EQUAL, marks, lambda row: source.read_or_stop(row)[0])
    assert np.array_equal(kept.pixels[1], source.read(1)[0])
    assert open_cache(home, PLAIN, marks) is None
    assert open_cache(home, EQUAL._replace(reencode=80), marks) is None
    assert canvas_name(EQUAL) == "squash_24_bicubic_q90"
    assert canvas_name(PLAIN) == "squash_24_bicubic"
    assert identity(PLAIN)[1] == [24, "squash", "bicubic"]  # as caches from before the key


def test_the_quality_travels_with_the_preprocessing() -> None:
    spec = InputSpec(24, 24, "squash", "bicubic", (0.5,) * 3, (0.5,) * 3, 90)  # type: ignore[arg-type]
    assert Canvas.of(spec) == EQUAL
    from src.models.backbones import Native
    from src.models.classifier import input_spec

    config = read_model("timm:test_vit2", {"input.reencode": 70})
    native = Native(24, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), ())
    assert input_spec(config, native).reencode == 70


@pytest.mark.parametrize("quality", [0, 101])
def test_a_quality_that_is_none_is_refused(quality: int) -> None:
    with pytest.raises(UserError, match=r"input\.reencode must be (>= 1|<= 100) \(found"):
        read_model("timm:test_vit2", {"input.reencode": quality})
