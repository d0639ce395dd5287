"""Groups: items that must share a fold, being copies or of one origin; no chain of look-alikes."""

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from src.data.folds.near_duplicates import (
    MAX_DISTANCE,
    Looks,
    count_near,
    edges_of_equal_codes,
    find_looks,
)

CHAIN_SHARE = 0.02  # a component of a larger share of the items is a chain ...
CHAIN_ITEMS = 20  # ... unless it is this small

Labels = NDArray[np.int64]
Edges = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Chain:
    """Near-duplicates that link too many items, one to the next."""

    items: int  # how many it linked
    distance: int  # largest distance that is now counted as a copy among them
    left: int  # items of the largest component that remains
    example: str  # item_id of one of them


@dataclass(frozen=True)
class Components:
    """Which train items belong together: int64 (n,) components, by each reason alone and by all."""

    exact: Labels  # by equal files
    near: Labels  # by look, equal files not counted
    given: Labels  # by the groups that the data set names
    joint: Labels  # by all three
    chains: list[Chain]  # what was tightened


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
    """Join given groups ("" for none), equal files and look-alikes; chains are tightened.

    `train` are a scan's rows of readable train items, `looks` of them if searched already.
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

    `scan` holds rows of readable train items (in the order of `components`), then test items.
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


def link(n: int, first: NDArray[np.int64], second: NDArray[np.int64]) -> Labels:
    """Return the connected component of each of n items, int64 (n,)."""
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def join_edges(*edges: Edges) -> Edges:
    """Return all edges as one pair of arrays."""
    first, second = zip(*edges, strict=True)
    return np.concatenate(first), np.concatenate(second)


def tighten(
    base: Labels,
    first: Labels,
    second: Labels,
    distance: NDArray[np.uint8],
    ids: NDArray[np.object_],
) -> tuple[NDArray[np.bool_], list[Chain]]:
    """Return which near edges to keep, so that no component is a chain.

    Inside a chain the distance that counts as a copy is lowered by one until no chain is left in
    it; at distance 0 it stays what it is, since equal hashes are no chain but one picture.
    """
    n, given = len(base), edges_of_equal_codes(base)
    keep = np.ones(len(first), bool)
    chains: dict[int, Chain] = {}
    whole = parts = link(n, *join_edges(given, (first, second)))
    for reach in range(MAX_DISTANCE - 1, -1, -1):
        chained = _chained(base, parts)
        if not len(chained):
            break
        inside = np.isin(parts[first], chained)
        keep &= ~inside | (distance <= reach)
        for part in np.unique(whole[np.isin(parts, chained)]):
            members = whole == part
            example = str(ids[int(members.argmax())])
            chains[int(part)] = Chain(int(members.sum()), reach, 0, example)
        parts = link(n, *join_edges(given, (first[keep], second[keep])))
    left = {part: int(np.bincount(parts[whole == part]).max()) for part in chains}
    return keep, [replace(chain, left=left[part]) for part, chain in chains.items()]


def _chained(base: Labels, parts: Labels) -> NDArray[np.int64]:
    """Return the components that are chains: too large, and look-alikes made them so.

    A given group (or set of equal files) that is itself over the limit is not held against the
    component that contains it.
    """
    limit = max(CHAIN_SHARE * len(base), CHAIN_ITEMS)
    sizes = np.bincount(parts)
    largest = np.zeros(len(sizes), np.int64)
    base_sizes = np.bincount(base)
    np.maximum.at(largest, parts, base_sizes[base])
    excused = np.where(largest > limit, largest, 0)
    return np.flatnonzero(sizes - excused > limit)
