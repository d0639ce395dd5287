"""Groups: items that must share a fold, being copies or of one origin."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from src.data.folds.chains import Chain, Edges, Labels, join_edges, link, tighten
from src.data.folds.near_duplicates import Looks, count_near, edges_of_equal_codes, find_looks


@dataclass(frozen=True)
class Components:
    """Which items belong together, for each reason alone and for all.

    Attributes:
        exact, near, given: int64 (n,) component of each train item by equal files, by look (equal
            files not counted), by the groups the data set names.
        joint: int64 (n,), by all three.
        chains: what was tightened.
    """

    exact: Labels
    near: Labels
    given: Labels
    joint: Labels
    chains: list[Chain]


@dataclass(frozen=True)
class GroupReport:
    """What was found about copies, for people."""

    items: int  # train items looked at
    groups: int  # components
    largest: int  # items in the largest component
    given: int  # groups of two or more that the data set names
    exact_items: int  # train items that have an equal file in train
    exact_sets: int  # sets of equal files in train
    near_pairs: int  # pairs in train that look alike and are not equal files
    near_items: int  # train items in such a pair
    # item_ids of each set of equal files in train that stands under both labels
    conflicts: list[list[str]]
    near_conflicts: int  # pairs among `near_pairs` with different labels (a fake and its original)
    test_items: int  # readable or not
    test_exact: int  # test items whose file is also in train
    test_near: int  # test items that look like a train item (equal files not counted)
    flat: int  # train items too flat for a perceptual hash, compared by file only
    chains: list[Chain] = field(default_factory=list)  # what was tightened


def edges_of_equal(values: pd.Series) -> Edges:
    """Return edges that link the items with equal values; "" is equal to nothing."""
    return edges_of_equal_codes(pd.factorize(values.where(values != ""), use_na_sentinel=True)[0])


def find_components(
    train: pd.DataFrame, given: pd.Series, looks: Looks | None = None
) -> Components:
    """Join given groups, equal files and look-alikes.

    Args:
        train: a scan's rows of readable train items.
        given: the group of each, "" for none.
        looks: of these rows, if they were searched already.

    Returns:
        Components, numbered from 0; chains already tightened.
    """
    n = len(train)
    looks = looks or find_looks(train)
    exact = edges_of_equal(train["sha256"].reset_index(drop=True))
    groups = edges_of_equal(given.reset_index(drop=True))
    first, second, distance = looks.edges()
    base = link(n, *join_edges(exact, groups))
    keep, chains = tighten(base, first, second, distance, train["item_id"].to_numpy())
    first, second = first[keep], second[keep]
    exact_of = link(n, *exact)
    # Equal files share a look; they are look-alikes only where another file is one of theirs.
    other = np.zeros(looks.count + 1, bool)  # the last stands for look -1
    differ = exact_of[first] != exact_of[second]
    other[looks.of[first[differ]]] = other[looks.of[second[differ]]] = True
    alike = other[looks.of[first]]
    return Components(
        exact=exact_of,
        near=link(n, first[alike], second[alike]),
        given=link(n, *groups),
        joint=link(n, *join_edges(exact, groups, (first, second))),
        chains=chains,
    )


def report_groups(
    scan: pd.DataFrame, labels: pd.Series, components: Components, looks: Looks | None = None
) -> GroupReport:
    """Count what is worth knowing about copies.

    Args:
        scan: rows of readable train items (in the order of `components`), then test items.
        labels: of the train items.
        components: of the train items.
        looks: of all these rows, if they were searched already.
    """
    n = len(components.joint)
    looks = looks or find_looks(scan)
    train_files = pd.Index(scan["sha256"][:n])
    exact = scan["sha256"][n:]
    test_exact = (exact.isin(train_files) & (exact != "")).to_numpy()
    near = count_near(looks, components.exact, labels.to_numpy(np.int64))
    sizes = np.bincount(components.joint)
    exact_sizes = np.bincount(components.exact)
    return GroupReport(
        items=n,
        groups=len(sizes),
        largest=int(sizes.max(initial=0)),
        given=int((np.bincount(components.given) > 1).sum()),
        exact_items=int(exact_sizes[exact_sizes > 1].sum()),
        exact_sets=int((exact_sizes > 1).sum()),
        near_pairs=near.pairs,
        near_items=near.items,
        conflicts=_conflicts(scan[:n], labels),
        near_conflicts=near.conflicts,
        test_items=len(scan) - n,
        test_exact=int(test_exact.sum()),
        test_near=int((~test_exact & near.of_train[n:]).sum()),
        flat=int((~scan["hashable"][:n]).sum()),
        chains=components.chains,
    )


def _conflicts(train: pd.DataFrame, labels: pd.Series) -> list[list[str]]:
    """Return the sets of equal files that stand under both labels, as item_ids."""
    table = pd.DataFrame(
        {
            "id": train["item_id"].to_numpy(),
            "file": train["sha256"].to_numpy(),
            "label": labels.to_numpy(np.int64),
        }
    )
    table = table[table["file"].duplicated(keep=False) & (table["file"] != "")]
    both = table.groupby("file")["label"].transform("nunique") > 1
    return [part["id"].tolist() for _, part in table[both].groupby("file")]
