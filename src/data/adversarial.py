"""Adversarial validation: can a small model tell train items from test items, and by what?"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.artifacts.files import write_csv
from src.data.discriminator import alone, cross_fit, interval
from src.data.groups import find_components
from src.data.manifest import Dataset
from src.data.scan import scan_items
from src.data.traits import FILE, NAMES, traits_of
from src.errors import UserError
from src.machine import cpu_count
from src.metrics import auc
from src.progress import track

ITEMS_A_SPLIT = 4000  # drawn at random where a split holds more
BATCH = 64
FEWEST = 30  # items, and groups, a split without which nothing can be said
FEWEST_TO_COMPARE = FEWEST // 2  # groups a half of the train items
FloatArray = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Tell:
    """How much a trait gives away.

    Attributes:
        name: of the trait.
        alone: AUC with this trait and no other, >= 0.5.
        drop: how much AUC the model loses when the trait's values are shuffled.
    """

    name: str
    alone: float
    drop: float


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
