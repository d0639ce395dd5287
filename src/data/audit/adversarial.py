"""Adversarial validation: can a small model tell train items from test items, and by what?

Cheap traits of an image file, enough for a small model to tell where it comes from.
"""

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from src.artifacts.files import write_csv
from src.data.audit.trees import alone, cross_fit, interval
from src.data.folds.groups import find_components
from src.data.folds.scan import scan_items
from src.data.items.files import read_bytes
from src.data.items.manifest import Dataset
from src.data.pixels.formats import file_format
from src.data.pixels.images import decode_image
from src.errors import UnreadableImageError, UserError
from src.machine import cpu_count
from src.metrics import auc
from src.progress import track

ITEMS_A_SPLIT = 4000  # drawn at random where a split holds more
BATCH = 64
FEWEST = 30  # items, and groups, a split without which nothing can be said
FEWEST_TO_COMPARE = FEWEST // 2  # groups a half of the train items
FloatArray = NDArray[np.float64]
Rows = NDArray[np.int64]


BANDS = 8  # rings of the spectrum
CROP = 256  # side of the largest central square whose spectrum is taken
NONE = -1.0  # stands for a trait that this kind of file does not have
FORMATS = ("jpeg", "png", "webp", "gif", "bmp", "tiff")
FILE = (
    "bytes", "width", "height", "aspect", "bytes per pixel", "format", "jpeg quantisation",
    "jpeg chroma subsampling",
)  # fmt: skip
CHANNELS = ("red", "green", "blue")
PIXELS = (
    *(f"{what} of {channel}" for channel in CHANNELS for what in ("mean", "spread")),
    "saturation", "clipped", "sharpness", "blockiness",
    *(f"spectrum {band + 1}/{BANDS}" for band in range(BANDS)),
)  # fmt: skip
NAMES = (*FILE, *PIXELS)


def traits_of(root: Path, path: str) -> NDArray[np.float64]:
    """Return the traits of one image, (len(NAMES),) float64; all NaN where it cannot be read.

    The traits of the file (`FILE`) say how it was stored, those of the pixels (`PIXELS`) what is
    to be seen: colours, sharpness, jumps at the borders of 8x8 blocks, and the share of power at
    each of `BANDS` spatial frequencies, low to high.
    """
    try:
        data = read_bytes(root, path)
        pixels = decode_image(data)
    except UnreadableImageError:
        return np.full(len(NAMES), np.nan)
    return np.concatenate([_file_traits(data, pixels), _pixel_traits(pixels)])


