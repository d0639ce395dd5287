"""How well maps tell pixels: AUC, IoU and F1 over the pixels of many items, with intervals."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.bootstrap import MIN_GROUPS, interval, resamples
from src.ensemble.predictions import Predictions
from src.metrics import area, auc, roc_of_counts
from src.reporting.scorecard import Score

BINS = 1 << 16  # one for each number that float16 knows: nothing is rounded
REPLICATES = 500
_COARSE, _CELLS = 1024, 1 << 24  # bins of a resample, and at most of all groups together
_SIGN = np.uint16(0x8000)
OTHERS, HALVES, OWN = "the other folds", "the other half of the groups", "these very rows"

Counts = NDArray[np.int64]  # (2, BINS): pixels that are not so, and that are, by their code
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PixelRows:
    """Items, and of each of their p pixels what a map says and what is so."""

    items: Predictions
    codes: NDArray[np.uint16]  # (n, p), rising with what the map says
    truth: NDArray[np.bool_]  # (n, p)

    def take(self, rows: NDArray[np.bool_]) -> "PixelRows":
        """Return some items."""
        return PixelRows(self.items.take(rows), self.codes[rows], self.truth[rows])


def codes_of(maps: NDArray[np.float16]) -> NDArray[np.uint16]:
    """Return (n, p) whole numbers in the order of the values of maps (n, ...)."""
    bits = (maps.reshape(len(maps), -1) + np.float16(0)).view(np.uint16)  # -0 becomes 0
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def value_of(code: int) -> float:
    """Return the value that a code stands for."""
    bits = code ^ int(_SIGN) if code & int(_SIGN) else code ^ (BINS - 1)
    return float(np.array(bits, np.uint16).view(np.float16))


def count(rows: PixelRows) -> Counts:
    """Count the pixels of items by code and truth."""
    found = (np.bincount(rows.codes[mask], minlength=BINS) for mask in (~rows.truth, rows.truth))
    return np.stack([*found])


def pooled_auc(counts: NDArray[np.int64] | Floats) -> float:
    """Return the AUC over all pixels together; NaN where they are all alike."""
    return area(roc_of_counts(*counts))


def best_cut(counts: Counts) -> int:
    """Return the code from which on pixels are called so with the largest IoU, and F1.

    It lies midway between the lowest value called so and the next lower one; where all are called
    so, or no number lies between the two, it is the lowest value itself.
    """
    wrong, right = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
    best = int(np.argmax(right / np.maximum(counts[1].sum() + wrong, 1)))
    found = np.flatnonzero(counts.sum(axis=0))
    place = int(np.searchsorted(found, best))
    lowest = int(found[place])
    if place == 0:
        return lowest
    below = int(found[place - 1])
    with np.errstate(invalid="ignore"):  # infinite ones
        middle = np.float16(value_of(below) / 2 + value_of(lowest) / 2)
    code = int(codes_of(np.array([[middle]], np.float16))[0, 0])
    return code if below < code < lowest else lowest


def cuts_of_others(rows: PixelRows, seed: int = 0) -> tuple[NDArray[np.uint16], str]:
    """Return (n,) the cut of each item, the best one of items of other folds, and whose it is.

    Of one fold, halves of its groups choose each other's; where those cannot (one of them shows
    nothing), the cut is that of these very rows.
    """
    part, whose = np.unique(rows.items.fold, return_inverse=True)[1], OTHERS
    if part.max() == 0:
        groups, code = np.unique(rows.items.group, return_inverse=True)
        half = np.random.default_rng(seed).permutation(len(groups)) % 2
        part, whose = half[code], HALVES
    every = [count(rows.take(part == one)) for one in np.unique(part)]
    total = np.sum(every, axis=0)
    if len(every) == 1 or any(not (total - one)[1].any() for one in every):
        return np.full(len(part), best_cut(total), np.uint16), OWN
    cuts = np.array([best_cut(total - one) for one in every], np.uint16)
    return cuts[part], whose


def score_pixels(rows: PixelRows, cuts: NDArray[np.uint16], seed: int = 0) -> dict[str, Score]:
    """Return each score with its 95 % interval, of whole groups drawn anew (`bootstrap`).

    `pixel_auc`, `iou` and `f1` are of all pixels of all items together, reals' too; `image_auc` and
    `image_iou` means over the items of which some pixels are so (and some not); `false_alarms` the
    share of reals' pixels that are called so. The cuts (n,) are held fixed.
    """
    said = rows.codes >= cuts[:, None]
    real = rows.items.label == 0
    right, called, there = ((x.sum(1)) for x in (said & rows.truth, said, rows.truth))
    sums = {"right": right, "called": called, "there": there, "alarms": np.where(real, called, 0),
            "quiet": real * rows.truth.shape[1]}  # fmt: skip
    with np.errstate(invalid="ignore"):
        shares = right / (called + there - right)
    means = {"image_auc": image_aucs(rows), "image_iou": np.where(there > 0, shares, np.nan)}
    for name, value in means.items():
        sums[name], sums[f"{name} n"] = np.nan_to_num(value), np.isfinite(value)
    table = np.stack([*sums.values()], axis=1).astype(np.float64)
    counts = count(rows)
    scores = {
        "pixel_auc": pooled_auc(counts),
        **_ratios(dict(zip(sums, table.sum(0), strict=True))),
    }
    draws = [*_draws(rows, counts, table, list(sums), seed)]
    return {name: _score(value, [one[name] for one in draws]) for name, value in scores.items()}


def image_aucs(rows: PixelRows) -> Floats:
    """Return (n,) the AUC within each item, NaN where its pixels are all alike."""
    return np.array([auc(own, codes) for own, codes in zip(rows.truth, rows.codes, strict=True)])


def _ratios(sums: dict[str, float]) -> dict[str, float]:
    def share(part: float, whole: float) -> float:
        return part / whole if whole else np.nan

    right, both = sums["right"], sums["called"] + sums["there"]
    return {
        "image_auc": share(sums["image_auc"], sums["image_auc n"]),
        "iou": share(right, both - right),
        "f1": share(2 * right, both),
        "image_iou": share(sums["image_iou"], sums["image_iou n"]),
        "false_alarms": share(sums["alarms"], sums["quiet"]),
    }


def _draws(
    rows: PixelRows, counts: Counts, table: Floats, names: list[str], seed: int
) -> Iterator[dict[str, float]]:
    """Yield the scores of resampled groups; the pooled AUC from bins of equal mass."""
    groups, first, code = np.unique(rows.items.group, return_index=True, return_inverse=True)
    if len(groups) < MIN_GROUPS:
        return
    bins = int(np.clip(_CELLS // len(groups), 64, _COARSE))
    below = np.cumsum(counts.sum(0)) - counts.sum(0) / 2
    bin_of = (below * bins / counts.sum()).astype(np.int64)
    coarse = np.empty((len(groups), 2 * bins))
    sums = np.empty((len(groups), table.shape[1]))
    for number in range(len(groups)):
        own = code == number
        places = bin_of[rows.codes[own]] + bins * rows.truth[own]
        coarse[number] = np.bincount(places.ravel(), minlength=2 * bins)
        sums[number] = table[own].sum(0)
    items = rows.items
    for copies in resamples(items.label, items.group, seed=seed, replicates=REPLICATES):
        drawn = copies[first]
        found = _ratios(dict(zip(names, drawn @ sums, strict=True)))
        yield {"pixel_auc": pooled_auc((drawn @ coarse).reshape(2, bins)), **found}


def _score(value: float, drawn: list[float]) -> Score:
    known = np.array([one for one in drawn if np.isfinite(one)])
    if np.isnan(value):
        return Score(np.nan, np.nan, np.nan, "no item tells it")
    return Score(value, *(interval(known) if known.size else (np.nan, np.nan)))
