"""Packing a data set: shard by shard, each whole or not at all, the index last of all."""

import hashlib
import logging
import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from src import paths
from src.artifacts.atomic import atomic_path, file_lock, own_folder
from src.data.items.files import LARGEST, read_bytes
from src.data.items.manifest import Dataset, refuse_missing
from src.data.items.shard_home import ABOUT, ShardHome
from src.data.pixels.cache import gb
from src.data.shards.describe import describe, settings_of
from src.data.shards.plan import Plan, Shard, make_plan
from src.data.shards.tar import Packing, TarWriter, size_of
from src.errors import LockedError, UnreadableImageError, UserError
from src.machine import cpu_count, decoding_threads
from src.progress import track

LOG = logging.getLogger("rvf")
TOGETHER = 16  # items that a thread reads at once


class Packed(NamedTuple):
    """What was done."""

    home: ShardHome
    shards: int
    written: int  # of them, by this call
    items: int
    bytes: int


class _Read(NamedTuple):
    item: Packing
    data: bytes
    mask: bytes | None


def pack(dataset: Dataset, home: ShardHome, size: int) -> Packed:
    """Write the items of a data set as shards of about `size` bytes, then their index.

    Stopped at any moment, the same call goes on after the last whole shard. Nothing that is there
    is written again where it is all there.

    Raises:
        UserError: files are missing or changed meanwhile, the place holds other shards, another
            process writes there, the disk has no room.
    """
    refuse_missing(dataset)
    _check_place(dataset, home)
    _check_sizes(dataset)
    settings, plan = settings_of(dataset), make_plan(dataset, size)
    with ExitStack() as stack:
        _lock(stack, home)
        if _is_done(home, plan):
            total = sum(one["bytes"] for one in home.about()["shards"].values())
            return Packed(home, len(plan.shards), 0, plan.items, total)
        begun = paths.shards_begun(f"{plan.key[:16]}-{_short(home)}")
        left = [shard for shard in plan.shards if _part(home, begun, shard) is None]
        _check_room(home, sum(shard.bytes for shard in left))
        there = len(plan.shards) - len(left)
        if there:
            LOG.info("shards: %d of %d are there; going on", there, len(plan.shards))
        _write_all(dataset, home, begun, left)
        parts = {shard.name: _part(home, begun, shard) for shard in plan.shards}
        whole = {name: part for name, part in parts.items() if part is not None}
        if len(whole) != len(parts):
            raise UserError(f"{home.place}: shards were taken away while others were written")
        describe(dataset, home, plan.key, settings, whole)
        shutil.rmtree(begun, ignore_errors=True)
    return Packed(home, len(whole), len(left), plan.items, sum(map(size_of, whole.values())))


def _short(home: ShardHome) -> str:
    return hashlib.sha256(home.place.encode()).hexdigest()[:16]


def _check_place(dataset: Dataset, home: ShardHome) -> None:
    """Raise a UserError where shards would come among the files that they are packed from."""
    if home.is_remote:
        home.fs()  # without its package, said at once
        return
    root = os.path.abspath(dataset.root)  # noqa: PTH100 - as `home_at` does
    if f"{home.place}/".startswith(f"{root}/"):
        raise UserError(f"--to {home.place} lies in the data set's own folder; choose another one")


def _check_sizes(dataset: Dataset) -> None:
    large = (dataset.items["bytes"] > LARGEST).to_numpy()
    if large.any():
        raise UserError(
            f"{dataset.root / dataset.items['path'][large].iloc[0]}: larger than "
            f"{LARGEST / 2**30:.0f} GiB, and an item of a shard is read whole; cut the clip, or "
            "leave it aside (`ignore:` in dataset.yaml)"
        )


def _lock(stack: ExitStack, home: ShardHome) -> None:
    remote = paths.shards_begun(f"{_short(home)}.lock")
    lock = remote if home.is_remote else Path(home.place, ".shards.lock")
    try:
        stack.enter_context(file_lock(lock, f"the shards in {home.place}"))
    except LockedError:
        raise UserError(f"another process writes shards to {home.place}") from None