def _file_traits(data: bytes, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    height, width = pixels.shape[:2]
    kind = file_format(data)
    number = FORMATS.index(kind) if kind in FORMATS else len(FORMATS)
    table, subsampling = _jpeg_header(data) if kind == "jpeg" else (NONE, NONE)
    size = len(data)
    return np.array(
        [size, width, height, width / height, size / (width * height), number, table, subsampling]
    )


def _jpeg_header(data: bytes) -> tuple[float, float]:
    """Return the mean of the luma quantisation table, and the mean of subsampling factors."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd EXIF is not this function's matter
            image = Image.open(io.BytesIO(data))
            tables = getattr(image, "quantization", {})
            layers = getattr(image, "layer", [])
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        return NONE, NONE
    table = float(np.mean(tables[min(tables)])) if tables else NONE
    factors = [layer[1] * layer[2] for layer in layers]
    return table, float(np.mean(factors)) if factors else NONE


def _pixel_traits(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    square = _central(pixels)
    grey = cv2.cvtColor(square, cv2.COLOR_RGB2GRAY).astype(np.float64)
    small = np.asarray(cv2.resize(pixels, (32, 32), interpolation=cv2.INTER_AREA), np.float64)
    colours = small.reshape(-1, 3)
    means, spreads = colours.mean(0), colours.std(0)
    saturation = (colours.max(1) - colours.min(1)).mean()
    clipped = np.mean((square == 0) | (square == 255))
    sharpness = np.abs(cv2.Laplacian(grey, cv2.CV_64F)).mean()
    first = np.stack([means, spreads], axis=1).ravel()
    rest = [saturation, clipped, sharpness, blockiness(grey)]
    return np.concatenate([first, rest, spectrum(grey)])


def _central(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a central part of at most CROP x CROP that begins on the grid of JPEG blocks."""
    top, left = (max(0, side - CROP) // 16 * 8 for side in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + CROP, left : left + CROP])


def blockiness(grey: NDArray[np.float64]) -> float:
    """Return the mean step across the borders of 8x8 blocks over the mean step elsewhere.

    Args:
        grey: (height, width), beginning at a block's corner; 1.0 where it is under 16 wide or high.
    """
    if min(grey.shape) < 16:
        return 1.0
    at = elsewhere = 0.0
    for axis in (0, 1):
        steps = np.abs(np.diff(grey, axis=axis)).mean(1 - axis)
        border = np.arange(len(steps)) % 8 == 7
        at, elsewhere = at + steps[border].mean(), elsewhere + steps[~border].mean()
    return (at + 1e-3) / (elsewhere + 1e-3)


def spectrum(grey: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log10 of the mean power in rings of equal width, the mean (frequency 0) left out.

    Args:
        grey: (height, width).

    Returns:
        (BANDS,) relative to the power of all rings together, so that contrast plays no part; 0
        where there is no ring or no power.
    """
    height, width = grey.shape
    power = np.abs(np.fft.rfft2(grey - grey.mean())) ** 2
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    ring = np.minimum((radius * 2 * BANDS).astype(int), BANDS - 1)
    count = np.bincount(ring.ravel(), minlength=BANDS)
    mean = np.bincount(ring.ravel(), power.ravel(), BANDS) / np.maximum(count, 1)
    total = mean.sum()
    if total <= 1e-9 * grey.size:
        return np.zeros(BANDS)
    return np.where(count > 0, np.log10(mean / total + 1e-12), 0.0)


@dataclass(frozen=True)
class Tell:
    """How much a trait gives away."""

    name: str  # of the trait
    alone: float  # AUC with this trait and no other, >= 0.5
    drop: float  # how much AUC the model loses when the trait's values are shuffled


@dataclass(frozen=True)
class Adversarial:
    """What adversarial validation found.

    Attributes:
        table: `item_id, split, prob`: P(test) of each item looked at, by a model that saw neither
            it nor a copy of it.
        counts: split -> (items looked at, readable images in all).
        groups: sets of copies and given groups among the items looked at.
        auc: of `prob`; 0.5 is chance.
        interval: 95 %, bootstrap by group.
        chance: what the AUC would be without any difference: the same with train items, drawn
            by group, in place of the test items. Over 0.5 where test items come in groups that
            nobody named: a model recognises the rest of a group. None where the train items form
            too few groups for two halves.
        chance_interval: 95 %, likewise.
        file_auc, pixel_auc: with the traits of that kind alone.
        tells: the traits, the largest drop first.
    """

    table: pd.DataFrame
    counts: dict[str, tuple[int, int]]
    groups: int
    auc: float
    interval: tuple[float, float]
    chance: float | None
    chance_interval: tuple[float, float] | None
    file_auc: float
    pixel_auc: float
    tells: list[Tell]


def adversarial_validation(dataset: Dataset, seed: int = 0) -> Adversarial:
    """Train a small model to tell the splits apart, scored on groups that it has not seen.

    Args:
        dataset: the data set.
        seed: of the draw of items, the folds and the bootstrap.

    Raises:
        UserError: too few readable images, or groups of them, in a split.
    """
    rng = np.random.default_rng(seed)
    scan = scan_items(dataset)
    train, test = (_readable(dataset, scan, split) for split in ("train", "test"))
    drawn = _draw(train, ITEMS_A_SPLIT, rng), _draw(test, ITEMS_A_SPLIT, rng)
    pretended = _pretend(dataset.items["group"], train, len(test), len(drawn[1]), rng)
    rows = np.unique(np.concatenate([*drawn, *pretended]))
    traits = _read_traits(dataset.root, dataset.items["path"].iloc[rows].tolist())

    def prepare(
        first: Rows, second: Rows, given: pd.Series
    ) -> tuple[FloatArray, NDArray[np.int64], NDArray[np.int64]]:
        both = np.concatenate([first, second])
        looks = scan.iloc[both].reset_index(drop=True)
        group = find_components(looks, given.iloc[both]).joint
        side = np.repeat([0, 1], [len(first), len(second)])
        return traits[np.searchsorted(rows, both)], side, group

    given = dataset.items["group"]
    found, is_test, group = prepare(*drawn, given)
    for split, number in zip(("train", "test"), _groups_a_side(is_test, group), strict=True):
        if number < FEWEST:
            raise UserError(
                f"{dataset.root}: its {split} images form {number} groups of copies or of one "
                f"origin; telling train from test takes at least {FEWEST} of each"
            )
    prob, drops = cross_fit(found, is_test, group, seed, rng)
    spread = interval(is_test, prob, group, rng)
    chance, chance_interval = None, None
    half, half_side, half_group = prepare(*pretended, given)
    if min(_groups_a_side(half_side, half_group)) >= FEWEST_TO_COMPARE:
        if (given.iloc[test] == "").all():  # nobody named theirs: hide those of the stand-ins
            given = given.copy()
            given.iloc[pretended[1]] = ""
            half, half_side, half_group = prepare(*pretended, given)
        half_prob, _ = cross_fit(half, half_side, half_group, seed)
        chance = auc(half_side, half_prob)
        chance_interval = interval(half_side, half_prob, half_group, rng)
    n_file = len(FILE)
    tells = [
        Tell(name, alone(is_test, column), float(drop))
        for name, column, drop in zip(NAMES, found.T, drops, strict=True)
    ]
    items = dataset.items.iloc[np.concatenate(drawn)].reset_index(drop=True)
    return Adversarial(
        table=pd.DataFrame({"item_id": items["item_id"], "split": items["split"], "prob": prob}),
        counts={"train": (len(drawn[0]), len(train)), "test": (len(drawn[1]), len(test))},
        groups=len(np.unique(group)),
        auc=auc(is_test, prob),
        interval=spread,
        chance=chance,
        chance_interval=chance_interval,
        file_auc=auc(is_test, cross_fit(found[:, :n_file], is_test, group, seed)[0]),
        pixel_auc=auc(is_test, cross_fit(found[:, n_file:], is_test, group, seed)[0]),
        tells=sorted(tells, key=lambda tell: (-tell.drop, tell.name)),
    )


def write_adversarial(path: Path, found: Adversarial) -> None:
    """Write `item_id, split, prob`, sorted by item_id, then split."""
    write_csv(path, found.table.sort_values(["item_id", "split"], kind="stable"))


def _readable(dataset: Dataset, scan: pd.DataFrame, split: str) -> Rows:
    """Return the rows of a split's readable images; extra data sets are not of the competition."""
    good = (scan["error"] == "") & (scan["format"] != "video") & (scan["split"] == split)
    rows = np.flatnonzero(good & ~scan["item_id"].isin(dataset.extra_ids))
    if len(rows) < FEWEST:
        raise UserError(
            f"{dataset.root}: {len(rows)} readable {split} images; telling train from test takes "
            f"at least {FEWEST} of each"
        )
    return rows


def _groups_a_side(side: NDArray[np.int64], group: NDArray[np.int64]) -> tuple[int, int]:
    return len(np.unique(group[side == 0])), len(np.unique(group[side == 1]))


def _draw(rows: Rows, at_most: int, rng: np.random.Generator) -> Rows:
    return np.sort(rng.permutation(rows)[:at_most])


def _pretend(
    given: pd.Series, train: Rows, n_test: int, n_drawn: int, rng: np.random.Generator
) -> tuple[Rows, Rows]:
    """Draw train items that stand for train and for test items, as those are: whole groups.

    Args:
        given: the group of each item, "" for none.
        train: rows to draw from.
        n_test: test items there are.
        n_drawn: test items that are looked at; as large a part of the stand-ins is.
        rng: draws.
    """
    own = given.iloc[train]
    code = pd.factorize(own.where(own != "", pd.Series(train, index=own.index).astype(str)))[0]
    place = rng.permutation(code.max() + 1)[code]  # groups in a random order
    order = np.argsort(place, kind="stable")
    upto = place[order[min(n_test, len(train) // 2) - 1]]
    if (place <= upto).all():  # one group is nearly everything
        place, upto = rng.permutation(len(train)), len(train) // 2
    stand_ins, others = train[place <= upto], train[place > upto]
    share = max(1, round(len(stand_ins) * n_drawn / n_test))
    return _draw(others, ITEMS_A_SPLIT, rng), _draw(stand_ins, share, rng)


def _read_traits(root: Path, names: list[str]) -> FloatArray:
    batches = [names[i : i + BATCH] for i in range(0, len(names), BATCH)]
    run = joblib.Parallel(n_jobs=cpu_count(), prefer="threads", return_as="generator")
    done = cast(
        Iterator[FloatArray], run(joblib.delayed(_traits_of_many)(root, batch) for batch in batches)
    )
    parts = track(done, "reading", total=len(batches), unit=f"x{BATCH} files")
    return np.concatenate(list(parts))


def _traits_of_many(root: Path, names: list[str]) -> FloatArray:
    cv2.setNumThreads(1)
    return np.stack([traits_of(root, name) for name in names])
