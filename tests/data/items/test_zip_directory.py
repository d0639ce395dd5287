"""Directories of zips in columns: what zipfile finds is found, what it refuses is refused."""

import io
import os
import struct
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src import paths
from src.data.items import zip_directory
from src.data.items.files import Archive, open_archive, read_bytes
from src.data.items.kept_manifest import forget
from src.data.items.zip_directory import FEWEST_KEPT, ZipDirectory, open_directory

MANY = settings(
    deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
NAMES = st.lists(
    st.one_of(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=9),
        st.sampled_from(["PK\1\2", "a/PK\1\2b.jpg", "x/", "deep/er/y.png", "z" * 400, "\xe9.jpg"]),
    ),
    max_size=12,
    unique=True,
)
STATE = ("filename", "flag_bits", "compress_type", "CRC", "compress_size", "file_size",
         "header_offset")  # fmt: skip


def directory_of(path: Path) -> ZipDirectory:
    fd = os.open(path, os.O_RDONLY)
    try:
        return open_directory(str(path), fd)
    finally:
        os.close(fd)


def held_against_zipfile(path: Path) -> None:
    with zipfile.ZipFile(path) as file:
        infos = list({info.filename: info for info in reversed(file.infolist())}.values())[::-1]
    found = directory_of(path)
    assert list(found.names) == [info.filename for info in infos]
    for info in infos:
        assert found.find(info.filename) == tuple(getattr(info, key) for key in STATE)
        assert found.find(info.filename + "?") is None
    files = [(i.filename, i.file_size, i.CRC) for i in infos if not i.is_dir()]
    assert list(found.files()) == files


class _Unseekable(io.RawIOBase):
    """What zips are streamed into: sizes stand behind the data."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.data += data
        return len(data)


@MANY
@given(
    NAMES,
    st.data(),
    st.booleans(),
    st.sampled_from([b"", b"#!/bin/sh\n", b"PK\5\6" * 9]),
    st.sampled_from([b"", b"a comment", b"PK\1\2" * 20]),
    st.sampled_from([100, 300, 2**20]),
)
def test_what_zipfile_finds_is_found_and_read(
    tmp_path, names, data, streamed, before, comment, block
):
    sink = _Unseekable() if streamed else io.BytesIO()
    contents = {}
    with pytest.MonkeyPatch.context() as patch:
        if data.draw(st.booleans()):  # every number in a zip64 field, which none needs
            patch.setattr(zipfile, "ZIP64_LIMIT", 30)
        if data.draw(st.booleans()):
            patch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
        with zipfile.ZipFile(sink, "w") as file:
            file.comment = comment
            for name in names:
                info = zipfile.ZipInfo(name)
                info.compress_type = data.draw(st.sampled_from([0, 8]))
                info.comment = data.draw(st.sampled_from([b"", b"PK\1\2", b"c" * 70]))
                info.extra = data.draw(st.sampled_from([b"", b"UT\5\0\1abcd", b"ux\0\0XX\1\0z"]))
                contents[name] = data.draw(st.binary(max_size=60))
                file.writestr(info, contents[name])
        patch.undo()
        written = bytes(sink.data) if streamed else sink.getvalue()
        path = tmp_path / "a.zip"
        path.write_bytes(before + written)
        patch.setattr(zip_directory, "BLOCK", block)
        held_against_zipfile(path)
        archive = Archive(str(path))
    for name, content in contents.items():
        assert archive.read(name) == content
        assert archive.head(name, 7) == content[:7]


def plain_zip(path: Path, names: list[str]) -> bytearray:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(zipfile.ZipInfo(name), name)
    return bytearray(path.read_bytes())


def test_names_are_decoded_as_zipfile_does(tmp_path):
    path = tmp_path / "a.zip"
    data = plain_zip(path, ["caf\xe9.jpg", "a_b.jpg", "plain.jpg"])
    directory = data.index(b"PK\1\2")
    data[directory + 9] &= ~8 & 0xFF  # not said to be UTF-8: code page 437
    place = data.index(b"a_b.jpg", directory)
    data[place + 1] = 0
    path.write_bytes(data)
    held_against_zipfile(path)
    assert list(directory_of(path).names) == ["caf\u251c\u2310.jpg", "a", "plain.jpg"]


@pytest.mark.parametrize("seed", range(2))
def test_a_damaged_directory_is_refused_wherever_zipfile_refuses_it(tmp_path, seed):
    """And nothing else is, but for what zipfile reads beyond the directory's end."""
    import random

    path, rng = tmp_path / "a.zip", random.Random(seed)
    good = plain_zip(path, ["real/a.jpg", "fake/b\xe9.jpg", "c.jpg"])
    begin, refused, read = good.index(b"PK\1\2"), 0, 0
    for _ in range(400):
        data = bytearray(good)
        for _ in range(rng.choice([1, 1, 2])):
            data[rng.randrange(begin, len(data))] = rng.choice([0, 1, 255, rng.randrange(256)])
        path.write_bytes(data)
        try:
            with zipfile.ZipFile(path) as file:
                names = [info.filename for info in file.infolist()]
        except Exception:  # noqa: BLE001 - whatever it stumbles over
            refused += 1
            with pytest.raises(OSError, match="not a readable zip"):
                directory_of(path)
            continue
        with suppress(OSError):
            assert list(directory_of(path).names) == list(dict.fromkeys(names))
            read += 1
    assert refused > 50
    assert read > 50


