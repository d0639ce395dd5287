"""Which items look alike: perceptual hashes, and all pairs of them within a few bits."""

import logging
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb

import cv2
import imagehash
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

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

SMALL = 64  # larger pictures are shrunk to this square before the (slow) perceptual hash
# Below this mean distance of grey values (0..255) from their mean, a hash is noise and rounding.
MIN_SPREAD = 1.5
# The eight lowest frequencies (rows) of the 32 pixels (columns) that `imagehash.phash` looks at.
_SIDE = 32
_COSINES = 2 * np.cos(np.pi / 64 * np.outer(np.arange(8), 2 * np.arange(_SIDE) + 1))
_MIRRORED = np.array([1, -1] * 4)
_NOISE = 1e-6  # a sum of 1,024 products of up to 1,020 in float64 is wrong by less than 1e-7

LOG = logging.getLogger("rvf")
Hashes = NDArray[np.uint64]
Rows = NDArray[np.int64]
Pairs = tuple[Rows, Rows, NDArray[np.uint8]]


def perceptual_hashes(pixels: NDArray[np.uint8]) -> tuple[int, int, bool]:
    """Return the 64-bit hashes of an RGB image (h, w, 3) and of its mirror image.

    The last value tells whether they mean anything: a flat image's do not.
    """
    if max(pixels.shape[:2]) > SMALL:
        shrunk = cv2.resize(pixels, (SMALL, SMALL), interpolation=cv2.INTER_AREA)
        pixels = np.asarray(shrunk, np.uint8)
    grey = Image.fromarray(pixels).convert("L")
    values = np.asarray(grey)
    spread = float(np.abs(values - values.mean()).mean())
    return *_both_hashes(grey), spread >= MIN_SPREAD


