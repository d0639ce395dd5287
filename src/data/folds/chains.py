"""Components of a graph of copies, and chains of look-alikes that must not become one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from src.data.folds.neighbours import MAX_DISTANCE

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
    n = len(base)
    keep = np.ones(len(first), bool)
    chains: dict[int, Chain] = {}
    whole = link(n, *join_edges(_star(base), (first, second)))
    for reach in range(MAX_DISTANCE - 1, -1, -1):
        parts = link(n, *join_edges(_star(base), (first[keep], second[keep])))
        chained = _chained(base, parts)
        if not len(chained):
            break
        inside = np.isin(parts[first], chained)
        keep &= ~inside | (distance <= reach)
        for part in np.unique(whole[np.isin(parts, chained)]):
            members = whole == part
            example = str(ids[int(members.argmax())])
            chains[int(part)] = Chain(int(members.sum()), reach, 0, example)
    parts = link(n, *join_edges(_star(base), (first[keep], second[keep])))
    done = []
    for part, chain in chains.items():
        left = int(np.bincount(parts[whole == part]).max())
        done.append(Chain(chain.items, chain.distance, left, chain.example))
    return keep, done


def _star(base: Labels) -> Edges:
    order = np.argsort(base, kind="stable")
    same = base[order[1:]] == base[order[:-1]]
    return order[:-1][same], order[1:][same]


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