def test_several_disks_are_refused(tmp_path):
    path = tmp_path / "a.zip"
    data = plain_zip(path, ["a.jpg"])
    data[data.rindex(b"PK\5\6") + 4] = 2
    path.write_bytes(data)
    with pytest.raises(OSError, match="multiple disks"):
        Archive(str(path))


def test_a_large_file_has_its_numbers_in_zip64(tmp_path):
    """Offsets beyond 4 GiB: a hole, which takes no disk."""
    path = tmp_path / "a.zip"
    with path.open("wb") as file:
        file.truncate(5 * 2**30)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("far.jpg", b"far away")
    held_against_zipfile(path)
    assert directory_of(path).find("far.jpg").offset > 2**32
    assert read_bytes(tmp_path, "a.zip!/far.jpg") == b"far away"


def test_names_of_equal_hash_are_told_apart(tmp_path, monkeypatch):
    names = [f"{k}.jpg" for k in range(50)]
    plain_zip(tmp_path / "a.zip", names)
    whole = zip_directory.hashes_of
    monkeypatch.setattr(zip_directory, "hashes_of", lambda texts: whole(texts) & 3)
    alone = zip_directory.hash_of
    monkeypatch.setattr(zip_directory, "hash_of", lambda text: alone(text) & 3)
    held_against_zipfile(tmp_path / "a.zip")


@pytest.fixture
def large(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RVF_ROOT", str(tmp_path / "root"))
    monkeypatch.setattr(zip_directory, "settled", lambda _: True)
    monkeypatch.setattr(zip_directory, "FEWEST_KEPT", 20)
    path = tmp_path / "large.zip"
    plain_zip(path, [f"{k}.jpg" for k in range(30)])
    return path


def test_a_large_directory_is_parsed_once(large, monkeypatch):
    assert FEWEST_KEPT == 20_000
    first = directory_of(large)
    (kept,) = paths.zip_directory("x").parent.iterdir()
    table = zip_directory._table_of
    monkeypatch.setattr(zip_directory, "_table_of", None)
    again = directory_of(large)
    assert list(again.names) == list(first.names)
    assert again.find("7.jpg") == first.find("7.jpg")
    # Replaced, damaged or forgotten: parsed again.
    monkeypatch.setattr(zip_directory, "_table_of", table)
    plain_zip(large, [f"{k}.png" for k in range(30)])
    assert directory_of(large).find("7.jpg") is None
    assert directory_of(large).find("7.png") is not None
    for damaged in (b"", b"ARROW1", kept.read_bytes()[:-40]):
        kept.write_bytes(damaged)
        assert directory_of(large).find("7.png") is not None
    forget("toy")
    assert not kept.exists()


def test_where_nothing_can_be_kept_it_is_parsed(large, monkeypatch):
    home = paths.zip_directory("x").parent
    home.parent.mkdir(parents=True, exist_ok=True)
    home.write_text("in the way")
    assert open_archive(str(large), fresh=True).read("7.jpg") == b"7.jpg"


def test_a_directory_that_grew_since_is_not_waited_for(tmp_path):
    path = tmp_path / "a.zip"
    data = plain_zip(path, ["a.jpg"])
    place = data.rindex(b"PK\5\6")
    data[place + 12 : place + 16] = struct.pack("<L", 10_000)
    path.write_bytes(data)
    with pytest.raises(OSError, match="Bad offset"):
        Archive(str(path))
