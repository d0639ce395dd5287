"""Bytes to pixels. Oracle: Pillow."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from src.data.pixels.images import center_crop, decode_image, resize_image
from src.errors import UnreadableImageError, UserError


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def assert_close(found: np.ndarray, wanted: np.ndarray, atol: int = 0) -> None:
    assert found.dtype == np.uint8
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= atol


PIXELS = smooth(30, 42)
PLAIN = Image.fromarray(PIXELS)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_give_back_the_pixels(kind):
    found = decode_image(encode(PLAIN, kind))
    assert_close(found, PIXELS)
    assert found.flags.c_contiguous


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 90}),
        ("JPEG", {"quality": 90, "progressive": True, "subsampling": 2}),
        ("WEBP", {"quality": 80}),
        ("WEBP", {"lossless": True}),
        ("GIF", {}),
    ],
)
def test_lossy_formats_equal_pillow(kind, options):
    data = encode(PLAIN, kind, **options)
    assert_close(decode_image(data), by_pillow(data), 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(PLAIN, kind, exif=exif)
    found = decode_image(data)
    assert found.shape[:2] == ((42, 30) if orientation >= 5 else (30, 42))
    assert_close(found, by_pillow(data), 3)


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA"])
def test_modes_become_rgb_as_pillow_does_it(mode):
    if mode in ("LA", "RGBA"):
        image = PLAIN.convert(mode[:-1])
        image.putalpha(Image.fromarray(PIXELS[..., 0]))
    else:
        image = PLAIN.convert(mode)
    data = encode(image, "PNG")
    assert_close(decode_image(data), by_pillow(data))


def test_cmyk_jpeg():
    data = encode(PLAIN.convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert_close(decode_image(data), by_pillow(data), 2)
    assert np.abs(decode_image(data).astype(int) - PIXELS).mean() < 8  # not inverted


def test_grey_jpeg_has_three_equal_channels():
    found = decode_image(encode(PLAIN.convert("L"), "JPEG"))
    assert found.shape == (30, 42, 3)
    assert (found == found[..., :1]).all()


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bit_keeps_the_high_byte(suffix):
    deep = PIXELS.astype(np.uint16) * 257
    for image, wanted in ((deep[..., ::-1], PIXELS), (deep[..., 0], PIXELS[..., :1].repeat(3, 2))):
        done, data = cv2.imencode(suffix, image)
        assert done
        assert_close(decode_image(data.tobytes()), wanted, 1)


def test_red_is_the_first_channel():
    red = Image.new("RGB", (4, 3), (255, 0, 0))
    assert decode_image(encode(red, "PNG"))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"this is not an image, whatever its name says" * 20,
        bytes(1000),
        b"\xff\xd8\xff\xe0",
        b"\x89PNG\r\n\x1a\n",
        encode(PLAIN, "PNG")[:60],
        encode(PLAIN, "JPEG")[:200],
        b"GIF89a",
        b"RIFF\x10\0\0\0WEBP",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ],
)
def test_what_is_not_an_image_is_said_to_be_unreadable(data):
    with pytest.raises(UnreadableImageError):
        decode_image(data)


def test_empty_is_said_to_be_empty():
    with pytest.raises(UnreadableImageError, match="empty"):
        decode_image(b"")


# --- resizing ---


@pytest.mark.parametrize("geometry", ["squash", "short_side"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_the_same_size_changes_nothing(geometry, interpolation):
    image = smooth(24, 24)
    assert_close(resize_image(image, 24, geometry, interpolation), image)


@pytest.mark.parametrize("geometry", ["squash", "short_side"])
@pytest.mark.parametrize("shape", [(24, 24), (60, 40), (10, 90), (7, 5), (1, 1), (1, 50), (48, 33)])
@pytest.mark.parametrize("size", [8, 24, 33])
def test_any_shape_becomes_a_contiguous_square(geometry, shape, size):
    found = resize_image(smooth(*shape), size, geometry, "bicubic")
    assert found.shape == (size, size, 3)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous


def test_a_view_becomes_contiguous():
    view = smooth(24, 48)[:, ::2]
    assert resize_image(view, 24, "squash", "bicubic").flags.c_contiguous


def test_short_side_of_a_fitting_image_is_the_middle_square():
    image = smooth(24, 41)
    assert_close(resize_image(image, 24, "short_side", "bicubic"), image[:, 8:32])
    assert_close(resize_image(image.transpose(1, 0, 2), 24, "short_side", "bicubic"),
                 image[:, 8:32].transpose(1, 0, 2))  # fmt: skip


def circle(height: int, width: int) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    cv2.circle(image, (width // 2, height // 2), 30, (255, 255, 255), -1)
    return image


def extent(image: np.ndarray) -> tuple[int, int]:
    bright = image[..., 0] > 127
    return int(bright.any(1).sum()), int(bright.any(0).sum())


def test_squash_squeezes_and_short_side_keeps_the_aspect_ratio():
    image = circle(80, 160)
    high, wide = extent(resize_image(image, 40, "squash", "bilinear"))
    assert abs(high - 30) <= 1
    assert abs(wide - 15) <= 1
    high, wide = extent(resize_image(image, 40, "short_side", "bilinear"))
    assert abs(high - 30) <= 1
    assert abs(wide - 30) <= 1


@pytest.mark.parametrize(("shape", "size"), [((64, 64), 16), ((60, 90), 30), ((128, 128), 32)])
def test_shrinking_by_a_whole_factor_is_the_mean_of_blocks(shape, size):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    high, wide = shape[0] // size, shape[1] // size
    wanted = image.reshape(size, high, size, wide, 3).mean((1, 3))
    found = resize_image(image, size, "squash", "bicubic")
    assert np.abs(found - wanted).max() <= 0.51


@pytest.mark.parametrize("shape", [(100, 70), (333, 47), (50, 90)])
def test_shrinking_equals_pillow_box(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
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
        resize_image(PIXELS, 8, "crop", "bicubic")


@pytest.mark.parametrize(
    ("side", "size", "first"), [(10, 10, 0), (10, 8, 1), (11, 8, 1), (9, 4, 2)]
)
def test_center_crop(side, size, first):
    image = np.arange(side * side * 3, dtype=np.uint8).reshape(side, side, 3)
    found = center_crop(image, size)
    assert np.array_equal(found, image[first : first + size, first : first + size])
    assert found.flags.c_contiguous
