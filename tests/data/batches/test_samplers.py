"""The rows of every batch: what an epoch holds, and that (seed, epoch) alone decides it."""

from collections import Counter

import numpy as np
import pytest
import torch

from src.data.batches.samplers import SAMPLERS, SHARD, BatchKey, EpochPool, EpochSampler
from src.data.batches.share import Share
from src.errors import UserError

COUNT = 24
LABELS = np.array([0, 0, 1] * 8)


def sampler_of(kind="shuffle", *, rows=None, batch_size=5, seed=1, labels=LABELS, **settings):
    rows = np.arange(len(labels)) if rows is None else rows
    return EpochSampler(EpochPool(rows, labels, batch_size, **settings), kind, seed)


def rows_of(sampler):
    return [row for batch in sampler for row in batch.rows]


def test_an_epoch_covers_each_row_at_most_once_and_epochs_leave_none_out():
    rows = np.arange(100, 100 + COUNT)
    sampler, seen = sampler_of(rows=rows), set()
    for sampler.epoch in range(10):
        batches = list(sampler)
        assert [batch.number for batch in batches] == [0, 1, 2, 3]
        assert all(len(batch.rows) == 5 for batch in batches)
        drawn = [row for batch in batches for row in batch.rows]
        assert len(set(drawn)) == len(drawn) == 5 * len(sampler)
        seen |= set(drawn)
    assert seen == set(rows.tolist())


PLACES = np.arange(COUNT) // 5 * SHARD + np.arange(COUNT) % 5 * 1000  # shards of five
GROUPS = np.arange(COUNT) // 4  # of both classes


@pytest.mark.parametrize("kind", SAMPLERS.names())
def test_the_order_depends_on_seed_and_epoch_alone(kind: str):
    def order(seed: int, epoch: int, first: int = 0) -> list[BatchKey]:
        sampler = sampler_of(kind, seed=seed, per_class=20, groups=GROUPS, places=PLACES)
        sampler.epoch, sampler.first = epoch, first
        return list(sampler)

    torch.manual_seed(0)
    first = order(1, 0)
    torch.manual_seed(99)
    assert order(1, 0) == first
    assert order(1, 0, first=2) == first[2:]  # resumed
    assert [b.rows for b in order(1, 1)] != [b.rows for b in first]
    assert [b.rows for b in order(2, 0)] != [b.rows for b in first]
    sampler = sampler_of(kind, per_class=20, groups=GROUPS, places=PLACES)
    assert list(sampler) == list(sampler)  # not a stream that goes on
    assert order(1, 3)[0].epoch == 3


@pytest.mark.parametrize("kind", ["shuffle", "balanced", "paired"])
def test_a_batch_larger_than_the_fold_is_refused_with_what_fits(kind: str):
    message = r"batch_size is 25, and an epoch of this fold has 24 items; 24 would fit"
    with pytest.raises(UserError, match=message):
        sampler_of(kind, batch_size=25, groups=GROUPS)
    assert len(rows_of(sampler_of(kind, batch_size=24, groups=GROUPS))) == 24


def test_balanced_draws_half_of_each_class():
    labels = np.zeros(1000, np.int64)
    labels[:30] = 1
    rows = np.arange(1000) + 7
    drawn = np.array(rows_of(sampler_of("balanced", rows=rows, labels=labels, batch_size=100))) - 7
    assert len(drawn) == 1000
    share = labels[drawn].mean()
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(1000)
    assert set(drawn[labels[drawn] == 1]) == set(range(30))


