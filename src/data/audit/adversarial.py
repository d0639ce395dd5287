"""Adversarial validation: can a small model tell train items from test items, and by what?"""

import io
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from src.artifacts.files import write_csv
from src.data.audit.headers import NONE
from src.data.audit.trees import FloatArray, Splits, cross_fit, fit_boosted, interval, make_splits
from src.data.folds.groups import find_components
from src.data.folds.scan import scan_items
from src.data.items.files import read_bytes
from src.data.items.manifest import Dataset
from src.data.pixels.formats import file_format
from src.data.pixels.images import decode_image
from src.errors import UnreadableImageError, UserError
from src.machine import decoding_threads
from src.metrics import auc
from src.progress import track

ITEMS_A_SPLIT = 4000  # drawn at random where a split holds more
FEWEST = 30  # items, and groups, a split without which nothing can be said
FEWEST_TO_COMPARE = FEWEST // 2  # groups a half of the train items
BANDS = 8  # rings of the spectrum
CROP = 256  # side of the largest central square whose spectrum is taken
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
Rows = NDArray[np.int64]


def traits_of(root: Path, path: str) -> FloatArray:
    """Return the traits of one image, (len(NAMES),); all NaN where it cannot be read.

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


def _file_traits(data: bytes, pixels: NDArray[np.uint8]) -> FloatArray:
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
    except (OSError, ValueError):
        return NONE, NONE
    tables: dict[int, list[int]] = getattr(image, "quantization", {})
    factors = [layer[1] * layer[2] for layer in getattr(image, "layer", [])]
    table = float(np.mean(tables[min(tables)])) if tables else NONE
    return table, float(np.mean(factors)) if factors else NONE


def _pixel_traits(pixels: NDArray[np.uint8]) -> FloatArray:
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


def blockiness(grey: FloatArray) -> float:
    """Return the mean step across the borders of 8x8 blocks over the mean step elsewhere.

    `grey` (height, width) begins at a block's corner; 1.0 where it is under 16 wide or high.
    """
    if min(grey.shape) < 16:
        return 1.0
    at = elsewhere = 0.0
    for axis in (0, 1):
        steps = np.abs(np.diff(grey, axis=axis)).mean(1 - axis)
        border = np.arange(len(steps)) % 8 == 7
        at, elsewhere = at + steps[border].mean(), elsewhere + steps[~border].mean()
    return (at + 1e-3) / (elsewhere + 1e-3)


def spectrum(grey: FloatArray) -> FloatArray:
    """Return log10 of the mean power in rings of equal width, the mean (frequency 0) left out.

    (BANDS,) of a `grey` (height, width), relative to the power of all rings together, so that
    contrast plays no part; 0 where there is no ring or no power.
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
class TraitTell:
    """How much a trait gives away."""

    name: str  # of the trait
    alone: float  # AUC with this trait and no other, >= 0.5
    drop: float  # how much AUC the model loses when the trait's values are shuffled


@dataclass(frozen=True)
class Adversarial:
    """What adversarial validation found."""

    # `item_id, split, prob`: P(test) of each item looked at, by a model that saw neither it nor a
    # copy of it
    table: pd.DataFrame
    counts: dict[str, tuple[int, int]]  # split -> (items looked at, readable images in all)
    groups: int  # sets of copies and given groups among the items looked at
    auc: float  # of `prob`; 0.5 is chance
    interval: tuple[float, float]  # 95 %, bootstrap by group
    # What the AUC would be without any difference: the same with train items, drawn by group, in
    # place of the test items. Over 0.5 where test items come in groups that nobody named: a model
    # recognises the rest of a group. None where the train items form too few groups for two halves.
    chance: float | None
    chance_interval: tuple[float, float] | None
    file_auc: float  # with the traits of that kind alone
    pixel_auc: float
    tells: list[TraitTell]  # the traits, the largest drop first


