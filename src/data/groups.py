"""Groups: items that must share a fold, being copies or of one origin."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.data.chains import Chain, Edges, Labels, join_edges, link, tighten
from src.data.neighbours import near_pairs


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
    """What was found about copies, for people.

    Attributes:
        items: train items looked at.
        groups: components.
        largest: items in the largest component.
        given: groups of two or more that the data set names.
        exact_items: train items that have an equal file in train.
        exact_sets: sets of equal files in train.
        near_pairs: pairs in train that look alike and are not equal files.
        near_items: train items in such a pair.
        conflicts: item_ids of each set of equal files in train that stands under both labels.
        near_conflicts: pairs among `near_pairs` with different labels (a fake and its original).
        test_items: readable or not.
        test_exact: test items whose file is also in train.
        test_near: test items that look like a train item (equal files not counted).
        flat: train items too flat for a perceptual hash, compared by file only.
        chains: what was tightened.
    """

    items: int
    groups: int
    largest: int
    given: int
    exact_items: int
    exact_sets: int
    near_pairs: int
    near_items: int
    conflicts: list[list[str]]
    near_conflicts: int
    test_items: int
    test_exact: int
    test_near: int
    flat: int
    chains: list[Chain] = field(default_factory=list)


def edges_of_equal(values: pd.Series) -> Edges:
    """Return edges that link the items with equal values; "" is equal to nothing."""
    codes = pd.factorize(values.where(values != ""), use_na_sentinel=True)[0]
    known = np.flatnonzero(codes >= 0)
    order = known[np.argsort(codes[known], kind="stable")]
    same = codes[order[1:]] == codes[order[:-1]]
    return order[:-1][same], order[1:][same]


def find_components(train: pd.DataFrame, given: pd.Series) -> Components:
    """Join given groups, equal files and look-alikes.

    Args:
        train: a scan's rows of readable train items.
        given: the group of each, "" for none.

    Returns:
        Components, numbered from 0; chains already tightened.
    """
    n = len(train)
    exact = edges_of_equal(train["sha256"].reset_index(drop=True))
    groups = edges_of_equal(given.reset_index(drop=True))
    first, second, distance = _near_edges(train)
    base = link(n, *join_edges(exact, groups))
    keep, chains = tighten(base, first, second, distance, train["item_id"].to_numpy())
    first, second = first[keep], second[keep]
    exact_of = link(n, *exact)
    other = exact_of[first] != exact_of[second]
    return Components(
        exact=exact_of,
        near=link(n, first[other], second[other]),
        given=link(n, *groups),
        joint=link(n, *join_edges(exact, groups, (first, second))),
        chains=chains,
    )


def report_groups(scan: pd.DataFrame, labels: pd.Series, components: Components) -> GroupReport:
    """Count what is worth knowing about copies.

    Args:
        scan: rows of readable train items (in the order of `components`), then test items.
        labels: of the train items.
        components: of the train items.
    """
    n = len(components.joint)
    files = scan["sha256"].to_numpy()
    first, second, _ = _near_edges(scan)
    equal = files[first] == files[second]
    within = (second < n) & ~equal
    across = (first < n) & (second >= n)
    train_files = set(files[:n]) - {""}
    test_exact = np.isin(np.arange(n, len(scan)), np.flatnonzero(scan["sha256"].isin(train_files)))
    near_test = np.unique(second[across & ~equal]) - n
    truth = np.append(labels.to_numpy(np.int64), np.full(len(scan) - n, -1))
    sizes = np.bincount(components.joint)
    exact_sizes = np.bincount(components.exact)
    return GroupReport(
        items=n,
        groups=len(sizes),
        largest=int(sizes.max(initial=0)),
        given=int((np.bincount(components.given) > 1).sum()),
        exact_items=int(exact_sizes[exact_sizes > 1].sum()),
        exact_sets=int((exact_sizes > 1).sum()),
        near_pairs=int(within.sum()),
        near_items=len(np.unique(np.concatenate([first[within], second[within]]))),
        conflicts=_conflicts(scan[:n], labels),
        near_conflicts=int((truth[first[within]] != truth[second[within]]).sum()),
        test_items=len(scan) - n,
        test_exact=int(test_exact.sum()),
        test_near=int((~test_exact[near_test]).sum()),
        flat=int((~scan["hashable"][:n]).sum()),
        chains=components.chains,
    )


def _near_edges(scan: pd.DataFrame) -> tuple[Labels, Labels, NDArray[np.uint8]]:
    usable = np.flatnonzero(scan["hashable"].to_numpy())
    hashes, flips = (scan[c].to_numpy()[usable] for c in ("phash", "phash_flip"))
    first, second, distance = near_pairs(hashes, flips)
    return usable[first], usable[second], distance


def _conflicts(train: pd.DataFrame, labels: pd.Series) -> list[list[str]]:
    """Return the sets of equal files that stand under both labels, as item_ids."""
    table = pd.DataFrame(
        {
            "id": train["item_id"].to_numpy(),
            "file": train["sha256"].to_numpy(),
            "label": labels.to_numpy(np.int64),
        }
    )
    both = table.groupby("file")["label"].transform("nunique") > 1
    return [part["id"].tolist() for _, part in table[both & (table["file"] != "")].groupby("file")]
