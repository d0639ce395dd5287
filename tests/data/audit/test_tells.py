"""One planted difference between real and fake at a time, and none at all."""

import hashlib
import io
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from src.data.audit.fields import FIELDS, fields_of
from src.data.audit.metadata import audit_dataset, audit_part
from src.data.layouts.load import load_dataset
from src.data.pixels.images import Canvas, make_canvases
from src.data.pixels.reencode import to_jpeg

N = 40  # items a class
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def picture(seed: int) -> Image.Image:
    """Return a picture whose size, and so its bytes, tell nothing."""
    rng = np.random.default_rng(seed)
    wide, high = (int(side) for side in rng.integers(16, 48, 2))
    small = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(small, (wide, high), interpolation=cv2.INTER_CUBIC))


def stored(seed: int, kind: str = "jpeg", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture(seed).save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def with_gamma(value: int) -> PngImagePlugin.PngInfo:
    found = PngImagePlugin.PngInfo()
    found.add(b"gAMA", struct.pack(">I", value))
    return found


def by_author(name: str) -> PngImagePlugin.PngInfo:
    found = PngImagePlugin.PngInfo()
    found.add_text("Author", name)
    return found


def tables(luma: int, chroma: int) -> list[list[int]]:
    """Return libjpeg's luma table of one quality, its chroma table of another."""
    found = [
        Image.open(io.BytesIO(stored(0, quality=quality))).quantization  # type: ignore[attr-defined]
        for quality in (luma, chroma)
    ]
    return [found[0][0], found[1][1]]


TURNED, UPRIGHT = Image.Exif(), Image.Exif()
TURNED[0x0112], UPRIGHT[0x0112] = 6, 1
# field, file of a real, file of a fake, in which a fake is told by that field
PLANTED = {
    "chroma table": ("JPEG chroma quality", {"qtables": tables(90, 90)},
                     {"qtables": tables(90, 60)}, "JPEG chroma quality < 90"),
    "density": ("density", {"dpi": (72, 72)}, {"dpi": (96, 96)}, "density is 96 x 96 an inch"),
    "unit": ("density", {}, {"dpi": (1, 1)}, "density is 1 x 1 an inch"),
    "comment": ("comment", {}, {"comment": b"made by x"}, "comment"),
    "its text": ("notes", {"comment": b"by y 7"}, {"comment": b"by x 9"},
                 "notes is comment: by x #"),
    "profile": ("name of the colour profile", {"icc_profile": LAB}, {"icc_profile": SRGB},
                "name of the colour profile is sRGB built-in"),
    "Huffman": ("Huffman tables of its own", {}, {"optimize": True}, "Huffman tables of its own"),
    "restart": ("parts of the file", {}, {"restart_marker_blocks": 2},
                "parts of the file is APP0(JFIF) DQT*2 SOF0 DHT*4 DRI SOS"),
    "EXIF": ("EXIF orientation", {"exif": UPRIGHT}, {"exif": TURNED}, "EXIF orientation >= 6"),
    "PNG level": ("compression", {"kind": "png"}, {"kind": "png", "compress_level": 9},
                  "compression is zlib 78da"),
    "PNG gamma": ("PNG gamma", {"kind": "png", "pnginfo": with_gamma(100000)},
                  {"kind": "png", "pnginfo": with_gamma(45455)}, "PNG gamma < 1"),
    "PNG text": ("notes", {"kind": "png", "pnginfo": by_author("y")},
                 {"kind": "png", "pnginfo": by_author("x")}, "notes is Author: x"),
    "WebP": ("compression", {"kind": "webp"}, {"kind": "webp", "lossless": True},
             "compression is VP8L"),
}  # fmt: skip


def files(options: tuple[dict, dict], name: Callable[[int, int], str]) -> dict[str, bytes]:
    order = np.random.default_rng(0).permutation(2 * N)
    return {
        f"train/{('real', 'fake')[k % 2]}/{name(int(order[k]), k % 2)}": stored(
            k, **({} if "qtables" in options[k % 2] else {"quality": 90}), **options[k % 2]
        )
        for k in range(2 * N)
    }


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_difference_is_found_and_named(
    make_dataset: Callable[..., Path], what: str
) -> None:
    field, real, fake, rule = PLANTED[what]
    make_dataset(files((real, fake), lambda k, _: f"{k:04d}.jpg"))
    (part,) = audit_dataset(load_dataset("toy")).parts
    assert part.auc > 0.95
    tell = next(tell for tell in part.tells if tell.field.name == field)
    assert (tell.rule, tell.inside, tell.outside) == (rule, 1.0, 0.0)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        (lambda k, fake: f"{k}_{('cam', 'gan')[fake]}_{k * 7919 % 997}.jpg",
         "name pattern is #_gan_#"),
        (lambda k, fake: f"{letters(k)}_{('cam', 'gan')[fake]}_{k:04d}.jpg",
         "name pattern is *_gan_#"),
        (lambda k, fake: f"{hashlib.md5(bytes([k])).hexdigest()}{('-a', '-b')[fake]}.jpg",
         "name pattern is #-b"),
        (lambda k, fake: f"{k:04d}{('.jpg', '.JPG')[fake]}", "extension is .JPG"),
    ],
)  # fmt: skip
def test_a_word_anywhere_in_a_name_is_found(
    make_dataset: Callable[..., Path], name: Callable[[int, int], str], rule: str
) -> None:
    make_dataset(files(({}, {}), name))
    (part,) = audit_dataset(load_dataset("toy")).parts
    assert part.auc > 0.95
    assert [tell.rule for tell in part.tells] == [rule]


