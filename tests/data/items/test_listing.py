"""Zips and folders are read the same way, from threads and forks too."""

import multiprocessing
import os
import random
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data.items.files import kind_of, open_archive, read_bytes
from src.data.items.listing import list_files
from src.data.pixels.images import decode_image
from src.data.pixels.video import read_clip
from src.errors import UnreadableImageError, UserError
from tests.clips import write_clip


@pytest.fixture
def archive(tmp_path: Path) -> dict[str, bytes]:
    """Write big.zip with stored and deflated members; return path -> content."""
    rng = random.Random(0)
    contents = {}
    with zipfile.ZipFile(tmp_path / "big.zip", "w") as file:
        for i in range(200):
            data = rng.randbytes(rng.randrange(3000)) + b"a" * rng.randrange(3000)
            method = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[i % 2]
            file.writestr(f"big/{i}.jpg", data, compress_type=method)
            contents[f"big.zip!/big/{i}.jpg"] = data
    return contents


def test_every_member_reads_as_zipfile_does(tmp_path, archive):
    assert {path: read_bytes(tmp_path, path) for path in archive} == archive
    found = open_archive(str(tmp_path / "big.zip"))
    for path, data in archive.items():
        for count in (1, 40, 512, 10_000):
            assert found.head(path.split("!/")[1], count) == data[:count]


def _all_equal(root: Path, contents: dict[str, bytes], seed: int) -> bool:
    order = random.Random(seed).sample(sorted(contents), len(contents))
    return all(read_bytes(root, path) == contents[path] for path in order)


def test_threads_and_forks_share_an_archive(tmp_path, archive):
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda seed: _all_equal(tmp_path, archive, seed), range(8)))
    # Open before the fork, as in a DataLoader.
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert all(pool.starmap(_all_equal, [(tmp_path, archive, seed) for seed in range(8)]))


def test_damaged_member_is_unreadable_and_named(tmp_path, archive):
    path = tmp_path / "big.zip"
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        start = file.getinfo("big/4.jpg").header_offset + 60
    data[start] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(UnreadableImageError, match=r"big/4\.jpg is damaged"):
        read_bytes(tmp_path, "big.zip!/big/4.jpg")
    assert read_bytes(tmp_path, "big.zip!/big/6.jpg") == archive["big.zip!/big/6.jpg"]


def test_missing_files_and_broken_zips_are_named(tmp_path, archive):
    for path in ("no.jpg", "big.zip!/big/no.jpg", "none.zip!/x.jpg"):
        with pytest.raises(UserError, match="no"):
            read_bytes(tmp_path, path)
    (tmp_path / "train.zip").write_bytes(b"PK this is not a zip")
    with pytest.raises(UserError, match=r"train\.zip.*not a readable zip"):
        list_files(tmp_path)


@pytest.mark.parametrize("top", ["train/", ""])
def test_zip_with_and_without_its_top_folder(tmp_path, top):
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as file:
        file.writestr(f"{top}real/a.jpg", b"1")
        file.writestr(f"{top}fake/b.jpg", b"2")
        file.writestr("__MACOSX/._a.jpg", b"3")
        file.writestr(f"{top}.DS_Store", b"4")
    listing = list_files(tmp_path)
    assert [entry.logical for entry in listing.media] == ["train/fake/b.jpg", "train/real/a.jpg"]
    assert listing.ignored == {"junk (.DS_Store, __MACOSX, hidden files)": 2}
    assert read_bytes(tmp_path, listing.media[1].path) == b"1"


def test_replaced_zip_is_read_again_and_refused_beside_its_unpacked_folder(tmp_path):
    for content in (b"one", b"two!"):
        with zipfile.ZipFile(tmp_path / "train.zip", "w") as file:
            file.writestr("real/a.jpg", content)
        (entry,) = list_files(tmp_path).media
        assert read_bytes(tmp_path, entry.path) == content
    (tmp_path / "train" / "real").mkdir(parents=True)
    (tmp_path / "train" / "real" / "a.jpg").write_bytes(b"1")
    with pytest.raises(UserError, match=r"train\.zip!/real/a\.jpg and train/real/a\.jpg.*twice"):
        list_files(tmp_path)


