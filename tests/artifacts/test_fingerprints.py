"""Remembered fingerprints are those of the bytes, whatever was done to a file."""

import json
import os
import time
from pathlib import Path

import pytest

from src import paths
from src.artifacts import fingerprints
from src.artifacts.files import sha256_file
from src.artifacts.fingerprints import fingerprint_of


@pytest.fixture
def hashed(artefact_root: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Count the files that are read, and take every file for one that has settled."""
    seen: list[Path] = []

    def spy(path: Path) -> str:
        seen.append(path)
        return sha256_file(path)

    monkeypatch.setattr(fingerprints, "sha256_file", spy)
    monkeypatch.setattr(fingerprints, "SETTLED_NS", -1)
    fingerprints._remembered_in.cache_clear()
    return seen


def test_a_file_is_read_once_by_all_processes(tmp_path: Path, hashed: list[Path]) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    want = sha256_file(file)
    assert [fingerprint_of(file) for _ in range(3)] == [want] * 3
    fingerprints._remembered_in.cache_clear()  # as another process would begin
    assert fingerprint_of(file) == want
    assert hashed == [file]


def test_another_content_of_equal_size_and_date_is_noticed(
    tmp_path: Path, hashed: list[Path]
) -> None:
    file, other = tmp_path / "weights", tmp_path / "other"
    file.write_bytes(b"abc")
    before, found = fingerprint_of(file), file.stat()
    time.sleep(0.05)  # the clock of a file system ticks every few milliseconds
    file.write_bytes(b"abd")
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert fingerprint_of(file) == sha256_file(file) != before
    other.write_bytes(b"abe")  # put in its place, as a copy over it does
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.replace(file)
    assert fingerprint_of(file) == sha256_file(file)
    assert len(hashed) == 3


def test_a_file_that_changed_just_now_is_not_remembered(
    tmp_path: Path, artefact_root: Path
) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    fingerprint_of(file)
    assert not paths.fingerprint_cache().exists()
    assert time.time_ns() - file.stat().st_ctime_ns < 60e9


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', '{"a": [1, 2]}', "null"])
def test_a_damaged_memory_is_none(tmp_path: Path, hashed: list[Path], text: str) -> None:
    paths.fingerprint_cache().parent.mkdir(parents=True, exist_ok=True)
    paths.fingerprint_cache().write_text(text)
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    assert fingerprint_of(file) == sha256_file(file)
    assert list(json.loads(paths.fingerprint_cache().read_text())) == [str(file)]
