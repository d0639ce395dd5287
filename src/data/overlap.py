"""Which items of a data set are copies or relatives of items that were trained on."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.data.identities import PUBLISHED, VIDEO, people_in
from src.data.layouts import load_dataset
from src.data.looks import Looks, find_looks
from src.data.manifest import Dataset
from src.data.scan import scan_for


@dataclass(frozen=True)
class Overlap:
    """What of some items was seen in training.

    Attributes:
        seen: (n,) bool, an item each.
        equal: how many of them are equal files.
        related: how many others are of a video that was trained on, or made from it.
        alike: the rest: look-alikes, or of a video in which an equal file or look-alike is.
        people: how many others, which are not among those seen, show somebody who was trained on.
        example: of one that was seen, its path and that of what it is akin to; "" where none was.
    """

    seen: NDArray[np.bool_]
    equal: int
    related: int
    alike: int
    people: int
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
    """Search copies of trained items, and items of their videos.

    What counts is the link of an item itself, or of its video: people who chain a whole data set
    together (as in Celeb-DF, where everybody is swapped with everybody) make no item a relative.

    Args:
        trained: the data set that was trained on.
        ids: its train items that were; None for all of its items.
        other: the data set that the items are of; may be the same.
        table: rows of `other.items`, one split of them.
        scheme: of the folds; if it opens no file, videos alone are compared.
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
    return [_named(dataset.name, group) for group in groups]


def _named(name: str, group: str) -> str:
    """Return a group as all data sets know it: those of published sets are the same everywhere."""
    published = group.startswith(tuple(f"{family}/" for family in PUBLISHED))
    return group if published or not group else f"{name}/{group}"


def _scanned(dataset: Dataset, rows: pd.DataFrame, scheme: str) -> pd.DataFrame:
    place = pd.Series(np.arange(len(dataset.items)), dataset.items.index)
    return scan_for(dataset, scheme).iloc[place.loc[rows.index].to_numpy()]