@pytest.mark.parametrize("per_class", [1, 16, 20, 250])
@pytest.mark.parametrize("batch_size", [5, 7, 16])
def test_oversample_draws_each_class_at_least_so_often_and_evenly(per_class, batch_size):
    sampler = sampler_of("oversample", per_class=per_class, batch_size=batch_size)
    drawn = Counter(rows_of(sampler))
    wanted = {0: max(16, per_class), 1: max(8, per_class)}
    total = -(-sum(wanted.values()) // batch_size) * batch_size
    assert sum(drawn.values()) == total == len(sampler) * batch_size
    assert set(drawn) == set(range(COUNT))
    for label, least in wanted.items():
        times = [drawn[row] for row in range(COUNT) if LABELS[row] == label]
        assert sum(times) >= least
        assert min(times) == least // len(times)


def test_oversampled_repeats_are_spread_over_the_epoch():
    sampler = sampler_of("oversample", per_class=250, batch_size=10)
    share = [np.mean(LABELS[list(batch.rows)]) for batch in sampler]
    assert 0.2 < np.mean(share[:10]) < 0.8
    assert 0.2 < np.mean(share[-10:]) < 0.8


def paired_batches(labels, groups, batch_size, seed=1):
    pool = {"labels": np.array(labels), "groups": np.array(groups)}
    return list(sampler_of("paired", batch_size=batch_size, seed=seed, **pool))


@pytest.mark.parametrize("batch_size", [4, 7, 10])
@pytest.mark.parametrize("seed", range(5))
def test_paired_puts_a_real_and_a_fake_of_a_group_side_by_side(batch_size: int, seed: int):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 140)
    groups = rng.integers(0, 40, 140)
    groups[rng.random(140) < 0.2] = -1
    batches = paired_batches(labels, groups, batch_size, seed)
    drawn = [row for batch in batches for row in batch.rows]
    assert len(set(drawn)) == len(drawn) == 140 // batch_size * batch_size
    wanted = sum(
        min((labels[groups == group] == label).sum() for label in (0, 1))
        for group in set(groups.tolist()) - {-1}
    )
    found = torn = 0
    for batch in batches:
        place = 0
        while place < batch_size:
            pair = list(batch.rows[place : place + 2])
            together = len(pair) == 2 and groups[pair[0]] == groups[pair[1]] != -1
            if together and labels[pair].tolist() == [0, 1]:
                found, place = found + 1, place + 2
            else:
                torn, place = torn + 1, place + 1
    # What the last, left-out batch may have held, and neighbours that met by chance.
    assert wanted - batch_size // 2 <= found <= wanted + 6
    assert torn > 0


def test_paired_with_an_odd_batch_and_nothing_but_pairs_loses_no_row():
    batches = paired_batches([0, 1] * 15, [row // 2 for row in range(30)], 5)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(30))
    whole = [
        row
        for batch in batches
        for row in batch.rows[::1]
        if (row ^ 1) in batch.rows  # rows 2k and 2k+1 are a pair
    ]
    assert len(whole) >= 24  # at most one pair of every two batches is torn apart


def test_paired_without_a_group_of_both_classes_is_refused():
    with pytest.raises(UserError, match=r"paired finds no group with a real and a fake"):
        sampler_of("paired", groups=LABELS)
    with pytest.raises(UserError, match=r"paired finds no group"):
        sampler_of("paired", groups=np.full(COUNT, -1))


def packed(count: int, a_shard: int, size: int, batch_size: int) -> EpochPool:
    """Return rows of shards in an order that has nothing to do with where they lie."""
    places = np.arange(count) // a_shard * SHARD + np.arange(count) % a_shard * size
    mixed = np.random.default_rng(0).permutation(count)
    rows = np.arange(count) + 7  # numbers of items, not places in the pool
    return EpochPool(rows, rows % 2, batch_size, places=places[mixed])


@pytest.mark.parametrize(("count", "batch_size"), [(4000, 32), (1003, 7), (40, 40), (100, 33)])
def test_shards_gives_each_row_once_an_epoch(count: int, batch_size: int):
    pool = packed(count, 90, 200_000, batch_size)
    order = SAMPLERS.get("shards")(pool, np.random.default_rng(1))
    assert sorted(order.tolist()) == pool.rows.tolist()


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_a_rank_reads_shards_of_its_own_nearly_from_start_to_end(ranks: int):
    pool = packed(32_000, 500, 200_000, 64)
    assert pool.places is not None
    block = 16 * 2**20
    batches = np.array([key.rows for key in EpochSampler(pool, "shards", 3)]) - 7
    shards = []
    for rank in range(ranks):
        places = pool.places[batches[:, Share(rank, ranks).of(64)]]
        shards.append(set((places // SHARD).ravel().tolist()))
        blocks = places // block
        _, place, count = np.unique(blocks, return_index=True, return_counts=True)
        first = place // blocks.shape[1]
        last = len(blocks) - 1 - np.unique(blocks[::-1], return_index=True)[1] // blocks.shape[1]
        open_at = np.cumsum(
            np.bincount(first, minlength=len(blocks) + 1)
            - np.bincount(last + 1, minlength=len(blocks) + 1)
        )
        # A lane has its window open, and a block at either end of it.
        assert open_at.max() <= (16 // ranks) * (64 * 2**20 // block + 3)
        assert count.sum() == blocks.size
    assert sum(map(len, shards)) == len(set.union(*shards)) == 64


def test_neighbours_in_a_shard_do_not_stay_together():
    pool = packed(64_000, 1000, 200_000, 64)
    assert pool.places is not None
    batches = np.array([key.rows for key in EpochSampler(pool, "shards", 3)]) - 7
    places = pool.places[batches]
    lane = (places % SHARD // 200_000 + places // SHARD * 1000)[:, :4].ravel()
    apart = np.abs(np.diff(lane))
    assert np.median(apart) > 70  # of about 320 that are open
    assert (apart == 1).mean() < 0.02
