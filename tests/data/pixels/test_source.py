"""Canvases of items: read one by one, or kept on disk or in memory."""

import fcntl
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from src.artifacts.atomic import GrowingFile
from src.config import InputSpec
from src.data.pixels import cache, images
from src.data.pixels import source as keeping
from src.data.pixels.source import Canvas, PixelSource
from src.errors import UnreadableImageError, UserError

SMALL, LARGE = Canvas(16, "squash", "bicubic"), Canvas(24, "short_side", "bilinear")
NEED = 5 * 3 * (16**2 + 24**2)


@pytest.fixture
def folder(tmp_path, make_images):
    folder = tmp_path / "items"
    make_images(folder, 3, size=(20, 30), suffix=".png", seed=1)
    make_images(folder, 2, size=(40, 17), stem="tall", seed=2)
    return folder


@pytest.fixture
def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def decoded(monkeypatch):
    calls = []
    real = images.make_canvases

    def counting(data, canvases, *cut):
        calls.append(len(canvases))
        return real(data, canvases, *cut)

    monkeypatch.setattr(images, "make_canvases", counting)
    return calls


@pytest.fixture
def home(tmp_path):
    return tmp_path / "pixels"


@pytest.fixture
def lines(caplog):
    """Let a test read the log, whether or not a command has claimed it before."""
    logger = logging.getLogger("rvf")
    before = logger.propagate, logger.level
    logger.propagate = True
    logger.setLevel(logging.INFO)
    yield caplog
    logger.propagate, level = before
    logger.setLevel(level)


def no_disk(monkeypatch):
    monkeypatch.setattr(cache, "DISK_SHARE", 0.0)


def memory(monkeypatch, free=0):
    monkeypatch.setattr(keeping, "available_memory", lambda: free)


ROOM = int(NEED / keeping.RAM_SHARE)  # of memory, for all canvases


def test_read_is_decode_and_resize_and_equal_canvases_are_made_once(folder, names, decoded):
    source = PixelSource(folder, names, [SMALL, LARGE, SMALL])
    assert (source.canvases, len(source)) == ([SMALL, LARGE], 5)
    for row, name in enumerate(names):
        image = images.decode_image((folder / name).read_bytes())
        small, large = source.read(row)
        assert np.array_equal(small, images.resize_image(image, 16, "squash", "bicubic"))
        assert np.array_equal(large, images.resize_image(image, 24, "short_side", "bilinear"))
    assert decoded == [2] * 5


def test_a_canvas_is_what_a_spec_starts_from():
    spec = InputSpec(224, 256, "short_side", "bilinear", (0, 0, 0), (1, 1, 1))
    assert Canvas.of(spec) == (256, "short_side", "bilinear", None, None)


@pytest.mark.parametrize("where", ["disk", "ram"])
def test_kept_pixels_equal_those_read_and_want_no_files(folder, names, home, where):
    plain = PixelSource(folder, names, [SMALL, LARGE])
    wanted = [plain.read(row) for row in range(len(plain))]
    stacked = plain.stack((4, 0, 4))
    assert np.array_equal(stacked, np.stack([wanted[row][0] for row in (4, 0, 4)]))
    source = PixelSource(folder, names, [SMALL, LARGE])
    assert not source.is_kept
    assert source.preload(home, where) == where
    assert source.is_kept
    for name in names:
        (folder / name).unlink()
    for row in (4, 0, 3, 0):
        for found, one in zip(source.read(row), wanted[row], strict=True):
            assert found.dtype == np.uint8
            assert not found.flags.writeable
            assert np.array_equal(found, one)
    assert np.array_equal(source.stack((4, 0, 4)), stacked)
    assert source.stack((4, 0, 4)).flags.writeable


def test_room_decides_and_the_reason_is_logged(folder, names, home, decoded, monkeypatch, lines):
    def preload():
        lines.clear()
        return PixelSource(folder, names, [SMALL, LARGE]).preload(home)

    no_disk(monkeypatch)
    memory(monkeypatch, ROOM - 10)
    assert preload() == "none"
    assert decoded == []
    assert "do not fit into 0% of the" in lines.text
    assert "do not fit into 40% of the" in lines.text
    memory(monkeypatch, ROOM + 10)
    assert preload() == "ram"
    assert not list(home.rglob("pixels.u8"))
    monkeypatch.setattr(cache, "DISK_SHARE", 1.0)
    assert preload() == "disk"
    decoded.clear()
    assert preload() == "disk"
    assert decoded == []