def _both_hashes(image: Image.Image) -> tuple[int, int]:
    """Return `imagehash.phash` of a grey image and of its mirror image, from one transform.

    A mirrored cosine is the same one, of odd frequency with the other sign; Pillow's resizing is
    symmetric. Whether a coefficient lies above the median is read off where both are apart by more
    than arithmetic can be wrong; else (half of them are zero in a symmetric picture) the library
    computes what it always did, noise and all.
    """
    shrunk = image.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    coefficients = _COSINES @ np.asarray(shrunk, np.float64) @ _COSINES.T
    both = np.stack([coefficients, coefficients * _MIRRORED]).reshape(2, 64)
    middle = np.sort(both)[:, 31:33].mean(1, keepdims=True)
    if np.abs(both - middle).min() < _NOISE:
        return _hash(image), _hash(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    own, mirrored = np.packbits(both > middle, axis=1)
    return int.from_bytes(own.tobytes(), "big"), int.from_bytes(mirrored.tobytes(), "big")


def _hash(image: Image.Image) -> int:
    bits = np.packbits(imagehash.phash(image).hash.ravel())
    return int.from_bytes(bits.tobytes(), "big")


@dataclass(frozen=True)
class Looks:
    """Looks (pairs of hash and mirrored hash), and which of them are near each other.

    Equal looks are counted once, so that a million equal images cost nothing.
    """

    of: Rows  # (n,) look of each item, -1 for one whose hash means nothing
    first: Rows  # pairs of looks within `MAX_DISTANCE` bits, as `near_pairs` gives them
    second: Rows
    distance: NDArray[np.uint8]
    count: int  # number of looks

    def take(self, rows: NDArray[np.intp] | slice) -> "Looks":
        """Return the same for these items only, in this order."""
        return replace(self, of=self.of[rows])

    def near_to(self, some: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return bool (n,): which items look like one of these (bool (n,)), them included."""
        seen = np.zeros(self.count + 1, bool)  # the last stands for look -1
        seen[self.of[some]] = True
        seen[-1] = False
        near = seen.copy()
        near[self.second[seen[self.first]]] = True
        near[self.first[seen[self.second]]] = True
        return near[self.of]

    def edges(self) -> tuple[Rows, Rows, NDArray[np.uint8]]:
        """Return edges that join items as all pairs of look-alikes would, at every distance.

        Items of equal look are strung together; two near looks are joined by one item of each.
        """
        own, next_one = edges_of_equal_codes(self.of)
        some = np.full(self.count + 1, -1, np.int64)  # the last stands for look -1
        some[self.of[::-1]] = np.arange(len(self.of))[::-1]
        first, second = some[self.first], some[self.second]
        here = (first >= 0) & (second >= 0)
        return (
            np.concatenate([own, first[here]]),
            np.concatenate([next_one, second[here]]),
            np.concatenate([np.zeros(len(own), np.uint8), self.distance[here]]),
        )


def find_looks(scan: pd.DataFrame) -> Looks:
    """Search the look-alikes among a scan's rows (`hashable`, `phash`, `phash_flip`)."""
    usable = np.flatnonzero(scan["hashable"].to_numpy())
    hashes, flips = (scan[column].to_numpy()[usable] for column in ("phash", "phash_flip"))
    order = np.lexsort((flips, hashes))
    hashes, flips = hashes[order], flips[order]
    new = np.ones(len(order), bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (flips[1:] != flips[:-1])
    of = np.full(len(scan), -1, np.int64)
    of[usable[order]] = np.cumsum(new) - 1
    return Looks(of, *near_pairs(hashes[new], flips[new]), int(new.sum()))


def edges_of_equal_codes(codes: NDArray[np.integer]) -> tuple[Rows, Rows]:
    """Return edges that string together the items with equal codes; -1 links nothing."""
    known = np.flatnonzero(codes >= 0)
    order = known[np.argsort(codes[known], kind="stable")]
    same = codes[order[1:]] == codes[order[:-1]]
    return order[:-1][same], order[1:][same]


@dataclass(frozen=True)
class NearCounts:
    """Look-alikes counted, equal files left out."""

    pairs: int  # of train items
    items: int  # train items in such a pair
    conflicts: int  # such pairs with different labels
    # bool (n,), whether an item's look is that of a train item or near one
    of_train: NDArray[np.bool_]


def count_near(looks: Looks, exact: Rows, labels: NDArray[np.int64]) -> NearCounts:
    """Count pairs from numbers of items a look, without listing them.

    The looks are of train items, then others. `exact` is the number of each train item's file,
    the same for equal files; `labels` are 0/1 of the train items.
    """
    of = looks.of[: len(exact)]
    known = of >= 0
    # [look, label]: its train items; [file, label]: items of each file, which has one look.
    by_look = np.bincount(2 * of[known] + labels[known], minlength=2 * looks.count).reshape(-1, 2)
    files = np.bincount(2 * exact[known] + labels[known], minlength=2 * len(exact))
    by_file = files.reshape(-1, 2)[exact[known]]  # exact < number of items
    m, first, second = by_look.sum(1), by_look[looks.first], by_look[looks.second]
    in_look = (m * (m - 1)).sum() - (by_file.sum(1) - 1).sum()  # ordered pairs, each twice
    crossed = 2 * by_look.prod(1).sum() - by_file[np.arange(len(by_file)), 1 - labels[known]].sum()
    linked = np.zeros(looks.count + 1, bool)  # the last stands for look -1
    linked[looks.first[second.sum(1) > 0]] = True
    linked[looks.second[first.sum(1) > 0]] = True
    alike = linked[of[known]] | (m[of[known]] > by_file.sum(1))
    linked[:-1] |= m > 0
    return NearCounts(
        pairs=int(in_look // 2 + (first.sum(1) * second.sum(1)).sum()),
        items=int(alike.sum()),
        conflicts=int(crossed // 2 + (first * second[:, ::-1]).sum()),
        of_train=linked[looks.of],
    )


def near_pairs(hashes: Hashes, flips: Hashes, max_distance: int = MAX_DISTANCE) -> Pairs:
    """Find the pairs of images that look alike, one of them perhaps mirrored.

    Blocks of bits are chosen so that any `MAX_DISTANCE` wrong bits leave some choice untouched
    (pigeonhole, as in Manku, Jain and Das Sarma, "Detecting near-duplicates for web crawling", WWW
    2007): one sort per choice brings all candidates together, n log n while hashes are as good as
    random. The search is exact. Equal images would make the pairs quadratic: `find_looks` gives
    each look once.

    `hashes` (n,) are of the images, `flips` (n,) of their mirror images. Returned are first, second
    (first < second, each pair once, sorted) and the distance: the smallest of hash to hash and hash
    to mirror image's hash, either way round. Beyond `MAX_PAIRS` pairs the distance is lowered, and
    the log says so.

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
    search = _PairSearch(hashes, flips, max_distance)
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


class _PairSearch:
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
