"""Pictures to canvases, and stored again: oracles are Pillow, OpenCV and counting by hand."""

import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from src.config import InputSpec, read_model
from src.data.pixels import images
from src.data.pixels.cache import canvas_name, identity, open_cache
from src.data.pixels.cache_build import build_cache
from src.data.pixels.images import (
    Canvas,
    center_crop,
    decode_image,
    make_canvases,
    reencode,
    resize_image,
    to_jpeg,
)
from src.data.pixels.source import PixelSource
from src.errors import UserError

PLAIN, EQUAL = Canvas(24, "squash", "bicubic"), Canvas(24, "squash", "bicubic", 90)


def smooth(height, width, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


def png(pixels):
    return cv2.imencode(".png", pixels[:, :, ::-1])[1].tobytes()


def jpeg(pixels, quality):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def assert_close(found, wanted, atol=0):
    assert found.dtype == np.uint8
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= atol


@pytest.mark.parametrize("geometry", ["squash", "short_side"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_the_same_size_changes_nothing(geometry, interpolation):
    image = smooth(24, 24)
    assert_close(resize_image(image, 24, geometry, interpolation), image)


@pytest.mark.parametrize("geometry", images.GEOMETRIES)
@pytest.mark.parametrize("shape", [(24, 24), (60, 40), (10, 90), (7, 5), (1, 1), (1, 50), (48, 33)])
@pytest.mark.parametrize("size", [8, 24, 33])
def test_any_shape_becomes_a_contiguous_square(geometry, shape, size):
    found = resize_image(smooth(*shape)[:, ::-1], size, geometry, "bicubic")
    assert found.shape == (size, size, 3)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous


def test_short_side_of_a_fitting_image_is_the_middle_square():
    image = smooth(24, 41)
    assert_close(resize_image(image, 24, "short_side", "bicubic"), image[:, 8:32])
    assert_close(resize_image(image.transpose(1, 0, 2), 24, "short_side", "bicubic"),
                 image[:, 8:32].transpose(1, 0, 2))  # fmt: skip


@pytest.mark.parametrize(("geometry", "high", "wide"), [("squash", 30, 15), ("short_side", 30, 30)])
def test_squash_squeezes_and_short_side_keeps_the_aspect_ratio(geometry, high, wide):
    circle = np.zeros((80, 160, 3), np.uint8)
    cv2.circle(circle, (80, 40), 30, (255, 255, 255), -1)
    bright = resize_image(circle, 40, geometry, "bilinear")[..., 0] > 127
    assert abs(bright.any(1).sum() - high) <= 1
    assert abs(bright.any(0).sum() - wide) <= 1


@pytest.mark.parametrize(("shape", "size"), [((64, 64), 16), ((60, 90), 30), ((128, 128), 32)])
def test_shrinking_by_a_whole_factor_is_the_mean_of_blocks(shape, size):
    image = noise(*shape)
    high, wide = shape[0] // size, shape[1] // size
    wanted = image.reshape(size, high, size, wide, 3).mean((1, 3))
    found = resize_image(image, size, "squash", "bicubic")
    assert np.abs(found - wanted).max() <= 0.51


@pytest.mark.parametrize("shape", [(100, 70), (333, 47), (50, 90)])
def test_shrinking_equals_pillow_box(shape):
    image = noise(*shape)
    found = resize_image(image, 32, "squash", "bicubic").astype(int)
    wanted = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BOX)).astype(int)
    # Pillow counts a pixel to the box that its centre lies in, OpenCV by area.
    assert np.abs(found - wanted).mean() < 20
    aliased = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.NEAREST))
    assert found.std() < 0.75 * aliased.std()


@pytest.mark.parametrize("shape", [(256, 16), (16, 256)])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_no_aliasing_where_one_side_shrinks_and_the_other_grows(shape, interpolation):
    long = max(shape)
    stripes = np.tile(np.array([0, 255], np.uint8), long // 2)  # finer than 64 pixels can show
    image = np.broadcast_to(stripes.reshape(-1, 1, 1), (long, min(shape), 3))
    image = np.ascontiguousarray(image if shape[0] == long else image.transpose(1, 0, 2))
    found = resize_image(image, 64, "squash", interpolation)
    assert np.abs(found.astype(int) - 127.5).max() <= 1


def test_enlarging_follows_the_interpolation():
    image = smooth(8, 8)
    found = {
        name: resize_image(image, 32, "squash", name) for name in ("nearest", "bilinear", "bicubic")
    }
    assert_close(found["nearest"], image.repeat(4, 0).repeat(4, 1))
    pillow = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR))
    assert_close(found["bilinear"], pillow, 1)
    assert not np.array_equal(found["bicubic"], found["bilinear"])
    # Pillow's cubic has a = -0.5, OpenCV's -0.75: near, not equal.
    pillow = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC))
    assert np.abs(found["bicubic"].astype(int) - pillow).mean() < 4


def test_unknown_geometry():
    with pytest.raises(UserError, match="'crop'; known: squash, short_side, native"):
        resize_image(smooth(9, 9), 8, "crop", "bicubic")


@pytest.mark.parametrize(
    ("side", "size", "first"), [(10, 10, 0), (10, 8, 1), (11, 8, 1), (9, 4, 2)]
)
def test_center_crop(side, size, first):
    image = np.arange(side * side * 3, dtype=np.uint8).reshape(side, side, 3)
    found = center_crop(image, size)
    assert np.array_equal(found, image[first : first + size, first : first + size])
    assert found.flags.c_contiguous


