"""Which items look alike: equal looks counted once, so that a million equal images cost nothing.

Perceptual hashes of a picture and of its mirror image.
"""

from dataclasses import dataclass, replace

import cv2
import imagehash
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from src.data.folds.neighbours import near_pairs

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Looks:
    """Looks (pairs of hash and mirrored hash), and which of them are near each other.

    Attributes:
        of: int64 (n,) look of each item, -1 for one whose hash means nothing.
        first, second, distance: pairs of looks within `MAX_DISTANCE` bits, as `near_pairs` gives
            them.
        count: number of looks.
    """

    of: Rows
    first: Rows
    second: Rows
    distance: NDArray[np.uint8]
    count: int

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

    Args:
        looks: of train items, then others.
        exact: int64, number of each train item's file; equal files have the same.
        labels: 0/1 of the train items.
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


SMALL = 64  # larger pictures are shrunk to this square before the (slow) perceptual hash
# Below this mean distance of grey values (0..255) from their mean, a hash is noise and rounding.
MIN_SPREAD = 1.5


def perceptual_hashes(pixels: NDArray[np.uint8]) -> tuple[int, int, bool]:
    """Return the 64-bit hash of an image and of its mirror image, and whether they mean anything.

    Args:
        pixels: uint8 RGB (height, width, 3).
    """
    if max(pixels.shape[:2]) > SMALL:
        shrunk = cv2.resize(pixels, (SMALL, SMALL), interpolation=cv2.INTER_AREA)
        pixels = np.asarray(shrunk, np.uint8)
    grey = Image.fromarray(pixels).convert("L")
    values = np.asarray(grey)
    mirrored = Image.fromarray(np.ascontiguousarray(values[:, ::-1]))
    spread = float(np.abs(values - values.mean()).mean())
    return _hash(grey), _hash(mirrored), spread >= MIN_SPREAD


def _hash(image: Image.Image) -> int:
    bits = np.packbits(imagehash.phash(image).hash.ravel())
    return int.from_bytes(bits.tobytes(), "big")
