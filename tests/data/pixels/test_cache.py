"""Pixel caches on disk: whole or not at all, shared, and never those of other pixels."""

import os
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from src import machine
from src.artifacts.atomic import GrowingFile
from src.data.pixels import cache, cache_build
from src.data.pixels.cache import NoRoomError, canvas_name, mark_items, open_cache
from src.data.pixels.cache_build import build_cache
from src.data.pixels.images import Canvas
from src.errors import UserError
from src.paths import REPO

CANVAS = Canvas(8, "squash", "bicubic")
ITEM = 3 * 8 * 8


def marks_of(count, version=0):
    return mark_items([f"i{k}" for k in range(count)], [(k, version) for k in range(count)])


def build(home, canvas, marks, draw):
    """Make a cache of images, `draw(row)` each."""
    starts = np.arange(len(marks) + 1)
    return build_cache(home, canvas, marks, lambda rows: [draw(row) for row in rows], starts)


def canvas_of(row, version=0):
    rng = np.random.default_rng([row, version])
    return rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)


def folder_of(home):
    (folder,) = [path for path in (home / canvas_name(CANVAS)).iterdir() if path.is_dir()]
    return folder


@pytest.fixture
def drawn():
    return []


@pytest.fixture
def draw(drawn):
    def draw(row):
        drawn.append(row)
        return canvas_of(row)

    return draw


@pytest.fixture
def small_chunks(monkeypatch):
    for module in (cache, cache_build):
        monkeypatch.setattr(module, "CHUNK_BYTES", 4 * ITEM)


def assert_holds(stored, rows, version=0):
    assert len(stored.rows) == len(rows)
    for place, row in enumerate(rows):
        assert np.array_equal(stored.pixels[stored.rows[place]], canvas_of(row, version))


@pytest.mark.parametrize("count", [1, 3, 4, 5, 150])
def test_what_was_drawn_once_is_found_again(tmp_path, small_chunks, draw, drawn, count):
    assert open_cache(tmp_path, CANVAS, marks_of(count)) is None
    assert_holds(build(tmp_path, CANVAS, marks_of(count), draw), range(count))
    assert sorted(drawn) == list(range(count))
    found = open_cache(tmp_path, CANVAS, marks_of(count))
    assert found is not None
    assert_holds(found, range(count))
    assert not found.pixels.flags.writeable
    assert_holds(build(tmp_path, CANVAS, marks_of(count), draw), range(count))
    assert len(drawn) == count


def test_another_canvas_and_changed_items_are_other_pixels(tmp_path, draw):
    build(tmp_path, CANVAS, marks_of(6), draw)
    assert open_cache(tmp_path, Canvas(8, "squash", "bilinear"), marks_of(6)) is None
    assert open_cache(tmp_path, Canvas(16, "squash", "bicubic"), marks_of(6)) is None
    assert open_cache(tmp_path, CANVAS, marks_of(6, version=1)) is None
    assert open_cache(tmp_path, CANVAS, marks_of(7)) is None
    marks = mark_items(["a", "a", "b"], [(1, 2), (1, 3), (1, 2)])
    assert len(set(marks.tolist())) == 3


def test_fewer_items_in_any_order_are_served_by_a_larger_cache(tmp_path, draw, drawn):
    build(tmp_path, CANVAS, marks_of(9), draw)
    rows = [7, 2, 2, 8]
    found = open_cache(tmp_path, CANVAS, marks_of(9)[rows])
    assert found is not None
    assert_holds(found, rows)
    build(tmp_path, CANVAS, marks_of(9)[rows], draw)
    assert len(drawn) == 9


def test_a_newer_cache_replaces_the_old_one_and_draws_only_what_is_new(tmp_path, draw, drawn):
    build(tmp_path, CANVAS, marks_of(6), draw)
    drawn.clear()
    mixed = marks_of(8)
    mixed[2] = marks_of(8, version=1)[2]  # one item has changed, two are new
    found = build(tmp_path, CANVAS, mixed, draw)
    assert sorted(drawn) == [2, 6, 7]
    assert_holds(found, range(8))
    folder_of(tmp_path)  # the only one


def written(name, change):
    """Return what writes a file of a cache anew, of its bytes."""

    def damage(folder):
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return damage


def swap_items(folder):
    np.save(folder / "items.npy", np.load(folder / "items.npy")[::-1])


FILES = ("pixels.u8", "items.npy", "about.json")


