"""All pairs of 64-bit hashes within a small Hamming distance, without comparing all with all.

Blocks of bits are chosen so that any `MAX_DISTANCE` wrong bits leave some choice untouched
(pigeonhole, as in Manku, Jain and Das Sarma, "Detecting near-duplicates for web crawling", WWW
2007): one sort per choice brings all candidates together. The search is exact.
"""

import logging
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

MAX_DISTANCE = 4  # bits; the one place: blocks, messages and docstrings follow it, up to 15
MAX_PAIRS = 1 << 24  # 0.6 GB; with more than that the distance is lowered
# What sorting an entry into its place costs, in comparisons of a candidate (measured: 0.3 with
# AVX-512 sorts).
_SORTING = 0.5
_SAMPLE = 20_000  # hashes that tell how many candidates a choice of blocks gives
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads the chosen bits
# A pair in one number: 30 bits of either image, and the distance below.
_FIRST, _SECOND, _INDEX = np.uint64(34), np.uint64(4), np.uint64((1 << 30) - 1)
_DISTANCE = np.uint64(15)

LOG = logging.getLogger("rvf")
Hashes = NDArray[np.uint64]
Rows = NDArray[np.int64]
Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]


def near_pairs(hashes: Hashes, flips: Hashes, max_distance: int = MAX_DISTANCE) -> Pairs:
    """Find the pairs of images that look alike, one of them perhaps mirrored.

    Time grows as n log n while hashes are as good as random, plus the number of pairs. Equal
    images make that number quadratic: `src.data.folds.groups` gives each look once.

    Args:
        hashes: uint64 (n,), of the images.
        flips: uint64 (n,), of their mirror images.
        max_distance: largest number of bits, at most `MAX_DISTANCE`.

    Returns:
        first, second (first < second, each pair once, sorted) and the distance: the smallest of
        hash to hash and hash to mirror image's hash, either way round. Beyond `MAX_PAIRS` pairs
        the search starts again with the distance lowered by one, and the log says so.

    Raises:
        ValueError: `max_distance` is over `MAX_DISTANCE`, which the blocks do not cover.
    """
    if max_distance > MAX_DISTANCE:
        raise ValueError(f"max_distance is {max_distance}, the blocks cover {MAX_DISTANCE}")
    while True:
        try:
            return _search(hashes, flips, max_distance)
        except _TooManyError:
            max_distance -= 1
            LOG.warning(
                "more than %d pairs of images look alike: only distance <= %d counts now",
                MAX_PAIRS,
                max_distance,
            )


def _search(hashes: Hashes, flips: Hashes, max_distance: int) -> Pairs:
    search = _Search(hashes, flips, max_distance)
    if len(hashes) > 1:
        blocks = _choose_blocks(hashes)
        for chosen in combinations(range(blocks), blocks - MAX_DISTANCE):
            search.look(blocks, chosen)
    pairs = np.sort(np.concatenate(search.found))
    first, second = pairs >> _FIRST, (pairs >> _SECOND) & _INDEX
    distance = pairs & _DISTANCE
    return first.astype(np.int64), second.astype(np.int64), distance.astype(np.uint8)


def _mask(blocks: int, chosen: tuple[int, ...]) -> np.uint64:
    """Return the bits of the chosen blocks; dealt out in turn, so that all blocks tell as much."""
    return np.uint64(sum(1 << bit for bit in range(64) if bit % blocks in chosen))


def _choose_blocks(hashes: Hashes) -> int:
    """Return the number of blocks with the least work: more sorts, or more candidates a sort.

    Bits of real pictures' hashes hang together (aligned faces all look alike from afar), so
    the candidates are counted on a sample, not computed from n.
    """
    sample = hashes[:: max(1, len(hashes) // _SAMPLE)]
    scale = (2 * len(hashes) / len(sample)) ** 2
    costs = {}
    for blocks in range(MAX_DISTANCE + 1, MAX_DISTANCE + 7):
        mask = _mask(blocks, tuple(range(blocks - MAX_DISTANCE)))
        sizes = np.unique(sample & mask, return_counts=True)[1]
        # Pairs expected, even where the sample shows none.
        pairs = (sizes * (sizes - 1) / 2).sum() + len(sample) ** 2 / 2.0 ** int(mask).bit_count()
        sorts = comb(blocks, MAX_DISTANCE)
        costs[blocks] = sorts * (_SORTING * 2 * len(hashes) + scale * pairs)
    return min(costs, key=lambda blocks: costs[blocks])


class _TooManyError(Exception):
    """More pairs than `MAX_PAIRS`."""


class _Search:
    """Collects pairs, each once: by the first choice of blocks in which its bits agree."""

    def __init__(self, hashes: Hashes, flips: Hashes, max_distance: int) -> None:
        self.hashes, self.flips, self.reach = hashes, flips, max_distance
        self.found: list[Hashes] = [np.empty(0, np.uint64)]  # first, second, distance packed
        self._entries = np.concatenate([hashes, flips])
        self._index = np.arange(len(self._entries), dtype=np.uint64)
        self._bits = max(len(self._entries) - 1, 1).bit_length()
        self._count = 0

    def look(self, blocks: int, chosen: tuple[int, ...]) -> None:
        """Compare the entries that agree in the chosen blocks."""
        low = np.uint64((1 << self._bits) - 1)
        # Key above, entry below: one sort of plain numbers. A clash of keys is just a candidate.
        keys = (self._entries & _mask(blocks, chosen)) * _MIX
        keys = np.sort((keys & ~low) | self._index)
        entry = (keys & low).astype(np.int64)
        keys >>= np.uint64(self._bits)
        earlier = [_mask(blocks, (block,)) for block in range(max(chosen)) if block not in chosen]
        step = 1
        start = np.flatnonzero(keys[1:] == keys[:-1])
        while len(start):
            self._compare(entry[start], entry[start + step], earlier)
            step += 1
            start = start[start < len(keys) - step]
            start = start[keys[start] == keys[start + step]]

    def _compare(self, one: Rows, two: Rows, earlier: list[np.uint64]) -> None:
        differ = self._entries[one] ^ self._entries[two]
        near = np.flatnonzero(np.bitwise_count(differ) <= self.reach)
        one, two, differ = one[near], two[near], differ[near]
        n = len(self.hashes)
        keep = (np.minimum(one, two) < n) & (one % n != two % n)  # not flip to flip, nor to itself
        for mask in earlier:
            keep &= (differ & mask) != 0
        self._keep(one[keep], two[keep])

    def _keep(self, one: Rows, two: Rows) -> None:
        """Keep pairs of entries as pairs of images, unless another pairing of theirs is first."""
        n, h, f = len(self.hashes), self.hashes, self.flips
        first, second = np.minimum(one % n, two % n), np.maximum(one % n, two % n)
        plain = np.bitwise_count(h[first] ^ h[second])
        left = np.bitwise_count(h[first] ^ f[second])
        right = np.bitwise_count(f[first] ^ h[second])
        flipped = np.maximum(one, two)
        rank = np.where(flipped < n, 0, np.where(flipped - n == second, 1, 2))
        keep = (rank == 0) | ((plain > self.reach) & ((rank == 1) | (left > self.reach)))
        least = np.minimum(plain, np.minimum(left, right))[keep].astype(np.uint64)
        first, second = first[keep].astype(np.uint64), second[keep].astype(np.uint64)
        self.found.append((first << _FIRST) | (second << _SECOND) | least)
        self._count += len(least)
        if self._count > MAX_PAIRS and self.reach > 0:
            raise _TooManyError