def letters(seed: int) -> str:
    return "".join(np.random.default_rng(seed).choice(list("abcdefghij"), 8))


def test_words_that_every_item_has_for_itself_tell_nothing(
    make_dataset: Callable[..., Path],
) -> None:
    content = {
        path: stored(k, comment=letters(k).encode())
        for k, path in enumerate(files(({}, {}), lambda k, _: f"{letters(k)}.jpg"))
    }
    make_dataset(content)
    audit = audit_dataset(load_dataset("toy"))
    assert audit.table["notes"].nunique() == audit.table["name pattern"].nunique() == 2 * N
    assert not audit.parts[0].found


def test_words_of_a_group_tell_nothing_of_another() -> None:
    """Thirty cameras of ten pictures, each with words and a label of its own."""
    rng = np.random.default_rng(4)
    group = np.repeat(np.arange(30), 10)
    label = rng.permutation(np.repeat([0, 1], 15))[group]
    blank = {field.name: "" if field.words else -1.0 for field in FIELDS}
    own = [{"notes": f"n{g}", "name pattern": letters(g)} for g in group.tolist()]
    table = pd.DataFrame([blank | more for more in own])
    assert audit_part("all", table, label, np.arange(300)).found  # a split by item learns cameras
    assert not audit_part("all", table, label, group).found


def test_labels_by_chance_are_seldom_told(tmp_path: Path) -> None:
    """Files that differ in everything, ten times: at most one false alarm."""
    rng = np.random.default_rng(1)
    ways = [side for _, real, fake, _ in PLANTED.values() for side in (real, fake)]
    rows = []
    for k in range(200):
        way = ways[rng.integers(len(ways))]
        quality = {} if "qtables" in way else {"quality": int(rng.integers(60, 98))}
        data = stored(k, **quality, **way)
        name = f"{k}{rng.choice(['_a', '_b', ''])}.{rng.choice(['jpg', 'JPG'])}"
        (tmp_path / name).write_bytes(data)
        rows.append(fields_of(tmp_path, name, name, len(data)))
    pool = pd.DataFrame(rows)
    found = 0
    for _ in range(10):
        take, label = rng.permutation(200)[:120], rng.permutation(np.repeat([0, 1], 60))
        table = pool.iloc[take].reset_index(drop=True)
        found += audit_part("all", table, label, np.arange(120)).found
    assert found <= 1


def test_the_remedy_takes_tables_density_and_notes_away(make_dataset: Callable[..., Path]) -> None:
    """Grey pictures, for what chroma tables did to colours stays in pixels."""
    real = {"qtables": tables(90, 90), "dpi": (72, 72)}
    fake = {"qtables": tables(90, 60), "dpi": (96, 96), "comment": b"x", "icc_profile": SRGB}

    def grey(k: int) -> bytes:
        buffer = io.BytesIO()
        way = (real, fake)[k % 2]
        picture(k).convert("L").convert("RGB").save(buffer, "jpeg", **way)
        return buffer.getvalue()

    given = dict(zip(files((real, fake), lambda k, _: f"{k:04d}.jpg"), map(grey, range(2 * N)),
                     strict=True))  # fmt: skip
    make_dataset(given)
    before = audit_dataset(load_dataset("toy")).parts[0]
    told = {tell.field.name for tell in before.tells}
    assert {"JPEG chroma quality", "density", "comment", "name of the colour profile"} <= told
    plain = Canvas(32, "squash", "bicubic")
    make_dataset(
        {path: to_jpeg(make_canvases(data, [plain])[0][0], 60) for path, data in given.items()},
        name="alike",
    )
    after = audit_dataset(load_dataset("alike"))
    assert not after.parts[0].found
    for field in told - {"bytes", "bytes per pixel"}:
        assert len(after.table[field].unique()) == 1
