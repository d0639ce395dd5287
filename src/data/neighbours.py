"""All pairs of 64-bit hashes within a small Hamming distance, without comparing all with all."""

import numpy as np
from numpy.typing import NDArray

MAX_DISTANCE = 4
# By the pigeonhole: of 5 bands, at least one is equal in two hashes that differ in 4 bits.
_BANDS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))  # first bit, width
_CHUNK = 1 << 22  # candidate pairs compared at a time (about 100 MB)

Hashes = NDArray[np.uint64]
Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]


def near_pairs(hashes: Hashes, flips: Hashes, max_distance: int = MAX_DISTANCE) -> Pairs:
    """Find the pairs of images that look alike, one of them perhaps mirrored.

    Args:
        hashes: uint64 (n,), of the images.
        flips: uint64 (n,), of their mirror images.
        max_distance: largest number of bits, at most 4.

    Returns:
        first, second (first < second, each pair once, sorted) and the distance: the smallest of
        hash to hash and hash to mirror image's hash, either way round.

    Raises:
        ValueError: `max_distance` is over 4, which the bands do not cover.
    """
    if max_distance > MAX_DISTANCE:
        raise ValueError(f"max_distance is {max_distance}, the bands cover {MAX_DISTANCE}")
    found: list[Pairs] = []
    for shift, width in _BANDS:
        for target in (hashes, flips):
            found += _pairs_of_band(hashes, target, shift, width, max_distance)
    if not found:
        none = np.empty(0, np.int64)
        return none, none, np.empty(0, np.uint8)
    first, second, distance = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((distance, second, first))
    first, second, distance = first[order], second[order], distance[order]
    once = np.ones(len(first), bool)
    once[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    return first[once], second[once], distance[once]


def _pairs_of_band(
    hashes: Hashes, target: Hashes, shift: int, width: int, max_distance: int
) -> list[Pairs]:
    mask = np.uint64((1 << width) - 1)
    band = (hashes >> np.uint64(shift)) & mask
    wanted = (target >> np.uint64(shift)) & mask
    order = np.argsort(band, kind="stable")
    low = np.searchsorted(band[order], wanted, "left")
    count = np.searchsorted(band[order], wanted, "right") - low
    ends = np.cumsum(count)
    found: list[Pairs] = []
    start = 0
    while start < len(target):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _CHUNK, "right")))
        part = count[start:stop]
        query = np.repeat(np.arange(start, stop), part)
        within = np.arange(len(query)) - np.repeat(ends[start:stop] - part - before, part)
        other = order[np.repeat(low[start:stop], part) + within]
        distance = np.bitwise_count(hashes[other] ^ target[query])
        keep = (distance <= max_distance) & (query != other)
        if target is hashes:
            keep &= query < other
        query, other = query[keep], other[keep]
        found.append((np.minimum(query, other), np.maximum(query, other), distance[keep]))
        start = stop
    return found
