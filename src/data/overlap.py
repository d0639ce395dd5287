"""Which items of a data set are copies or relatives of items that were trained on."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.data.groups import find_components
from src.data.identities import IDENTITY, PUBLISHED, VIDEO, tie_parts
from src.data.manifest import Dataset
from src.data.scan import scan_for


@dataclass(frozen=True)
class Overlap:
    """What of some items was seen in training.

    Attributes:
        seen: (n,) bool, an item each.
        equal: how many of them are equal files.
        related: how many others share a group with what was trained on (one published video).
        alike: the rest: look-alikes, or of a group in which one is.
    """

    seen: NDArray[np.bool_]
    equal: int
    related: int
    alike: int


def find_overlap(
    trained: Dataset, ids: Collection[str], other: Dataset, table: pd.DataFrame, scheme: str
) -> Overlap:
    """Search copies of trained items, and items of their groups, as folds are made.

    Args:
        trained: the data set that was trained on.
        ids: its train items that were.
        other: the data set that the items are of; may be the same.
        table: rows of `other.items`, one split of them.
        scheme: of the folds; if it opens no file, groups alone are compared.
    """
    first = trained.items[(trained.items["split"] == "train") & trained.items["item_id"].isin(ids)]
    looks = pd.concat([_scanned(trained, first, scheme), _scanned(other, table, scheme)])
    rows = pd.concat([first, table], ignore_index=True)
    names = [trained.name] * len(first) + [other.name] * len(table)
    groups = [_named(*pair) for pair in zip(names, rows["group"], strict=True)]
    if trained.name != other.name:
        by = VIDEO if VIDEO in (trained.config.group_by, other.config.group_by) else IDENTITY
        groups = tie_parts(groups, rows["path"].tolist(), by)
    looks = looks.reset_index(drop=True)
    looks["item_id"] = [f"{place}/{one}" for place, one in enumerate(looks["item_id"])]
    parts = find_components(looks, pd.Series(groups, dtype=object))
    by_equal, by_group, by_any = (
        np.isin(codes[len(first) :], codes[: len(first)])
        for codes in (parts.exact, parts.given, parts.joint)
    )
    related = by_group & ~by_equal
    alike = by_any & ~by_equal & ~by_group
    return Overlap(by_any, int(by_equal.sum()), int(related.sum()), int(alike.sum()))


def _named(name: str, group: str) -> str:
    """Return a group as all data sets know it: those of published sets are the same everywhere."""
    published = group.startswith(tuple(f"{family}/" for family in PUBLISHED))
    return group if published or not group else f"{name}/{group}"


def _scanned(dataset: Dataset, rows: pd.DataFrame, scheme: str) -> pd.DataFrame:
    place = pd.Series(np.arange(len(dataset.items)), dataset.items.index)
    return scan_for(dataset, scheme).iloc[place.loc[rows.index].to_numpy()]
