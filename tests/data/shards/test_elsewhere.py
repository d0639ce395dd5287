"""Shards that lie elsewhere: fetched by blocks, kept within a limit, told when they change."""

import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from src.data.items import files, shard_blocks, shard_home
from src.data.items.files import read_ahead, read_bytes
from src.data.items.manifest import Dataset
from src.data.items.shard_home import home_at
from src.data.shards.check import check_shards
from src.data.shards.write import pack
from tests.data.conftest import refused
from tests.data.shards.conftest import SIZE

PLACE = "memory://bucket/toy"
BLOCK = 3000  # below the size of an item: items lie across blocks


@pytest.fixture
def far(original: Dataset, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dataset]:
    """Pack the data set to a remote place; returns what was packed."""
    for module in ("shard_blocks", "tar_shards"):
        monkeypatch.setattr(f"src.data.items.{module}.BLOCK", BLOCK)
    monkeypatch.setattr(shard_home, "_PAUSE", 0.0)
    files._ARCHIVES.clear()
    pack(original, home_at(PLACE), SIZE)
    yield original
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


def cached(artefact_root: Path) -> list[Path]:
    return sorted((artefact_root / ".cache" / "shards").glob("*/" + "[0-9]" * 6))


def test_items_are_read_from_elsewhere_and_fetched_once(
    far: Dataset, shards_as: Callable[..., Dataset], artefact_root: Path, monkeypatch
):
    asked: list[tuple[str, int]] = []
    read = shard_home.ShardHome.read

    def noted(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        asked.append((name, start or 0))
        return read(self, name, start, end)

    found = shards_as("far", PLACE)
    monkeypatch.setattr(shard_home.ShardHome, "read", noted)
    for _ in range(2):
        for ours, theirs in zip(found.items["path"], far.items["path"], strict=True):
            assert read_bytes(found.root, ours) == read_bytes(far.root, theirs)
    assert len(asked) == len(set(asked)) == len(cached(artefact_root)) > 20
    assert check_shards(home_at(PLACE)).wrong == []


def test_blocks_are_asked_for_ahead(far, shards_as, artefact_root, monkeypatch):
    queue = []
    asked = shard_blocks._ToFetch(type("Q", (), {"put": queue.append}), set())
    monkeypatch.setattr(shard_blocks, "_asked_of", lambda _: asked)
    found = shards_as("far", PLACE)
    paths = found.items["path"].tolist()

    def fetched_ahead() -> list[Path]:
        read_ahead(found.root, paths)
        read_ahead(found.root, paths)
        count = len(queue)
        while queue:
            queue.pop()()
        assert len(cached(artefact_root)) == count  # none twice
        return cached(artefact_root)

    there = fetched_ahead()
    assert len(there) > 10
    for ours, theirs in zip(paths, far.items["path"], strict=True):
        assert read_bytes(found.root, ours) == read_bytes(far.root, theirs)
    assert cached(artefact_root) == there
    shard_blocks.make_room(1e-9)  # all of them go, and are wanted again in the next epoch
    assert cached(artefact_root) == []
    assert fetched_ahead() == there


def _read_all(root: Path, paths: list[str]) -> int:
    return sum(len(read_bytes(root, path)) for path in paths)


def test_a_fork_reads_on(far, shards_as):
    found = shards_as("far", PLACE)
    paths = found.items["path"].tolist()
    _read_all(found.root, paths[:3])
    read_ahead(found.root, paths[:3])
    with multiprocessing.get_context("fork").Pool(2) as pool:
        sizes = pool.starmap(_read_all, [(found.root, paths), (found.root, paths)])
    assert sizes == [int(found.items["bytes"].sum())] * 2


def test_the_cache_keeps_to_its_limit(far, shards_as, artefact_root, monkeypatch):
    monkeypatch.setattr(shard_blocks, "LOOK_EVERY", 1)
    found = shards_as("far", f"{{path: '{PLACE}', cache_gb: 0.000015}}")
    _read_all(found.root, found.items["path"].tolist())
    assert sum(p.stat().st_size for p in cached(artefact_root)) <= 15_000
    assert _read_all(found.root, found.items["path"].tolist()) == found.items["bytes"].sum()
    shard_blocks.make_room(1e-9)
    left = {path.name for path in (artefact_root / ".cache" / "shards").glob("*/*")}
    assert left == {"shards.json", "index.parquet", "submission.parquet"}  # no lock of any block


def test_an_index_elsewhere_is_held_against_its_hash(far, shards_as):
    memory = fsspec.filesystem("memory")
    whole = memory.cat_file("/bucket/toy/index.parquet")
    memory.pipe_file("/bucket/toy/index.parquet", whole[:-9] + bytes(9))
    for _ in range(2):
        with refused("memory://bucket/toy/index.parquet is not what was written .*SHA-256"):
            shards_as("far", PLACE)
    memory.pipe_file("/bucket/toy/index.parquet", whole)
    assert len(shards_as("far", PLACE).items) == len(far.items)


def test_what_changes_elsewhere_is_told(far, shards_as):
    found = shards_as("far", PLACE)
    memory = fsspec.filesystem("memory")
    train = found.items[found.items["split"] == "train"]["path"].iloc[0]
    shard = train.partition("!/")[0]
    whole = memory.cat_file(f"/bucket/toy/{shard}")
    memory.pipe_file(f"/bucket/toy/{shard}", bytes(len(whole)))
    with refused("is not what was written there"):
        read_bytes(found.root, train)
    files._ARCHIVES.clear()
    memory.pipe_file(f"/bucket/toy/{shard}", whole[:-7])
    with refused("half copied, or written again"):
        read_bytes(found.root, train)
    memory.rm(f"/bucket/toy/{shard}")
    with refused("is not there any more"):
        read_bytes(found.root, train)


def test_a_place_that_does_not_answer_is_named(far, shards_as, monkeypatch):
    found = shards_as("far", PLACE)
    calls = []

    def fails(*_: object, **__: object) -> bytes:
        calls.append(1)
        raise RuntimeError("503 slow down")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", fails)
    with refused("memory://bucket/toy/.*did not answer .*503 slow down"):
        read_bytes(found.root, found.items["path"].iloc[0])
    assert len(calls) == 3
