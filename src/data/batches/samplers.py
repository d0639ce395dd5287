"""Samplers by name: which rows an epoch's batches are made of, in which order."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from src.errors import UserError
from src.registry import Registry
from src.seeds import derive_seed

Rows = NDArray[np.int64]


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
    groups: NDArray[np.str_] | None = None  # str of the same rows, "" for none; of `paired`


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
    order: list[int] = []
    while pairs or singles:
        room = pool.batch_size - len(order) % pool.batch_size
        total = len(pairs) + len(singles)
        if not pairs or (singles and (room == 1 or rng.integers(total) >= len(pairs))):
            order.append(singles.popleft())
        elif room > 1:
            order.extend(pairs.popleft())
        else:
            real, fake = pairs.popleft()
            order.append(real)
            singles.append(fake)
    return np.array(order, np.int64)


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
            yield BatchKey(self.epoch, number, tuple(int(row) for row in part))

    def _rows(self) -> Rows:
        return self.order(
            self.pool, np.random.default_rng(derive_seed(self.seed, "order", self.epoch))
        )


def _pairs(pool: EpochPool, rng: np.random.Generator) -> tuple[deque[tuple[int, int]], deque[int]]:
    """Return (real, fake) rows of one group each, and the rows that are left, in random order."""
    if pool.groups is None:
        raise ValueError("paired: no groups were given")
    both: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    singles: list[int] = []
    for place in rng.permutation(len(pool.rows)):
        row, group = int(pool.rows[place]), str(pool.groups[place])
        (both[group][pool.labels[place]] if group else singles).append(row)
    pairs: list[tuple[int, int]] = []
    for real, fake in both.values():
        count = min(len(real), len(fake))
        pairs += zip(real, fake, strict=False)
        singles += real[count:] + fake[count:]
    if not pairs:
        raise UserError(
            "sampler: paired finds no group with a real and a fake item among the training rows; "
            "take balanced, or make folds from groups of related items (python -m src folds)"
        )
    return (
        deque(pairs[place] for place in rng.permutation(len(pairs))),
        deque(singles[place] for place in rng.permutation(len(singles))),
    )