def _is_done(home: ShardHome, plan: Plan) -> bool:
    """Tell whether these very shards are whole there; raises a UserError where others are."""
    try:
        home.facts(ABOUT)
    except FileNotFoundError:
        return False
    about = home.about()
    if about["plan"] != plan.key:
        raise UserError(
            f"{home.place} holds shards of {about['name']} already ({about['items']} items), of "
            "other files, labels or --size; choose another folder, or remove that one"
        )
    return all(_has_size(home, name, one["bytes"]) for name, one in about["shards"].items())


def _has_size(home: ShardHome, name: str, size: int) -> bool:
    try:
        return home.facts(name)[0] == size
    except FileNotFoundError:
        return False


def _check_room(home: ShardHome, need: int) -> None:
    if home.is_remote or not need:
        return
    free = shutil.disk_usage(home.place).free
    if need > free:
        raise UserError(
            f"{home.place}: {gb(need)} are still to be written and {gb(free)} are free; free some "
            "space, or write them elsewhere"
        )


def _part(home: ShardHome, begun: Path, shard: Shard) -> pa.Table | None:
    """Return where the items of a shard are that was written; None where it is not whole."""
    try:
        table = pq.read_table(begun / f"{shard.name}.parquet", page_checksum_verification=True)
    except (OSError, pa.ArrowException):
        return None
    return table if _has_size(home, shard.name, size_of(table)) else None


def _write_all(dataset: Dataset, home: ShardHome, begun: Path, shards: Sequence[Shard]) -> None:
    done: dict[str, Any] = {"shard": "", "bytes": 0}
    items = (item for shard in shards for item in _items(dataset, shard))
    shown = track(
        _read_items(dataset, items), "packing", total=sum(len(s.rows) for s in shards),
        unit="items", said=lambda: f"{done['shard']}, {gb(done['bytes'])}",
    )  # fmt: skip
    for shard in shards:
        done["shard"] = shard.name
        with _destination(home, shard.name) as path, path.open("wb") as file:
            tar = TarWriter(file)
            for _ in range(len(shard.rows)):
                before = tar.size
                tar.add(*next(shown))
                done["bytes"] += tar.size - before
            table = tar.end()
        with atomic_path(begun / f"{shard.name}.parquet") as temporary:
            pq.write_table(table, temporary, write_page_checksum=True)


@contextmanager
def _destination(home: ShardHome, name: str) -> Iterator[Path]:
    """Lend a path to write a file to; at the end it lies in the home, whole."""
    if not home.is_remote:
        with atomic_path(Path(home.join(name))) as temporary:
            yield temporary
        return
    with own_folder(paths.cache_dir() / "packing", "shard-") as folder:
        yield folder / name
        home.put(folder / name, name)


def _items(dataset: Dataset, shard: Shard) -> Iterator[Packing]:
    """Yield the items of a shard, in its order."""
    table = dataset.items.take(shard.rows)
    # Labels of test items are kept apart everywhere: they are in no shard either.
    labels = table["label"].where(table["split"] == "train").astype(object)
    known = [None if pd.isna(label) else int(label) for label in labels]
    columns = [table[name].tolist() for name in ("split", "item_id", "path", "group", "domain")]
    for values in zip(shard.rows.tolist(), *columns, known, strict=True):
        yield Packing(*values)


def _read_items(dataset: Dataset, items: Iterator[Packing]) -> Iterator[_Read]:
    """Yield items with their bytes, in order, read in threads; few of them wait."""
    masks = dataset.masks.to_dict()

    def read(part: Sequence[Packing]) -> list[_Read]:
        return [
            _Read(
                item,
                _bytes_of(dataset, item.path),
                _bytes_of(dataset, masks[item.item_id])
                if item.split == "train" and item.item_id in masks else None,
            )
            for item in part
        ]  # fmt: skip

    waiting: deque[Future[list[_Read]]] = deque()
    with decoding_threads() as pool:
        while part := list(islice(items, TOGETHER)):
            waiting.append(pool.submit(read, part))
            if len(waiting) > 2 * cpu_count():
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _bytes_of(dataset: Dataset, path: str) -> bytes:
    try:
        return read_bytes(dataset.root, path)
    except UnreadableImageError as error:
        raise UserError(
            f"{dataset.root / path}: {error}; mend or remove the file, or leave it aside "
            "(`ignore:` in dataset.yaml)"
        ) from None
