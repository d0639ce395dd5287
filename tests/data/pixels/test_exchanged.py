"""A file exchanged for another of equal name, size and date: nothing old is remembered of it."""

import os
import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from src.artifacts import fingerprints
from src.data.folds.scan import scan_items
from src.data.items import contents
from src.data.items.files import open_archive, stamp_of
from src.data.layouts.load import load_dataset
from src.data.pixels.images import Canvas
from src.data.pixels.source import PixelSource
from src.inference.cross_dataset import to_predict
from src.inference.stored import items_to_predict
from src.merging.sources import open_source


def exchange(file, write):
    """Write a file anew, of the same size; its date is set back."""
    before = file.stat()
    time.sleep(0.05)  # the clock of a file system ticks every few milliseconds
    write(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)


def bitmap(grey):
    return lambda file: Image.new("RGB", (16, 16), (grey,) * 3).save(file)


@pytest.fixture
def toy(make_dataset):
    root = make_dataset({f"train/{word}/{k}.bmp": b"" for word in ("real", "fake") for k in (0, 1)})
    (root / "test").mkdir()
    for number, file in enumerate([*root.rglob("*.bmp"), root / "test/a.bmp", root / "test/b.bmp"]):
        bitmap(10 * number)(file)
    return root


def test_pixels_are_decoded_again(toy, tmp_path):
    def first_pixel():
        source = PixelSource(toy, ["train/real/0.bmp"], [Canvas(8, "squash", "bicubic")])
        assert source.preload(tmp_path / "pixels", "disk") == "disk"
        return int(np.asarray(source.read(0)[0]).flat[0])

    first_pixel()
    exchange(toy / "train/real/0.bmp", bitmap(222))
    assert first_pixel() == 222


def scanned():
    table = scan_items(load_dataset("toy"))
    return table["sha256"][table["item_id"].str.contains("real")].tolist()


def predicted_on():
    dataset = load_dataset("toy")
    return to_predict(dataset, dataset.train).manifest_sha256


def items_tested():
    return items_to_predict(load_dataset("toy")).manifest_sha256


@pytest.mark.parametrize(
    ("print_of", "name"),
    [
        (scanned, "train/real/0.bmp"),
        (predicted_on, "train/real/0.bmp"),
        (items_tested, "test/a.bmp"),
    ],
)
def test_what_is_known_of_items_is_of_other_items(toy, print_of, name):
    first = print_of()
    assert print_of() == first
    exchange(toy / name, bitmap(222))
    assert print_of() != first


def test_test_predictions_fit_a_copy_of_the_data_set(toy, monkeypatch):
    """Times tell that files must be compared, not that they differ."""
    monkeypatch.setattr(fingerprints, "SETTLED_NS", -1)
    first = items_tested()
    for number, file in enumerate(toy.rglob("*.bmp")):
        os.utime(file, ns=(number, number))
    assert items_tested() == first


def test_unchanged_test_items_are_read_once(toy, monkeypatch):
    monkeypatch.setattr(fingerprints, "SETTLED_NS", -1)
    first = items_tested()
    monkeypatch.setattr(contents, "_read", lambda file: pytest.fail(f"{file} is read again"))
    assert items_tested() == first


def test_rows_of_parquet_have_another_stamp(tmp_path):
    file = tmp_path / "a.parquet"

    def write(seed):
        rows = [{"image": {"bytes": bytes([seed] * 64), "path": None}}]
        return lambda path: pd.DataFrame(rows).to_parquet(path, index=False)

    write(1)(file)
    first = stamp_of(tmp_path, "a.parquet!/0")
    exchange(file, write(2))
    open_archive(str(file), fresh=True)
    assert stamp_of(tmp_path, "a.parquet!/0") != first


def test_an_unfinished_merge_is_begun_again(tmp_path):
    file = tmp_path / "a.safetensors"
    save_file({"w": torch.zeros(4)}, file)
    first = open_source(file).stamp
    exchange(file, lambda path: save_file({"w": torch.ones(4)}, path))
    assert open_source(file).stamp != first
