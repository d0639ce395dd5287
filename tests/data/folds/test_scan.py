"""The scan: what it finds in a file, and what it remembers."""

import hashlib
from collections.abc import Iterator

import cv2
import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from src import paths
from src.data.folds import scan as scanning
from src.data.folds.near_duplicates import perceptual_hashes
from src.data.folds.scan import scan_items
from src.data.items.files import read_bytes
from src.data.items.listing import list_files
from src.data.layouts.load import load_dataset
from src.data.pixels.decode import decode
from src.data.pixels.formats import file_format
from tests.clips import write_clip
from tests.data.conftest import picture


def smooth(seed: int, size: int = 48) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.clip(cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC), 0, 255)


def encode(pixels: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


def bits(a: int, b: int) -> int:
    return bin(int(a) ^ int(b)).count("1")


def test_every_column(make_dataset):
    data = encode(smooth(0)[:32], ".jpg")
    root = make_dataset({"real/a.png": data, "fake/b.jpg": b"", "fake/c.png": encode(smooth(1))})
    table = scan_items(load_dataset("toy")).set_index("item_id")
    row = table.loc["real/a.png"]
    assert (row["width"], row["height"], row["format"], row["error"]) == (48, 32, "jpeg", "")
    assert row["sha256"] == hashlib.sha256((root / "real/a.png").read_bytes()).hexdigest()
    assert table.loc["fake/b.jpg", "error"] == "the file is empty (0 bytes)"
    assert table.loc["fake/b.jpg", ["width", "height"]].isna().all()
    assert not table.loc["fake/b.jpg", "hashable"]


def test_hash_of_copies_is_near_and_of_others_far():
    pixels = smooth(5, 200)
    own, flip, _ = perceptual_hashes(pixels)
    jpeg = cv2.imdecode(np.frombuffer(encode(pixels, ".jpg"), np.uint8), 1)
    for copy in (cv2.resize(pixels, (90, 90), interpolation=cv2.INTER_AREA), jpeg):
        assert bits(own, perceptual_hashes(copy)[0]) <= 4
    assert bits(flip, perceptual_hashes(np.ascontiguousarray(pixels[:, ::-1]))[0]) <= 4
    assert bits(own, perceptual_hashes(smooth(6, 200))[0]) > 4


def of_the_library(pixels: np.ndarray) -> tuple[int, int]:
    """Return the hash of a picture and of its mirror, each by a call of imagehash."""
    if max(pixels.shape[:2]) > 64:
        pixels = cv2.resize(pixels, (64, 64), interpolation=cv2.INTER_AREA)
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    both = (grey, np.ascontiguousarray(grey[:, ::-1]))
    own, mirrored = (int(str(imagehash.phash(Image.fromarray(one))), 16) for one in both)
    return own, mirrored


def drawn(rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Draw a picture of each kind: noise, smooth, few values, a bar, symmetric, flat."""
    height, width = rng.integers(1, 90, 2)
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    yield noise
    yield smooth(int(rng.integers(1000)), int(width))
    yield noise // 128 * 255
    yield np.where(np.arange(height)[:, None, None] < height // 3, noise[:1, :1], np.uint8(9))
    yield np.concatenate([noise, noise[:, ::-1]], 1)
    yield np.full_like(noise, noise[0, 0])


def test_both_hashes_are_the_librarys_bit_by_bit():
    rng = np.random.default_rng(0)
    for pixels in (one for _ in range(60) for one in drawn(rng)):
        assert perceptual_hashes(pixels)[:2] == of_the_library(pixels), pixels.shape


@pytest.mark.real
@pytest.mark.parametrize("name", ["cifake", "dfdc_faces"])
def test_both_hashes_of_real_pictures_are_the_librarys(shared_data, name):
    files = list_files(shared_data / name).media
    for file in files[:: len(files) // 300]:
        pixels = decode(read_bytes(shared_data / name, file.path), [None]).pixels[0]
        assert perceptual_hashes(pixels)[:2] == of_the_library(pixels), file.path


@pytest.mark.parametrize("value", [0, 7, 255])
def test_flat_images_have_no_meaningful_hash(value):
    flat = np.full((40, 40, 3), value, np.uint8)
    flat[0, 0] = 3
    assert perceptual_hashes(flat)[2] is False
    assert perceptual_hashes(smooth(1))[2] is True


def test_nothing_is_read_twice(make_dataset, monkeypatch):
    root = make_dataset([f"{c}/{i}.png" for c in ("real", "fake") for i in range(3)])
    first = scan_items(load_dataset("toy"))
    seen = []
    original = scanning.look_at
    monkeypatch.setattr(scanning, "look_at", lambda *a: (seen.append(a[1]), original(*a))[1])
    again = scan_items(load_dataset("toy"))
    assert first.equals(again)
    assert seen == []
    (root / "real" / "new.png").write_bytes(encode(smooth(9)))
    (root / "real" / "0.png").write_bytes(encode(smooth(10)))
    after = scan_items(load_dataset("toy")).set_index("item_id")
    assert sorted(seen) == ["real/0.png", "real/new.png"]
    digest = hashlib.sha256((root / "real/0.png").read_bytes()).hexdigest()
    assert after.loc["real/0.png", "sha256"] == digest
    paths.manifest_cache("toy").write_bytes(b"PAR1 no")  # damaged, it is made again
    assert after.equals(scan_items(load_dataset("toy")).set_index("item_id"))


def test_processes_find_the_same(toy, monkeypatch):
    alone = scan_items(
        toy({}, zips={"train.zip": [f"{c}/{i}.png" for c in ("real", "fake") for i in range(12)]})
    )
    paths.manifest_cache("toy").unlink()
    monkeypatch.setattr(scanning, "BATCH", 2)
    monkeypatch.setattr(scanning, "SAVE_EVERY", 3)
    monkeypatch.setattr(scanning, "cpu_count", lambda: 2)
    assert alone.equals(scan_items(load_dataset("toy")))


def test_what_was_scanned_survives_an_interruption(make_dataset, monkeypatch):
    make_dataset([f"{c}/{i}.png" for c in ("real", "fake") for i in range(6)])
    monkeypatch.setattr(scanning, "BATCH", 2)
    monkeypatch.setattr(scanning, "SAVE_EVERY", 1)
    original, seen = scanning.look_at, []

    def stop_at_fifth(*arguments):
        seen.append(arguments[1])
        if len(seen) == 5:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(scanning, "look_at", stop_at_fifth)
    monkeypatch.setattr(scanning, "cpu_count", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        scan_items(load_dataset("toy"))
    scan_items(load_dataset("toy"))
    assert len(seen) == 5 + 12 - 4


def test_clips_are_looked_at_once(make_dataset, monkeypatch):
    root = make_dataset({"real/a.mp4": b"1"})
    write_clip(root / "fake" / "b.mp4", 7, size=(32, 48), fps=10)
    table = scan_items(load_dataset("toy")).set_index("item_id")
    assert table["format"].tolist() == ["video", "video"]
    assert "not a video" in table.loc["real/a.mp4", "error"]
    clip = table.loc["fake/b.mp4"]
    assert (clip["width"], clip["height"], clip["frames"], clip["announced"]) == (48, 32, 7, 7)
    assert (clip["fps"], clip["duration"], clip["error"], clip["note"]) == (10.0, 0.7, "", "")
    assert not clip["hashable"]
    assert len(clip["sha256"]) == 64
    monkeypatch.setattr(scanning, "look_at_clip", lambda *_: pytest.fail("looked at again"))
    assert scan_items(load_dataset("toy"))["error"].tolist() == table["error"].tolist()


def test_clips_read_another_way_are_looked_at_again(make_dataset, monkeypatch):
    root = make_dataset({"real/a.png": encode(smooth(0)), "fake/c.png": encode(smooth(1))})
    write_clip(root / "fake" / "b.mp4", 7)
    first = scan_items(load_dataset("toy"))
    monkeypatch.setattr(scanning, "look_at", lambda *_: pytest.fail("an image is looked at again"))
    monkeypatch.setattr(scanning, "READING", scanning.READING + 1)
    seen = []
    look = scanning.look_at_clip
    monkeypatch.setattr(scanning, "look_at_clip", lambda *a: seen.append(a) or look(*a))
    pd.testing.assert_frame_equal(scan_items(load_dataset("toy")), first)
    assert len(seen) == 1


def test_damaged_pictures_are_set_aside_from_training_and_named_in_the_test(toy):
    whole = encode(smooth(3, 160), ".jpg")
    half = whole[: len(whole) // 2] + b"\xff\xd9"
    names = {"train/real/a.jpg": half, "train/fake/b.jpg": whole, "train/fake/d.mp4": half}
    table = scan_items(toy({**names, "test/c.jpg": half, "test/e.mp4": half})).set_index("item_id")
    for train, test in (("real/a.jpg", "c.jpg"), ("fake/d.mp4", "e.mp4")):
        assert table.loc[train, "error"].startswith("damaged picture")
        assert "premature end of data segment" in table.loc[train, "error"]
        assert table.loc[test, "note"] == table.loc[train, "error"]
        assert (table.loc[train, "note"], table.loc[test, "error"]) == ("", "")
    assert (table.loc["fake/b.jpg", ["error", "note"]] == "").all()


def test_a_jpeg_under_the_name_of_a_heic_is_a_jpeg(toy):
    row = (
        scan_items(toy({"real/a.heic": encode(smooth(0), ".jpg"), "fake/b.png": encode(smooth(1))}))
        .set_index("item_id")
        .loc["real/a.heic"]
    )
    assert (row["format"], row["error"], row["note"]) == ("jpeg", "", "")


def test_a_name_that_lies_is_said(make_dataset):
    root = make_dataset({"real/a.mp4": picture(1), "fake/b.jpg": b""})
    write_clip(root / "clip.mp4", 5)
    (root / "clip.mp4").rename(root / "fake" / "b.jpg")
    table = scan_items(load_dataset("toy")).set_index("item_id")
    assert (table["error"] == "").all()
    assert "an image under a clip's name" in table.loc["real/a.mp4", "note"]
    assert "a video under an image's name" in table.loc["fake/b.jpg", "note"]


@pytest.mark.parametrize(("suffix", "kind"), [
    (".jpg", "jpeg"), (".png", "png"), (".webp", "webp"), (".bmp", "bmp"), (".tiff", "tiff"),
    ("", "unknown"),
])  # fmt: skip
def test_formats_by_content(suffix, kind):
    assert file_format(encode(smooth(0), suffix) if suffix else b"hello") == kind