def test_links_are_followed_once_and_dangling_ones_named(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jpg").write_bytes(b"1")
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    assert len(list_files(tmp_path).media) == 1
    (tmp_path / "real" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(UserError, match=r"gone\.jpg.*nowhere\.jpg"):
        list_files(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_file_is_unreadable(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"1")
    path.chmod(0)
    with pytest.raises(UnreadableImageError, match=r"a\.jpg"):
        read_bytes(tmp_path, "a.jpg")


# What FFmpeg's muxers write under each suffix, as cv2.VideoWriter finds them by name.
WRITTEN = {
    ".mp4": "mp4v", ".mov": "mp4v", ".m4v": "mp4v", ".mkv": "mp4v", ".avi": "MJPG",
    ".wmv": "WMV2", ".asf": "WMV2", ".flv": "FLV1", ".3gp": "mp4v", ".3g2": "mp4v",
    ".ts": "MPG2", ".mts": "MPG2", ".m2ts": "MPG2", ".m2t": "MPG2", ".mpg": "MPG1",
    ".mpeg": "MPG1", ".vob": "MPG2", ".m1v": "MPG1", ".m2v": "MPG2", ".mxf": "MPG2",
}  # fmt: skip


@pytest.mark.parametrize("suffix", WRITTEN)
def test_clips_of_every_container_are_items_and_are_read(tmp_path, suffix):
    clip = write_clip(tmp_path / f"a{suffix}", 6, size=(96, 96), step=30, codec=WRITTEN[suffix])
    assert clip.stat().st_size > 1000
    clip.rename(tmp_path / f"B{suffix.upper()}")
    (entry,) = list_files(tmp_path).media
    assert kind_of(entry.path) == "video"
    found = read_clip(tmp_path, entry.path, 3)
    greys = [round((float(frame.mean()) - 5) / 30) for frame in found.frames]
    assert greys == found.indices.tolist() == [1, 3, 5]


TEXTS = {
    "a.ts": b"export const a: number = 1;\r\n",
    "b.mts": "\ufeffimport \u00e9 from 'x';\n".encode(),
    "c.ts": "<TS version='2.1'>".encode("utf-16"),
    "long.ts": b"// text\n" * 1000,
}
STREAMS = {
    "clip.ts": b"G@\x00\x10\x00" + b"\xff" * 183,
    "camera.mts": b"\0\0\0\0G@\x00\x10\x00" + b"\xff" * 183,
    "broken.ts": b"\x80\x01\x02" * 100,
    "empty.ts": b"",
}


@pytest.mark.parametrize("packed", [False, True])
def test_a_text_under_a_streams_suffix_is_no_clip(tmp_path, packed):
    for name, data in (TEXTS | STREAMS).items():
        (tmp_path / name).write_bytes(data)
    if packed:
        with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name in TEXTS | STREAMS:
                archive.write(tmp_path / name, name)
                (tmp_path / name).unlink()
    listing = list_files(tmp_path)
    assert {entry.logical.split("/")[-1] for entry in listing.media} == set(STREAMS)
    assert {name.split("/")[-1] for name in listing.unread} == set(TEXTS)
    assert listing.ignored == {"text, no video (.mts)": 1, "text, no video (.ts)": 3}


PICTURES = {
    ".jpg": "JPEG", ".jfif": "JPEG", ".jpe": "JPEG", ".jif": "JPEG", ".pjpeg": "JPEG",
    ".png": "PNG", ".apng": "PNG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF",
    ".webp": "WEBP", ".gif": "GIF", ".avif": "AVIF", ".ppm": "PPM", ".pnm": "PPM",
    ".pgm": "PPM", ".pbm": "PPM", ".jp2": "JPEG2000", ".j2k": "JPEG2000",
}  # fmt: skip


@pytest.mark.parametrize("suffix", PICTURES)
def test_pictures_of_every_kind_are_items_and_are_read(tmp_path, suffix):
    wide = Image.linear_gradient("L").resize((60, 40))
    mode = {".pgm": "L", ".pbm": "1"}.get(suffix, "RGB")
    drawn = wide.convert(mode)
    drawn.save(tmp_path / f"a{suffix}", PICTURES[suffix])
    (entry,) = list_files(tmp_path).media
    assert kind_of(entry.path) == "image"
    read = decode_image(read_bytes(tmp_path, entry.path)).astype(int)
    assert abs(read - np.asarray(drawn.convert("RGB"), int)).mean() < 6


def test_what_no_decoder_reads_is_named_with_what_to_do(tmp_path):
    for name in ("a.jxl", "B.PSD", "c.xyz", "d", "e.txt"):
        (tmp_path / name).write_bytes(b"\0")
    unread = "picture of a format that is not read: convert it to PNG or JPEG"
    assert list_files(tmp_path).unread == {
        "a.jxl": f"{unread} (.jxl)",
        "B.PSD": f"{unread} (.psd)",
        "c.xyz": "neither image nor video (.xyz)",
        "d": "neither image nor video (no suffix)",
        "e.txt": "neither image nor video (.txt)",
    }
