"""The JPEG decoder against OpenCV: the same pixels, and the same files readable."""

import io
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from src.data.items.files import read_bytes
from src.data.items.listing import list_files
from src.data.pixels import decode
from src.data.pixels.decode import decode as decode_still
from src.data.pixels.decode import jpeg_orientation
from src.data.pixels.images import Canvas, decode_image, make_canvases
from src.errors import UnreadableImageError


def photo(height, width, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))


def jpeg(pixels, mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def with_orientation(pixels, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(pixels, quality=90, exif=exif)


def by_opencv(data):
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


DATA = jpeg(photo(60, 81), quality=85)
ODD = [
    DATA,
    jpeg(photo(60, 81), quality=85, progressive=True, subsampling=2),
    jpeg(photo(61, 33), quality=60, subsampling=0),
    jpeg(photo(40, 40), "L"),
    jpeg(photo(40, 40), keep_rgb=True),
    with_orientation(photo(30, 50), 6),
    with_orientation(photo(30, 50), 9),
]


@pytest.mark.parametrize("data", ODD)
def test_full_size_pixels_are_those_of_opencv(data):
    wanted = by_opencv(data)
    assert wanted is not None
    assert np.array_equal(decode_image(data), wanted)


@pytest.mark.real
@pytest.mark.parametrize("name", ["cifake", "dfdc_faces"])
def test_real_pictures_have_the_pixels_that_opencv_gives(shared_data, name):
    entries = list_files(shared_data / name).media
    entries = entries[:: len(entries) // 100]
    for entry in entries:
        data = read_bytes(shared_data / name, entry.path)
        assert np.array_equal(decode_image(data), by_opencv(data))
    assert len(entries) > 80


@given(st.sampled_from(ODD), st.integers(0, 10_000), st.integers(-40, 40), st.binary(max_size=6))
def test_scaling_decides_nothing_and_what_is_whole_equals_opencv(data, place, cut, junk):
    place %= len(data)
    broken = data[:place] + junk + data[place + abs(cut) :]
    if cut < 0:
        broken = data[:place]
    wanted = by_opencv(broken)
    canvases = [Canvas(8, "squash", "bicubic"), Canvas(16, "short_side", "bicubic")]
    try:
        found = decode_still(broken, [None])
    except UnreadableImageError:
        assert wanted is None
        with pytest.raises(UnreadableImageError):
            make_canvases(broken, canvases)
        return
    if not found.problem and wanted is not None and b"Exif" not in data:
        assert np.array_equal(found.pixels[0], wanted)
    drawn, problem = make_canvases(broken, canvases)
    assert [c.shape for c in drawn] == [(8, 8, 3), (16, 16, 3)]
    assert bool(problem) == bool(found.problem)


@pytest.mark.parametrize("shape", [(60, 81), (500, 333), (64, 64), (20, 700), (1, 1)])
@pytest.mark.parametrize("side", [1, 8, 24, 32, 64])
def test_a_scale_covers_the_side_wherever_the_image_does(shape, side):
    found = decode_still(jpeg(photo(*shape)), [side]).pixels[0]
    assert all(
        got >= min(side, full) and got <= full
        for got, full in zip(found.shape[:2], shape, strict=True)
    )
    if min(shape) >= 8 * side:
        assert max(found.shape) <= max(shape) // 4 + 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_scaled_pixels_are_the_shrunk_image_also_where_it_is_turned(orientation):
    data = with_orientation(photo(200, 320), orientation)
    small = decode_still(data, [50]).pixels[0]
    full = decode_image(data)
    assert small.shape == (full.shape[0] // 4, full.shape[1] // 4, 3)
    wanted = cv2.resize(full, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - wanted).mean() < 1.5


# --- EXIF ---


def tiff(order, *entries, start=8):
    mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
    return mark + struct.pack(f"{order}IH", start, len(entries)) + b"".join(entries)


def app1(content):
    return b"\xff\xe1" + struct.pack(">H", len(content) + 8) + b"Exif\0\0" + content


def orientation_entry(order, value, kind=3, count=1):
    return struct.pack(f"{order}HHIHH", 0x0112, kind, count, value, 0)


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_is_read_in_both_byte_orders(order):
    other = struct.pack(f"{order}HHII", 0x010F, 4, 1, 7)
    for value in range(1, 9):
        segment = app1(tiff(order, other, orientation_entry(order, value)))
        assert jpeg_orientation(DATA[:2] + segment + DATA[2:]) == value
    assert jpeg_orientation(DATA[:2] + app1(tiff(order, other)) + DATA[2:]) == 1


@pytest.mark.parametrize(
    "segments",
    [
        app1(tiff("<", orientation_entry("<", 6))) * 2,
        app1(tiff("<", orientation_entry("<", 0))),
        app1(tiff("<", orientation_entry("<", 9))),
        app1(tiff("<", orientation_entry("<", 6, kind=4))),
        app1(tiff("<", orientation_entry("<", 6, count=2))),
        app1(tiff("<", orientation_entry("<", 6), start=900)),
        app1(b"II"),
        app1(b"what?" * 10),
    ],
)
def test_odd_exif_turns_a_picture_as_pillow_does(segments):
    data = DATA[:2] + segments + DATA[2:]
    with Image.open(io.BytesIO(data)) as image:
        try:
            wanted = np.asarray(ImageOps.exif_transpose(image))
        except Exception:  # noqa: BLE001
            wanted = np.asarray(image)
    assert np.array_equal(decode_image(data), wanted)


def test_a_large_jpeg_is_turned_by_metadata_that_lie_deep():
    notes = b"\xff\xfe" + struct.pack(">H", 60_002) + bytes(60_000)
    data = with_orientation(photo(30, 50), 6)
    assert decode_image(data[:2] + notes * 2 + data[2:]).shape == (50, 30, 3)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reading_of_exif(junk):
    for data in (junk, DATA[:2] + app1(junk) + DATA[2:], b"\xff\xd8\xff\xe1" + junk + b"Exif\0\0"):
        assert jpeg_orientation(data) in range(1, 9)


# --- sizes ---


def png_header(width, height):
    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000)))


def jpeg_header(width, height):
    place = DATA.index(b"\xff\xc0") + 5
    return DATA[:place] + struct.pack(">HH", height, width) + DATA[place + 4 :]


def gif_header(width, height):
    file = io.BytesIO()
    Image.new("P", (4, 4)).save(file, "GIF")
    return b"GIF89a" + struct.pack("<HH", width, height) + file.getvalue()[10:]


@pytest.mark.parametrize(
    "data",
    [
        png_header(30_000, 30_000),
        jpeg_header(65_000, 65_000),
        gif_header(60_000, 60_000),
        b"BM" + struct.pack("<IIIIiiHHIIiiII", 99, 0, 54, 40, 40_000, 40_000, 1, 24, *[0] * 6),
    ],
)
def test_a_huge_header_is_refused_before_anything_is_allocated(data, monkeypatch):
    def allocate(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", allocate)
    monkeypatch.setattr(decode.simplejpeg, "decode_jpeg", allocate)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for call in (decode_image, lambda d: make_canvases(d, [Canvas(8, "squash", "bicubic")])):
            with pytest.raises(UnreadableImageError, match=r"announces \d+x\d+.*268,435,456"):
                call(data)


def test_a_long_thin_image_is_readable():
    strip = photo(20, 20_000)
    for data in (jpeg(strip), cv2.imencode(".png", strip)[1].tobytes()):
        assert decode_image(data).shape == (20, 20_000, 3)