@dataclass(frozen=True)
class _Sides:
    """Two sets of items to be told apart."""

    traits: FloatArray  # (n, len(NAMES))
    side: Rows  # (n,) 0 for the first set, 1 for the second
    group: Rows  # (n,) copies, look-alikes and given groups share one
    seed: int  # of the models; 0/1 are dealt to folds by it too

    def groups_a_side(self) -> tuple[int, int]:
        first, second = (len(np.unique(self.group[self.side == k])) for k in (0, 1))
        return first, second

    def told(self, traits: slice = slice(None)) -> tuple[float, FloatArray, Splits, list[Any]]:
        """Return the AUC by some of the traits, P(second), and the models of each split."""
        splits = make_splits(self.side, self.group, self.seed)
        fit = partial(fit_boosted, seed=self.seed)
        prob, models = cross_fit(fit, self.traits[:, traits], self.side, splits)
        return auc(self.side, prob), prob, splits, models

    def tells(self, splits: Splits, models: list[Any], rng: np.random.Generator) -> list[TraitTell]:
        """Return what each trait gives away: alone, and by the mean over folds of its shuffling."""
        drops = []
        for (_, held), model in zip(splits, models, strict=True):
            side, traits = self.side[held], self.traits[held]
            if len(np.unique(side)) < 2:
                continue
            whole = auc(side, model.predict_proba(traits)[:, 1])
            for column in range(len(NAMES)):
                mixed = traits.copy()
                mixed[:, column] = rng.permutation(mixed[:, column])
                drops.append(whole - auc(side, model.predict_proba(mixed)[:, 1]))
        mean = np.reshape(drops, (-1, len(NAMES))).mean(0).tolist()
        areas = [auc(self.side, column) for column in self.traits.T]  # either way round
        found = [
            TraitTell(name, max(area, 1 - area), drop)
            for name, area, drop in zip(NAMES, areas, mean, strict=True)
        ]
        return sorted(found, key=lambda tell: (-tell.drop, tell.name))


def adversarial_validation(dataset: Dataset, seed: int = 0) -> Adversarial:
    """Train a small model to tell the splits apart, scored on groups that it has not seen.

    The draw of items, the folds and the bootstrap follow from `seed`.

    Raises:
        UserError: too few readable images, or groups of them, in a split.
    """
    rng = np.random.default_rng(seed)
    scan = scan_items(dataset)
    train, test = (_readable(dataset, scan, split) for split in ("train", "test"))
    drawn = _draw(train, ITEMS_A_SPLIT, rng), _draw(test, ITEMS_A_SPLIT, rng)
    given = dataset.items["group"]
    pretended = _pretend(given, train, len(test), len(drawn[1]), rng)
    rows = np.unique(np.concatenate([*drawn, *pretended]))
    traits = _read_traits(dataset.root, dataset.items["path"].iloc[rows].tolist())

    def sides(first: Rows, second: Rows, given: pd.Series) -> _Sides:
        both = np.concatenate([first, second])
        looks = scan.iloc[both].reset_index(drop=True)
        group = find_components(looks, given.iloc[both]).joint
        side = np.repeat([0, 1], [len(first), len(second)])
        return _Sides(traits[np.searchsorted(rows, both)], side, group, seed)

    found = sides(*drawn, given)
    for split, number in zip(("train", "test"), found.groups_a_side(), strict=True):
        if number < FEWEST:
            raise UserError(
                f"{dataset.root}: its {split} images form {number} groups of copies or of one "
                f"origin; telling train from test takes at least {FEWEST} of each"
            )
    area, prob, splits, models = found.told()
    tells = found.tells(splits, models, rng)
    spread = interval(found.side, prob, found.group, rng)
    chance, chance_interval = None, None
    half = sides(*pretended, given)
    if min(half.groups_a_side()) >= FEWEST_TO_COMPARE:
        if (given.iloc[test] == "").all():  # nobody named theirs: hide those of the stand-ins
            hidden = given.copy()
            hidden.iloc[pretended[1]] = ""
            half = sides(*pretended, hidden)
        chance, half_prob, *_ = half.told()
        chance_interval = interval(half.side, half_prob, half.group, rng)
    items = dataset.items.iloc[np.concatenate(drawn)].reset_index(drop=True)
    return Adversarial(
        table=pd.DataFrame({"item_id": items["item_id"], "split": items["split"], "prob": prob}),
        counts={"train": (len(drawn[0]), len(train)), "test": (len(drawn[1]), len(test))},
        groups=len(np.unique(found.group)),
        auc=area,
        interval=spread,
        chance=chance,
        chance_interval=chance_interval,
        file_auc=found.told(slice(len(FILE)))[0],
        pixel_auc=found.told(slice(len(FILE), None))[0],
        tells=tells,
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


def _draw(rows: Rows, at_most: int, rng: np.random.Generator) -> Rows:
    return np.sort(rng.permutation(rows)[:at_most])


def _pretend(
    given: pd.Series, train: Rows, n_test: int, n_drawn: int, rng: np.random.Generator
) -> tuple[Rows, Rows]:
    """Draw train items that stand for train and for test items, as those are: whole groups.

    Of the `n_test` test items `n_drawn` are looked at, and as large a part of the stand-ins is.
    `given` is the group of each item, "" for none.
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
    cv2.setNumThreads(1)
    with decoding_threads() as pool:
        done = pool.map(partial(traits_of, root), names)
        return np.stack(list(track(done, "reading", total=len(names), unit="files")))