@pytest.mark.parametrize("where", ["disk", "ram"])
def test_what_was_asked_for_and_is_impossible_is_refused(folder, names, home, monkeypatch, where):
    no_disk(monkeypatch)
    memory(monkeypatch)
    with pytest.raises(UserError, match=rf"--cache {where}: .*do not fit.*--cache auto"):
        PixelSource(folder, names, [SMALL]).preload(home, where)


def test_a_disk_that_fills_up_leads_to_memory(folder, names, home, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(GrowingFile, "_write", full)
    assert PixelSource(folder, names, [SMALL]).preload(home) == "ram"
    assert not list(home.rglob("pixels.u8"))


def test_none_keeps_nothing(folder, names, home, decoded):
    source = PixelSource(folder, names, [SMALL])
    assert source.preload(home, "none") == "none"
    assert (source.is_kept, decoded, home.exists()) == (False, [], False)


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.lockf(file, fcntl.LOCK_EX)
print(1, flush=True)
sys.stdin.read()
"""


def test_of_several_processes_one_holds_a_data_set_in_memory(folder, names, home, monkeypatch):
    no_disk(monkeypatch)
    memory(monkeypatch, ROOM + 10)
    home.mkdir()
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home / "ram.lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with other:
        assert other.stdout is not None
        other.stdout.readline()
        source = PixelSource(folder, names, [SMALL, LARGE])
        assert source.preload(home) == "none"
        assert source.preload(home, "ram") == "ram"  # asked for
        memory(monkeypatch, int(NEED / keeping.OWN_SHARE) + 10)
        assert PixelSource(folder, names, [SMALL, LARGE]).preload(home) == "ram"  # next to nothing
        memory(monkeypatch, ROOM + 10)
        other.stdin.close()  # type: ignore[union-attr]
        other.wait()
    for _ in range(2):  # also for the next fold of this process
        assert PixelSource(folder, names, [SMALL, LARGE]).preload(home) == "ram"
    with (home / "ram.lock").open("a") as file:
        fcntl.lockf(file, fcntl.LOCK_UN)


@pytest.mark.parametrize("data", [None, b"", b"garbage"])
@pytest.mark.parametrize("where", ["disk", "ram"])
def test_an_item_that_is_gone_or_unreadable_is_named(folder, names, home, data, where):
    (folder / names[2]).unlink()
    if data is not None:
        (folder / names[2]).write_bytes(data)
    source = PixelSource(folder, names, [SMALL])
    with pytest.raises(UserError if data is None else UnreadableImageError):
        source.read(2)
    for call in (lambda: source.preload(home, where), lambda: source.read_or_stop(2)):
        with pytest.raises(UserError, match=names[2]):
            call()
    assert not source.is_kept
    assert source.read(1)[0].shape == (16, 16, 3)  # the others are there


def test_siblings_are_kept_along_so_that_one_cache_serves_all_runs(folder, names, home, decoded):
    runs = [[*names[:2], names[2]], [names[3], *names[:2]], [names[1], names[1], names[4]]]
    first = PixelSource(folder, runs[0], [SMALL, LARGE], siblings=names)
    first.preload(home, "disk")
    files = sorted(home.rglob("pixels.u8"))
    assert len(decoded) == 2 * len(names)
    for run in runs:
        source = PixelSource(folder, run, [SMALL, LARGE], siblings=names)
        assert source.preload(home, "disk") == "disk"
        assert len(source) == 3
        plain = PixelSource(folder, run, [SMALL, LARGE])
        for row in range(3):
            for found, wanted in zip(source.read(row), plain.read(row), strict=True):
                assert np.array_equal(found, wanted)
    assert sorted(home.rglob("pixels.u8")) == files
    assert len(decoded) == 2 * len(names) + 9  # by the plain sources


def test_without_room_for_siblings_a_run_keeps_its_own(folder, names, home, monkeypatch):
    real = keeping.missing_space

    def full(home, canvas, marks):
        return "no room" if len(marks) > 2 else real(home, canvas, marks)

    monkeypatch.setattr(keeping, "missing_space", full)
    source = PixelSource(folder, names[:2], [SMALL], siblings=names)
    assert source.preload(home, "disk") == "disk"
    assert (home / "squash_16_bicubic").exists()
    (file,) = home.rglob("pixels.u8")
    assert file.stat().st_size == 2 * 3 * 16**2


def test_an_empty_source(home):
    source = PixelSource(Path(), [], [SMALL])
    assert len(source) == 0
    assert source.preload(home) == "ram"
