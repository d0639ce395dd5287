"""Samplers by name: which rows an epoch's batches are made of, in which order."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from src.errors import UserError
from src.registry import Registry
from src.seeds import derive_seed

Rows = NDArray[np.int64]
SHARD = 2**40  # bytes; no shard is as long
# Parts of a batch that read shards of their own. A rank's places of a batch are some of these, for
# 1, 2, 4, 8 and 16 ranks: so the order of an epoch does not depend on how many ranks there are.
LANES = 16
WINDOW = 64 * 2**20  # bytes of shards, in which a lane's items are shuffled


class BatchKey(NamedTuple):
    """Which batch: all that its pixels depend on, so that no worker keeps a state."""

    epoch: int
    number: int
    rows: tuple[int, ...]


@dataclass(frozen=True)
class EpochPool:
    """What an epoch is drawn from."""

    rows: Rows  # row numbers of the training items, int64 (n,)
    labels: NDArray[np.int64]  # 0/1 of the same rows
    batch_size: int  # items a batch
    per_class: int = 0  # of `oversample`
    groups: NDArray[np.int64] | None = None  # number of the rows' groups, -1 for none; of `paired`
    # where the same rows lie, int64: number of the shard * `SHARD` + offset in it; of `shards`
    places: NDArray[np.int64] | None = None


Order = Callable[[EpochPool, np.random.Generator], Rows]
SAMPLERS: Registry[Order] = Registry("sampler")


@SAMPLERS.register("shuffle")
def shuffle(pool: EpochPool, rng: np.random.Generator) -> Rows:
    """Take every row once."""
    return rng.permutation(pool.rows)


@SAMPLERS.register("balanced")
def balanced(pool: EpochPool, rng: np.random.Generator) -> Rows:
    """Draw both classes equally often, with replacement; as many rows as there are."""
    counts = np.bincount(pool.labels, minlength=2)
    return rng.choice(pool.rows, len(pool.rows), p=(1 / counts[pool.labels]) / 2)


@SAMPLERS.register("oversample")
def oversample(pool: EpochPool, rng: np.random.Generator) -> Rows:
    """Take every row once, and rows of a class that has fewer than `per_class` again.

    None is taken a time more than another of its class. Whole batches are filled up, so that none
    of them is left out.
    """
    order: list[Rows] = []
    for label in np.unique(pool.labels):
        rows = pool.rows[pool.labels == label]
        times, rest = divmod(max(pool.per_class, len(rows)), len(rows))
        order.append(np.concatenate([*[rows] * times, rng.permutation(rows)[:rest]]))
    missing = -sum(len(part) for part in order) % pool.batch_size
    return rng.permutation(np.concatenate([*order, rng.choice(pool.rows, missing)]))


@SAMPLERS.register("paired")
def paired(pool: EpochPool, rng: np.random.Generator) -> Rows:
    """Put a real and a fake of one group side by side in a batch, as often as a group has both.

    Pairs and the rows that are left come in random order; every row is taken once. Where a batch
    has one place left and there are only pairs, one pair is torn apart.

    Raises:
        UserError: no group has both.
    """
    pairs, singles = _pairs(pool, rng)
    is_pair = rng.permutation(np.arange(len(pairs) + len(singles)) < len(pairs))
    ends = np.cumsum(1 + is_pair)
    _keep_pairs_whole(is_pair, ends, pool.batch_size)
    order = np.empty(len(pool.rows), np.int64)
    order[ends[~is_pair] - 1] = singles
    order[ends[is_pair] - 2], order[ends[is_pair] - 1] = pairs.T
    return order


@SAMPLERS.register("shards")
def shards(pool: EpochPool, rng: np.random.Generator) -> Rows:
    """Take every row once, in an order that reads shards nearly from start to end.

    Shards come in random order and are dealt to lanes; each lane follows its shards, and gives an
    item up to `WINDOW` bytes late, at random. A batch takes some items of every lane, always at the
    same places: whoever trains on some places of all batches reads few of the shards.

    Raises:
        ValueError: no places were given.
    """
    if pool.places is None:
        raise ValueError("shards: no places were given")
    order = np.argsort(pool.places, kind="stable")
    shard, offset = np.divmod(pool.places[order], SHARD)
    first = np.append(True, np.diff(shard) != 0)
    number = np.cumsum(first) - 1
    order = order[np.argsort(rng.permutation(number[-1] + 1)[number], kind="stable")]
    step = np.diff(offset)[~first[1:]]
    window = WINDOW / max(1.0, float(step.mean())) if len(step) else 1.0
    size = pool.batch_size
    batches, lanes = len(order) // size, min(LANES, size)
    ends = [size * lane // lanes for lane in range(lanes + 1)]
    mixed = np.empty((batches, size), np.int64)
    for start, end in pairwise(ends):
        lane = order[start * batches : end * batches]
        late = np.arange(len(lane)) + rng.random(len(lane)) * window
        mixed[:, start:end] = lane[np.argsort(late)].reshape(batches, end - start)
    return pool.rows[np.append(mixed.ravel(), order[batches * size :])]


class EpochSampler(Sampler[BatchKey]):
    """The batches of an epoch, drawn from (seed, epoch) alone; a last, smaller one is left out.

    Raises:
        UserError: an epoch does not fill one batch, or the sampler does not fit the rows.
    """

    def __init__(self, pool: EpochPool, kind: str, seed: int) -> None:
        self.pool = pool
        self.order = SAMPLERS.get(kind)
        self.seed = seed
        self.epoch = 0
        self.first = 0  # batch to begin with: those before it were trained on already
        self._drawn: tuple[int, Rows] | None = None  # the last epoch's order: drawn once
        count = len(self._rows())
        self.batches = count // pool.batch_size
        if self.batches == 0:
            raise UserError(
                f"optim.batch_size is {pool.batch_size}, and an epoch of this fold has {count} "
                f"items; {count} would fit: train a variant under its own name "
                f"(--set optim.batch_size={count} --as NAME)"
            )

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self.batches

    def __iter__(self) -> Iterator[BatchKey]:
        """Yield the batches of the current `epoch`."""
        order, size = self._rows(), self.pool.batch_size
        for number in range(self.first, len(self)):
            part = order[number * size : (number + 1) * size]
            yield BatchKey(self.epoch, number, tuple(part.tolist()))

    def _rows(self) -> Rows:
        if self._drawn is None or self._drawn[0] != self.epoch:
            self._drawn = None  # not beside the next one
            rng = np.random.default_rng(derive_seed(self.seed, "order", self.epoch))
            self._drawn = self.epoch, self.order(self.pool, rng)
        return self._drawn[1]


def _pairs(pool: EpochPool, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Return (real, fake) rows of one group each, (p, 2), and the rows left, in random order."""
    if pool.groups is None:
        raise ValueError("paired: no groups were given")
    order = rng.permutation(len(pool.rows))
    order = order[np.lexsort((pool.labels[order], pool.groups[order]))]  # stable: random within
    rows, labels, groups = pool.rows[order], pool.labels[order], pool.groups[order]
    first = np.append(True, (np.diff(groups) != 0) | (np.diff(labels) != 0))
    start = np.flatnonzero(first)
    number = np.arange(len(rows)) - np.repeat(start, np.diff(np.append(start, len(rows))))
    _, of = np.unique(groups, return_inverse=True)
    counts = np.bincount(2 * of + labels, minlength=2 * (of.max(initial=-1) + 1)).reshape(-1, 2)
    paired = (groups >= 0) & (number < counts.min(1)[of])
    if not paired.any():
        raise UserError(
            "sampler: paired finds no group with a real and a fake item among the training rows; "
            "take balanced, or make folds from groups of related items (python -m src folds)"
        )
    pairs = np.stack([rows[paired & (labels == label)] for label in (0, 1)], axis=1)
    return pairs[rng.permutation(len(pairs))], rng.permutation(rows[~paired])


def _keep_pairs_whole(is_pair: NDArray[np.bool_], ends: Rows, batch_size: int) -> None:
    """Exchange each pair that the end of a batch would tear apart with the next single row.

    `is_pair` (n,) says what comes one after the other, `ends` (n,) where each ends; both change.
    """
    singles = np.flatnonzero(~is_pair)
    for end in range(batch_size, int(ends[-1]), batch_size):
        torn = int(np.searchsorted(ends, end))
        if ends[torn] == end:
            continue
        after = int(np.searchsorted(singles, torn))
        if after == len(singles):
            return  # there are only pairs from here on
        single, singles = int(singles[after]), singles[after + 1 :]
        is_pair[torn], is_pair[single] = False, True
        ends[torn:single] -= 1
