"""What of a data set is a copy or relative of other items: of those trained on, of its own test."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.data.folds.groups import find_components
from src.data.folds.near_duplicates import Looks, find_looks
from src.data.folds.scan import scan_for, scan_items
from src.data.items.identities import VIDEO, is_published, people_in
from src.data.items.manifest import Dataset
from src.data.layouts.load import load_dataset


@dataclass(frozen=True)
class Overlap:
    """What of some items was seen in training."""

    seen: NDArray[np.bool_]  # (n,) bool, an item each
    equal: int  # how many of them are equal files
    related: int  # how many others are of a video that was trained on, or made from it
    alike: int  # the rest: look-alikes, or of a video in which an equal file or look-alike is
    people: int  # how many others, which are not among those seen, show somebody who was trained on
    # of one that was seen, its path and that of what it is akin to; "" where none was
    example: tuple[str, str]

    @property
    def counts(self) -> str:
        """Return how many were seen for what reason, in words."""
        return f"{self.equal} equal files, {self.related} more of its videos, {self.alike} alike"


def find_overlap(
    trained: Dataset,
    ids: Collection[str] | None,
    other: Dataset,
    table: pd.DataFrame,
    scheme: str = "",
) -> Overlap:
    """Search copies of trained items, and items of their videos, among rows of `other.items`.

    What counts is the link of an item itself, or of its video: people who chain a whole data set
    together (as in Celeb-DF, where everybody is swapped with everybody) make no item a relative.
    `ids` are the train items that were trained on, None for all. A scheme that opens no file
    compares videos alone. `other` may be the same data set.
    """
    first = trained.items
    if ids is not None:
        first = first[(first["split"] == "train") & first["item_id"].isin(ids)]
    n = len(first)
    files = pd.concat([_scanned(trained, first, scheme), _scanned(other, table, scheme)])
    files = files.reset_index(drop=True)
    was = np.arange(len(files)) < n
    videos = pd.Series([*_videos(trained, first), *_videos(other, table)], dtype=object)
    known = (videos != "").to_numpy()
    sha = files["sha256"].to_numpy(object)
    equal = np.isin(sha, sha[was & (sha != "")])
    looks = find_looks(files)
    direct = equal | looks.near_to(was)
    related = known & videos.isin(videos[was]).to_numpy()
    beside = known & videos.isin(videos[direct & ~was]).to_numpy()
    seen = direct | related | beside
    paths = [*first["path"], *table["path"]]
    people = [people_in(*pair) for pair in zip(videos, paths, strict=True)]
    met = {one for who in people[:n] for one in who}
    again = np.array([not met.isdisjoint(who) for who in people[n:]], bool)
    return Overlap(
        seen=seen[n:],
        equal=int(equal[n:].sum()),
        related=int((related & ~equal)[n:].sum()),
        alike=int((seen & ~related & ~equal)[n:].sum()),
        people=int((again & ~seen[n:]).sum()),
        example=_example(n, paths, (equal, sha), (related, videos.to_numpy(object)), looks, direct),
    )


def _example(
    n: int,
    paths: list[str],
    equal: tuple[NDArray[np.bool_], NDArray[np.object_]],
    related: tuple[NDArray[np.bool_], NDArray[np.object_]],
    looks: Looks,
    direct: NDArray[np.bool_],
) -> tuple[str, str]:
    """Return the path of the plainest relative among items n ... and that of what it is akin to."""
    for kind, names in (equal, related):
        if kind[n:].any():
            at = n + int(kind[n:].argmax())
            return paths[at], paths[int((names[:n] == names[at]).argmax())]
    if not direct[n:].any():
        return "", ""
    at = n + int(direct[n:].argmax())
    return paths[at], paths[int(looks.near_to(np.arange(len(paths)) == at)[:n].argmax())]


def _videos(dataset: Dataset, rows: pd.DataFrame) -> list[str]:
    """Return the video of each item as all data sets know it, "" where nothing names one."""
    groups = rows["group"]
    if dataset.config.group_by != VIDEO and (groups != "").any():
        items = load_dataset(dataset.name, dataset.root.parent, VIDEO).items
        place = pd.MultiIndex.from_frame(items[["split", "item_id"]])
        at = place.get_indexer(pd.MultiIndex.from_frame(rows[["split", "item_id"]]))
        groups = items["group"].iloc[at]
    return [one if is_published(one) or not one else f"{dataset.name}/{one}" for one in groups]


def _scanned(dataset: Dataset, rows: pd.DataFrame, scheme: str) -> pd.DataFrame:
    place = pd.Series(np.arange(len(dataset.items)), dataset.items.index)
    return scan_for(dataset, scheme).iloc[place.loc[rows.index].to_numpy()]


@dataclass(frozen=True)
class Relatives:
    """How the readable train and test items of a data set are related."""

    item_id: NDArray[np.object_]  # (n,) str objects
    is_test: NDArray[np.bool_]  # (n,) bool
    file: NDArray[np.object_]  # (n,) str objects, SHA-256 of the file
    # (n,) int64, of equal files, look-alikes and given groups over both splits, linked as folds are
    component: NDArray[np.int64]
    looks: Looks  # of each, and all pairs of looks that are near each other, chains included

    def of(self, train_ids: Collection[str]) -> tuple[set[str], set[str]]:
        """Return the test items equal to some train items (files), and those otherwise related.

        These look alike, directly or through other items, or share a given group.
        """
        wanted = np.isin(self.item_id, list(train_ids)) & ~self.is_test
        equal = np.isin(self.file, self.file[wanted])
        related = np.isin(self.component, self.component[wanted])
        # A chain is cut where folds are made, for its ends differ; here each link still counts.
        related |= self.looks.near_to(wanted)
        return (
            set(self.item_id[equal & self.is_test]),
            set(self.item_id[related & ~equal & self.is_test]),
        )


def find_relatives(dataset: Dataset) -> Relatives:
    """Compare all readable items of a data set, train and test, with each other."""
    scan = scan_items(dataset)
    good = (scan["error"] == "").to_numpy()  # clips too: equal files and given groups are known
    rows = scan[good].reset_index(drop=True)
    groups = dataset.items["group"][good].reset_index(drop=True)
    looks = find_looks(rows)
    return Relatives(
        item_id=rows["item_id"].to_numpy(dtype=object),
        is_test=(rows["split"] == "test").to_numpy(),
        file=rows["sha256"].to_numpy(dtype=object),
        component=find_components(rows, groups, looks).joint,
        looks=looks,
    )