def test_a_strip_is_not_enlarged_as_a_whole(monkeypatch):
    largest = 0
    real = cv2.resize

    def watched(image, size, **options):
        nonlocal largest
        largest = max(largest, size[0] * size[1])
        return real(image, size, **options)

    monkeypatch.setattr(images.cv2, "resize", watched)
    strip = np.tile(np.arange(60_000, dtype=np.uint16).astype(np.uint8)[None, :, None], (1, 1, 3))
    found = resize_image(strip, 64, "short_side", "nearest")
    assert found.shape == (64, 64, 3)
    assert (found[0, 0, 0] == strip[0, 29_999:30_001, 0]).any()
    assert largest < 64 * 64 * 17


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60))
def test_native_is_the_middle_of_the_reflected_image(height, width, size):
    image = noise(height, width)
    found = resize_image(image, size, "native", "bicubic")
    pads = [(max(0, size - side) // 2, max(0, size - side + 1) // 2) for side in (height, width)]
    wide = np.pad(image, [*pads, (0, 0)], mode="reflect")
    top, left = ((side - size) // 2 for side in wide.shape[:2])
    assert np.array_equal(found, wide[top : top + size, left : left + size])
    assert found.flags.c_contiguous


# --- canvases ---


@pytest.mark.parametrize("geometry", ["squash", "short_side", "native"])
def test_a_canvas_does_not_depend_on_the_others(geometry):
    data = jpeg(smooth(300, 410), 90)
    canvas = Canvas(40, geometry, "bicubic")
    (alone,), _ = make_canvases(data, [canvas])
    others = [Canvas(120, "squash", "bicubic"), canvas, Canvas(16, "native", "bicubic")]
    assert np.array_equal(make_canvases(data, others)[0][1], alone)
    if geometry == "native":
        assert np.array_equal(alone, decode_image(data)[130:170, 185:225])


def test_scaled_decoding_aliases_no_more_than_the_mean_of_blocks():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    (found,), _ = make_canvases(jpeg(stripes, 95), [Canvas(32, "squash", "bicubic")])
    assert np.abs(found.astype(int) - 127.5).max() <= 4


# --- stored again ---


@pytest.mark.parametrize("quality", [1, 50, 90, 100])
def test_it_is_what_pillow_reads_from_an_ordinary_jpeg(quality):
    pixels = smooth(48, 48)
    with Image.open(io.BytesIO(to_jpeg(pixels, quality))) as image:
        table = image.quantization[0]
        assert image.info.get("progressive") is None
        theirs = np.asarray(image.convert("RGB"))
    with Image.open(io.BytesIO(jpeg(pixels, quality))) as image:
        assert image.quantization[0] == table
        assert np.array_equal(np.asarray(image.convert("RGB")), theirs)
    assert np.array_equal(reencode(pixels, quality), theirs)


def test_a_canvas_passes_through_it_once_it_has_its_size():
    data = png(smooth(48, 48, 1))
    (plain, equal), _ = make_canvases(data, [PLAIN, EQUAL])
    assert np.array_equal(equal, reencode(plain, 90))
    assert not np.array_equal(equal, plain)


def test_a_picture_that_was_stored_so_before_stays_as_it_is():
    pixels = np.repeat(smooth(24, 24, 2)[:, :, :1], 3, axis=2)
    once = reencode(pixels, 75)
    assert np.abs(once.astype(int) - pixels).mean() > 1
    assert np.abs(reencode(once, 75).astype(int) - once).mean() < 0.5


def test_a_jpeg_is_decoded_whole_as_any_other_format():
    """Scaled decoding is for JPEG alone, and would tell the formats apart."""
    data = to_jpeg(np.repeat(smooth(96, 96, 3)[:, :, :1], 3, axis=2), 90)
    same = png(decode_image(data))
    (of_jpeg,), (of_png,) = (make_canvases(one, [EQUAL])[0] for one in (data, same))
    assert np.array_equal(of_jpeg, of_png)
    (of_jpeg,), (of_png,) = (make_canvases(one, [PLAIN])[0] for one in (data, same))
    assert not np.array_equal(of_jpeg, of_png)


def test_caches_of_either_kind_keep_apart_and_old_ones_stay_good(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(smooth(48, 48, number)))
    source = PixelSource(tmp_path, ["0.png", "1.png", "2.png"], [EQUAL])
    marks, home = source.marks(), tmp_path / "cache"
    kept = build_cache(home, EQUAL, marks, source.read_slots, source.numbers.slot_starts)
    assert np.array_equal(kept.pixels[1], source.read(1)[0])
    assert open_cache(home, PLAIN, marks) is None
    assert open_cache(home, EQUAL._replace(reencode=80), marks) is None
    assert canvas_name(EQUAL) == "squash_24_bicubic_q90"
    assert canvas_name(PLAIN) == "squash_24_bicubic"
    assert identity(PLAIN)[1] == [24, "squash", "bicubic"]  # as caches from before the key


def test_the_quality_travels_with_the_preprocessing():
    spec = InputSpec(24, 24, "squash", "bicubic", (0.5,) * 3, (0.5,) * 3, 90)  # type: ignore[arg-type]
    assert Canvas.of(spec) == EQUAL
    from src.models.backbones import Native
    from src.models.classifier import input_spec

    config = read_model("timm:test_vit2", {"input.reencode": 70})
    native = Native(24, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), ())
    assert input_spec(config, native).reencode == 70


@pytest.mark.parametrize("quality", [0, 101])
def test_a_quality_that_is_none_is_refused(quality):
    with pytest.raises(UserError, match=r"input\.reencode must be (>= 1|<= 100) \(found"):
        read_model("timm:test_vit2", {"input.reencode": quality})
