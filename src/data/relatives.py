"""Test items that are copies or look-alikes of train items: what a held-out item must not meet."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.data.groups import find_components
from src.data.looks import Looks, find_looks
from src.data.manifest import Dataset
from src.data.scan import scan_items


@dataclass(frozen=True)
class Relatives:
    """How the readable train and test items of a data set are related.

    Attributes:
        item_id: (n,) str objects.
        is_test: (n,) bool.
        file: (n,) str objects, SHA-256 of the file.
        component: (n,) int64, of equal files, look-alikes and given groups over both splits,
            linked as folds are.
        looks: of each, and all pairs of looks that are near each other, chains included.
    """

    item_id: NDArray[np.object_]
    is_test: NDArray[np.bool_]
    file: NDArray[np.object_]
    component: NDArray[np.int64]
    looks: Looks

    def of(self, train_ids: Collection[str]) -> tuple[set[str], set[str]]:
        """Return the test items related to some train items.

        Args:
            train_ids: item_ids of the train items.

        Returns:
            Those whose file is equal to one of theirs, and those that are related otherwise: they
            look alike, directly or through other items, or share a given group.
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