@pytest.mark.parametrize(
    "damage",
    [
        written("pixels.u8", lambda data: data[: 5 * ITEM]),
        written("pixels.u8", lambda data: data + b"x"),
        written("pixels.u8", lambda data: bytes(2 * ITEM) + data[2 * ITEM :]),
        written("items.npy", lambda _: b""),
        *(written(name, lambda _: b"{") for name in FILES),
        *(lambda folder, name=name: (folder / name).unlink() for name in FILES),
        swap_items,
    ],
)
def test_a_damaged_cache_is_not_used_and_built_again(tmp_path, draw, drawn, damage):
    build(tmp_path, CANVAS, marks_of(9), draw)
    damage(folder_of(tmp_path))
    drawn.clear()
    assert open_cache(tmp_path, CANVAS, marks_of(9)) is None
    assert_holds(build(tmp_path, CANVAS, marks_of(9), draw), range(9))
    assert sorted(drawn) == list(range(9))


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError, MemoryError])
def test_an_interrupted_build_goes_on_after_its_last_chunk(
    tmp_path, small_chunks, draw, drawn, monkeypatch, error
):
    monkeypatch.setattr(machine, "cpu_count", lambda: 1)

    def stop(row):
        if row == 17:
            raise error("stopped")
        return draw(row)

    with pytest.raises(error):
        build(tmp_path, CANVAS, marks_of(30), stop)
    assert open_cache(tmp_path, CANVAS, marks_of(30)) is None
    with (folder_of(tmp_path) / ".pixels.u8.part").open("ab") as file:
        file.write(b"2")  # killed while it wrote a chunk
    drawn.clear()
    assert_holds(build(tmp_path, CANVAS, marks_of(30), draw), range(30))
    assert min(drawn) >= 4
    assert set(range(16, 30)) <= set(drawn)


KILLED = """
import os, sys, time
from pathlib import Path
from tests.data.pixels import test_cache as t
t.cache.CHUNK_BYTES = t.cache_build.CHUNK_BYTES = 4 * t.ITEM
def draw(row):
    time.sleep(0.002)
    return t.canvas_of(row)
t.build(Path(sys.argv[1]), t.CANVAS, t.marks_of(400), draw)
"""


def test_killed_at_any_moment_it_ends_with_the_same_bytes(tmp_path, small_chunks, draw):
    rng = np.random.default_rng(0)
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], env=env)
        record = tmp_path / canvas_name(CANVAS)
        deadline = time.monotonic() + 60
        begun = len(list(record.glob("*/.pixels.u8.part")))
        while not list(record.glob("*/.pixels.u8.part")) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.2) + 0.6 * begun)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL  # it was at work, not gone with an error
    assert_holds(build(tmp_path, CANVAS, marks_of(400), draw), range(400))


def test_two_builders_draw_each_item_once(tmp_path, small_chunks, drawn):
    def slow(row):
        drawn.append(row)
        time.sleep(0.01)
        return canvas_of(row)

    with ThreadPoolExecutor(3) as pool:
        make = partial(build, tmp_path, CANVAS, marks_of(20), slow)
        results = [pool.submit(make) for _ in range(3)]
    assert sorted(drawn) == list(range(20))
    for found in results:
        assert_holds(found.result(), range(20))


def test_no_thread_is_at_work_after_a_failed_build(tmp_path, small_chunks, monkeypatch):
    monkeypatch.setattr(machine, "cpu_count", lambda: 4)
    begun = []

    def slow(row):
        begun.append(row)
        if row == 0:
            while len(begun) < 4:
                time.sleep(0.001)
            raise UserError("gone")
        time.sleep(0.02)
        return canvas_of(row)

    with pytest.raises(UserError, match="gone"):
        build(tmp_path, CANVAS, marks_of(400), slow)
    count = len(begun)
    assert count < 100  # what was not begun is dropped
    time.sleep(0.05)
    assert len(begun) == count


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(["items.npy", "about.json"]),
    st.integers(0, 2**16),
    st.integers(0, 7),
    st.floats(0, 1),
)
@example("items.npy", 0, 0, 0.0)
def test_a_flipped_bit_or_a_cut_is_never_a_traceback(tmp_path, name, place, bit, kept):
    home = tmp_path / "home"
    if not home.exists():
        build(home, CANVAS, marks_of(20), canvas_of)
    file = folder_of(home) / name
    good = file.read_bytes()
    bad = bytearray(good)
    bad[place % len(bad)] ^= 1 << bit
    if kept < 0.5:
        bad = bad[: int(2 * kept * len(bad))]
    file.write_bytes(bad)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's, of a header of another version
            found = open_cache(home, CANVAS, marks_of(20))
    finally:
        file.write_bytes(good)
    if found is not None:
        assert_holds(found, range(20))


def test_a_full_disk_leaves_nothing_behind(tmp_path, small_chunks, draw, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(GrowingFile, "_write", full_disk)
        with pytest.raises(NoRoomError, match=r"could not be written.*the disk is full"):
            build(tmp_path, CANVAS, marks_of(9), draw)
    assert not list(tmp_path.rglob("*pixels.u8*"))
    assert_holds(build(tmp_path, CANVAS, marks_of(9), draw), range(9))


def full_disk(*_):
    raise OSError(28, "No space left on device")
