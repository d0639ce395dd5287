"""Zips that would do harm when unpacked; broken ones: tests/data/items/test_listing.py."""

import struct
import warnings
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from src import paths
from src.data.items.files import read_bytes, safe_name
from src.data.items.listing import list_files
from src.data.layouts.load import load_dataset
from src.errors import UnreadableImageError, UserError
from tests.hostile.conftest import picture, train, tree, tune


def write_zip(path: Path, members: list[tuple[str, bytes]], **options: int) -> Path:
    with zipfile.ZipFile(path, "w", **options) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that stands twice
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = file.compression
            file.writestr(info, data)
    return path


UNSAFE = {
    "../../etc/evil.jpg": "etc/evil.jpg",
    "/train/real/a.jpg": "train/real/a.jpg",
    "C:\\train\\real\\a.jpg": "train/real/a.jpg",
    "train\\real\\a.jpg": "train/real/a.jpg",
    "train/./real//a.jpg": "train/real/a.jpg",
    "train/real/..": "train/real",
    "..\\..\\a.jpg": "a.jpg",
}


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_paths_lead_nowhere(tmp_path, name):
    assert safe_name(name) == UNSAFE[name]
    root = tmp_path / "root"
    root.mkdir()
    write_zip(root / "data.zip", [(name, b"x"), ("other.jpg", b"y")])
    before = tree(tmp_path)
    for entry in list_files(root).media:
        assert ".." not in entry.logical.split("/")
        assert not entry.logical.startswith("/")
        assert read_bytes(root, entry.path) in (b"x", b"y")
    assert tree(tmp_path) == before


def test_a_data_set_with_unsafe_names_is_the_one_they_stand_for(make_dataset):
    root = make_dataset({})
    root.mkdir(parents=True)
    names = ["../train/real/1.png", "/train/fake/1.png", "train\\real\\2.png", "train/fake/2.png"]
    write_zip(root / "all.zip", [(name, picture(i)) for i, name in enumerate(names)])
    items = load_dataset("toy").items
    assert items["item_id"].tolist() == ["fake/1.png", "fake/2.png", "real/1.png", "real/2.png"]


@pytest.mark.parametrize("announced", [None, 100])
def test_a_bomb_is_not_unpacked(tmp_path, announced):
    path = write_zip(
        tmp_path / "bomb.zip", [("real/a.jpg", bytes(2**27))], compression=zipfile.ZIP_DEFLATED
    )
    if announced is not None:  # lie about the size, in both places
        data = bytearray(path.read_bytes())
        for mark, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
            place = data.index(mark) + offset
            data[place : place + 4] = struct.pack("<I", announced)
        path.write_bytes(data)
    (entry,) = list_files(tmp_path).media
    with pytest.raises(UnreadableImageError, match=r"zip bomb|damaged"):
        read_bytes(tmp_path, entry.path)


def test_nested_zips_are_named_not_passed_over(tmp_path):
    inner = write_zip(tmp_path / "inner.zip", [("real/a.jpg", b"x")]).read_bytes()
    (tmp_path / "inner.zip").unlink()
    write_zip(tmp_path / "outer.zip", [("train.zip", inner), ("test/1.jpg", b"y")])
    listing = list_files(tmp_path)
    assert listing.ignored == {"zip inside a zip (unpack the outer one)": 1}


def test_only_nested_zips_say_so(make_dataset):
    root = make_dataset({})
    root.mkdir(parents=True)
    write_zip(root / "outer.zip", [("train.zip", b"PK")])
    with pytest.raises(UserError, match=r"no image or video.*zip inside a zip"):
        load_dataset("toy")


def encrypt(path: Path, name: str) -> None:
    """Set the flag of encryption on a member, as zipfile cannot write one."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        data[file.getinfo(name).header_offset + 6] |= 1
    place = data.index(b"PK\1\2", data.index(b"PK\1\2"))
    while not data.startswith(name.encode(), place + 46):
        place = data.index(b"PK\1\2", place + 4)
    data[place + 8] |= 1
    path.write_bytes(data)


def test_encrypted_members_are_left_out_by_name_and_the_rest_trains(toy, capsys):
    write_zip(toy / "train.zip", [(f"train/real/z{i}.png", picture(90 + i)) for i in range(3)])
    encrypt(toy / "train.zip", "train/real/z1.png")
    assert [train("--fold", "0"), tune()] == [0, 0]
    excluded = pd.read_csv(paths.excluded_csv("toy", "sgkf2_s42"))
    assert excluded["item_id"].tolist() == ["real/z1.png"]
    assert "encrypted" in excluded["reason"][0]


def test_an_encrypted_table_is_a_users_error(make_dataset):
    root = make_dataset(["train/a.png", "train/b.png"])
    write_zip(root / "labels.zip", [("train.csv", b"id,label\na,0\nb,1\n")])
    encrypt(root / "labels.zip", "train.csv")
    with pytest.raises(UserError, match=r"train\.csv.*encrypted"):
        load_dataset("toy")


def test_one_name_for_two_files_is_refused_and_for_one_file_twice_is_not(tmp_path):
    write_zip(tmp_path / "a.zip", [("real/a.jpg", b"x"), ("real/a.jpg", b"x")])
    assert len(list_files(tmp_path).media) == 1
    write_zip(tmp_path / "a.zip", [("real/a.jpg", b"x"), ("real/a.jpg", b"other")])
    with pytest.raises(UserError, match=r"two different files called 'real/a\.jpg'"):
        list_files(tmp_path)
    assert not list_files(tmp_path, ("a.zip",)).media


def test_a_lying_directory_takes_no_memory(tmp_path):
    path = write_zip(tmp_path / "a.zip", [("real/a.jpg", b"x" * 100)])
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\1\2")
    data[place + 20 : place + 28] = struct.pack("<II", 2**32 - 2, 2**32 - 2)
    path.write_bytes(data)
    try:
        (entry,) = list_files(tmp_path).media
    except UserError:
        return
    with pytest.raises(UnreadableImageError):
        read_bytes(tmp_path, entry.path)
