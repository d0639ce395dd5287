"""Odd pictures through the whole job: what can be read is, what cannot is named, nothing is lost.

That each kind decodes to the right pixels is checked against Pillow in
tests/data/pixels/test_images.py.
"""

import io
import json
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from src import paths
from src.data.pixels.images import decode_image, resize_image
from src.errors import UnreadableImageError
from tests.hostile.conftest import leftovers, picture, predict, train, tree, tune

RNG = np.random.default_rng(5)


def structured(height: int = 24, width: int = 24) -> np.ndarray:
    small = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))


def encode(kind: str, mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(structured()).convert(mode).save(file, kind, **options)
    return file.getvalue()


def animated(kind: str) -> bytes:
    frames = [Image.fromarray(structured()) for _ in range(3)]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], duration=50)
    return file.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode("JPEG", exif=exif)


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that announces a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + start + body + chunk(b"IEND", b"")


def sixteen_bit() -> bytes:
    return cv2.imencode(".png", structured().astype(np.uint16) * 257)[1].tobytes()


READABLE = {
    "png_named.jpg": encode("PNG"),
    "cmyk.jpg": encode("JPEG", "CMYK"),
    "sixteen.png": sixteen_bit(),
    "grey.jpg": encode("JPEG", "L"),
    "alpha.png": encode("PNG", "RGBA"),
    "palette.png": encode("PNG", "P"),
    "turned.jpg": turned(),
    "animated.gif": animated("GIF"),
    "animated.webp": animated("WEBP"),
    "one_pixel.png": cv2.imencode(".png", np.full((1, 1, 3), 77, np.uint8))[1].tobytes(),
    "strip.png": cv2.imencode(".png", structured(20, 20000))[1].tobytes(),
    "progressive.jpg": encode("JPEG", progressive=True),
    "bitmap.bmp": encode("BMP"),
}
DAMAGED = {
    "cut.jpg": encode("JPEG", quality=95)[:-200],
    "cut_and_ended.jpg": encode("JPEG", quality=95)[:-200] + b"\xff\xd9",
    "cut.png": encode("PNG")[:-400],
}
UNREADABLE = {
    "empty.jpg": b"",
    "text.jpg": b"<html>404 not found</html>",
    "cut_header.jpg": encode("JPEG")[:60],
    "no_row.png": encode("PNG")[:70],
    "bomb.png": png_header(60000, 60000),
    "bomb_sideways.png": png_header(2_000_000_000, 2),
}


def test_the_whole_job_with_every_kind_of_picture(toy, artefact_root, capfd):
    for folder in ("train/real", "train/fake", "test"):
        for index, (name, data) in enumerate({**READABLE, **UNREADABLE}.items()):
            # Another picture in each folder, or all of a kind would be copies of each other.
            (toy / folder / name).write_bytes(data + bytes([index]) * len(folder))
        for name, data in DAMAGED.items():
            (toy / folder / name).write_bytes(data)
    before = tree(toy)
    assert [train(report=True), tune(), predict()] == [0, 0, 0]
    assert tree(toy) == before  # nothing is ever written beside the data
    folds = pd.read_csv(paths.folds_csv("toy", "sgkf2_s42"))
    excluded = pd.read_csv(paths.excluded_csv("toy", "sgkf2_s42"))
    bad = {f"{kind}/{name}" for kind in ("real", "fake") for name in {**UNREADABLE, **DAMAGED}}
    assert set(excluded["item_id"]) == bad
    assert excluded["reason"].str.len().min() > 5
    assert len(folds) == 12 + 2 * len(READABLE)
    answers = pd.read_csv(paths.submission_csv("toy", "tuned"))
    names = {*READABLE, *UNREADABLE, *DAMAGED, *(f"{i}.png" for i in range(4))}
    assert set(answers["filename"]) == names
    assert answers["label"].isin([0, 1]).all()
    sidecar = json.loads(paths.submission_csv("toy", "tuned").with_suffix(".json").read_text())
    assert set(sidecar["fallback"]["items"]) == set(UNREADABLE)
    assert set(sidecar["partial"]) == set(DAMAGED)
    assert all(why.startswith("damaged picture") for why in sidecar["partial"].values())
    oof = pd.concat(
        pd.read_csv(paths.oof_csv("toy", "sgkf2_s42", "small", fold)) for fold in (0, 1)
    )
    assert set(oof["item_id"]) == set(folds["item_id"])
    assert np.isfinite(oof["logit"]).all()
    assert not leftovers(artefact_root)
    said = capfd.readouterr()
    assert f"{len(DAMAGED)} not read as a whole" in said.out
    assert not [word for word in ("Traceback", "libpng", "JPEG data", "WARN") if word in said.err]


@pytest.mark.parametrize("size", [(60000, 60000), (30000, 30000), (2_000_000_000, 2)])
def test_a_decompression_bomb_is_refused_before_memory_is_taken(size):
    data = png_header(*size)
    tracemalloc.start()
    with pytest.raises(UnreadableImageError):
        decode_image(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6


@pytest.mark.parametrize("shape", [(20, 20000), (20000, 20), (1, 1), (1, 20000)])
@pytest.mark.parametrize("geometry", ["squash", "short_side"])
def test_extreme_shapes_become_a_canvas(shape, geometry):
    pixels = decode_image(cv2.imencode(".png", structured(*shape))[1].tobytes())
    assert pixels.shape == (*shape, 3)
    canvas = resize_image(pixels, 32, geometry, "bicubic")
    assert canvas.shape == (32, 32, 3)


def test_the_first_frame_of_an_animation_counts():
    for kind in ("GIF", "WEBP"):
        data = animated(kind)
        first = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
        assert np.abs(decode_image(data) - first).mean() < 4


def test_what_cannot_be_read_is_never_a_picture():
    for data in UNREADABLE.values():
        with pytest.raises(UnreadableImageError):
            decode_image(data)
    assert decode_image(picture(1)).shape == (24, 24, 3)
