"""Which item comes into which shard: settled before the first is written, so that a stop costs one.

Train items are shuffled, for what is read together must not be of one class or domain; test items
stay in their order, in shards of their own.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.artifacts.files import sha256_json
from src.data.items.manifest import Dataset
from src.data.items.shard_home import SCHEMA
from src.seeds import derive_seed

BESIDE = 2560  # bytes about an item's own, on average: three headers, two short members, padding
_SHOWN = ("item_id", "split", "path", "bytes", "label", "group", "domain")


@dataclass(frozen=True)
class Shard:
    """What one shard will hold."""

    name: str  # `train-000000.tar`
    rows: NDArray[np.int64]  # of the manifest, in the order of the shard
    bytes: int  # about how long it will be


@dataclass(frozen=True)
class Plan:
    """All shards of a data set."""

    shards: list[Shard]
    key: str  # changes with whatever is written: items, labels, files, sizes

    @property
    def bytes(self) -> int:
        """Return about how long all shards will be."""
        return sum(shard.bytes for shard in self.shards)

    @property
    def items(self) -> int:
        """Return the number of items."""
        return sum(len(shard.rows) for shard in self.shards)


def make_plan(dataset: Dataset, size: int) -> Plan:
    """Deal the items of a data set to shards of about `size` bytes each, all about equal."""
    items = dataset.items
    masked = items["item_id"].isin(dataset.masks.index).to_numpy()
    takes = items["bytes"].to_numpy(np.int64) + BESIDE * np.where(masked, 2, 1)
    split = items["split"].to_numpy()
    shards: list[Shard] = []
    for name in ("train", "test"):
        rows = np.flatnonzero(split == name)
        if name == "train":
            rows = np.random.default_rng(derive_seed(0, "shards")).permutation(rows)
        if not len(rows):
            continue
        ends = np.cumsum(takes[rows])
        count = max(1, -int(-ends[-1] // size))
        number = np.minimum((ends - 1) * count // int(ends[-1]), count - 1)
        parts = [part for part in np.split(rows, np.flatnonzero(np.diff(number)) + 1) if len(part)]
        shards += [
            Shard(f"{name}-{place:06d}.tar", part, int(takes[part].sum()))
            for place, part in enumerate(parts)
        ]
    return Plan(shards, _key(dataset, size))


def _key(dataset: Dataset, size: int) -> str:
    digest = hashlib.sha256()
    hashed = [pd.util.hash_pandas_object(dataset.items[name], index=False) for name in _SHOWN]
    hashed += [pd.util.hash_pandas_object(dataset.masks.astype(object))]
    for column in hashed:
        digest.update(column.to_numpy().tobytes())
    digest.update(np.asarray(dataset.stamps).tobytes())
    return sha256_json([SCHEMA, dataset.name, size, BESIDE, digest.hexdigest()])
