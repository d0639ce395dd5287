"""Neighbour search and grouping against brute force."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data.folds.groups import CHAIN_ITEMS, find_components, report_groups
from src.data.folds.near_duplicates import near_pairs

Pair = tuple[int, int]


@st.composite
def hash_lists(draw) -> np.ndarray:
    """Draw hashes of which many are a few bits away from each other."""
    centres = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
    values = []
    for _ in range(draw(st.integers(0, 30))):
        value = draw(st.sampled_from(centres))
        for bit in draw(st.lists(st.integers(0, 63), max_size=4)):
            value ^= 1 << bit
        values.append(value)
    return np.array(values, np.uint64)


def brute_force(hashes: np.ndarray, flips: np.ndarray, reach: int) -> dict[Pair, int]:
    def bits(a: np.uint64, b: np.uint64) -> int:
        return bin(int(a) ^ int(b)).count("1")

    found = {}
    for i in range(len(hashes)):
        for j in range(i + 1, len(hashes)):
            distance = min(
                bits(hashes[i], hashes[j]), bits(hashes[i], flips[j]), bits(flips[i], hashes[j])
            )
            if distance <= reach:
                found[i, j] = distance
    return found


@given(hash_lists(), st.integers(0, 4), st.integers(0, 2**64 - 1))
def test_near_pairs_are_those_of_brute_force(hashes, reach, mask):
    flips = hashes ^ np.uint64(mask)
    assert as_dict(*near_pairs(hashes, flips, reach)) == brute_force(hashes, flips, reach)


def as_dict(first, second, distance) -> dict[Pair, int]:
    pairs = list(zip(first.tolist(), second.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    return dict(zip(pairs, distance.tolist(), strict=True))


@pytest.mark.parametrize("blocks", range(5, 11))
def test_near_pairs_with_any_blocks(monkeypatch, blocks):
    hashes, flips = np.random.default_rng(0).integers(0, 2**20, (2, 200), dtype=np.uint64)
    monkeypatch.setattr("src.data.folds.near_duplicates._choose_blocks", lambda _: blocks)
    assert as_dict(*near_pairs(hashes, flips)) == brute_force(hashes, flips, 4)


@pytest.mark.parametrize("limit", [2, 6, 9])
def test_the_limit_is_one_number(monkeypatch, limit):
    hashes, flips = np.random.default_rng(limit).integers(0, 2**20, (2, 200), dtype=np.uint64)
    monkeypatch.setattr("src.data.folds.near_duplicates.MAX_DISTANCE", limit)
    assert as_dict(*near_pairs(hashes, flips, limit)) == brute_force(hashes, flips, limit)


def test_near_pairs_of_random_and_planted_hashes():
    rng = np.random.default_rng(1)
    hashes, flips = rng.integers(0, 2**64, (2, 20_000), dtype=np.uint64)
    for _ in range(4):
        bit = np.uint64(1) << rng.integers(0, 64, 500, dtype=np.uint64)
        hashes[-500:] = (hashes[:500] if _ == 0 else hashes[-500:]) ^ bit
    first, second, _ = near_pairs(hashes, flips)
    found = set(zip(first.tolist(), second.tolist(), strict=True))
    assert found >= {(i, 19_500 + i) for i in range(500)}


def test_too_many_pairs_lower_the_distance(monkeypatch, caplog):
    hashes = np.arange(64, dtype=np.uint64)  # all within 6 bits of each other
    flips = hashes ^ np.uint64(2**64 - 1)
    monkeypatch.setattr("src.data.folds.near_duplicates.MAX_PAIRS", 300)
    assert as_dict(*near_pairs(hashes, flips)) == brute_force(hashes, flips, 1)
    assert "only distance <= 1 counts now" in caplog.text


def test_near_pairs_refuses_what_the_bands_do_not_cover():
    one = np.zeros(1, np.uint64)
    with pytest.raises(ValueError, match="max_distance is 5"):
        near_pairs(one, one, 5)


def table(hashes, files=None, hashable=None, flips=None) -> pd.DataFrame:
    n = len(hashes)
    rng = np.random.default_rng(1)
    files = [f"file{i}" for i in range(n)] if files is None else files
    # Equal files have equal looks.
    far = rng.integers(0, 2**63, n, dtype=np.uint64)[pd.factorize(np.array(files))[0]]
    return pd.DataFrame(
        {
            "item_id": [f"i{i:04d}" for i in range(n)],
            "sha256": files,
            "phash": np.array(hashes, np.uint64),
            # Far from everything, unless a test says so.
            "phash_flip": far if flips is None else flips,
            "hashable": [True] * n if hashable is None else hashable,
        }
    )


def parts_of(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == part).tolist()) for part in set(labels.tolist())}


def merged(n: int, pairs: set[Pair]) -> set[frozenset[int]]:
    """Join by repeated merging of sets: slow and plain."""
    parts = [{i} for i in range(n)]
    for a, b in pairs:
        left = next(part for part in parts if a in part)
        right = next(part for part in parts if b in part)
        if left is not right:
            parts.remove(right)
            left |= right
    return {frozenset(part) for part in parts}


def chain_of(n: int, step: int) -> list[int]:
    """Return hashes, each `step` bits from the one before and far from all others."""
    value, values = 0, []
    for i in range(n):
        values.append(value)
        for bit in range(step):
            value ^= 1 << ((i * step + bit) % 64)
    return values


def no_group(n: int) -> pd.Series:
    return pd.Series([""] * n, dtype=object)


def test_a_chain_is_cut_and_reported_and_other_copies_left_alone():
    far = [0x5555555555555555, 0x5555555555555555 ^ 0b1111]
    found = find_components(table(chain_of(30, 2) + far), no_group(32))  # ends 58 bits apart
    (chain,) = found.chains
    assert (chain.items, chain.distance, chain.left, chain.example) == (30, 1, 1, "i0000")
    assert len(set(found.joint[:30].tolist())) == 30
    assert found.joint[30] == found.joint[31]


@pytest.mark.parametrize(("length", "others"), [(CHAIN_ITEMS, 0), (30, 1970)])
def test_a_short_chain_is_kept_and_one_that_is_a_small_share_of_many(length, others):
    rest = np.random.default_rng(3).integers(0, 2**63, others, dtype=np.uint64).tolist()
    found = find_components(table(chain_of(length, 2) + rest), no_group(length + others))
    assert found.chains == []
    assert len(set(found.joint[:length].tolist())) == 1


def test_a_large_given_group_is_no_chain_and_keeps_its_copies():
    hashes = np.random.default_rng(4).integers(0, 2**63, 60, dtype=np.uint64)
    hashes[59] = hashes[0] ^ np.uint64(0b111)
    groups = pd.Series(["video"] * 50 + [""] * 10, dtype=object)
    found = find_components(table(hashes), groups)
    assert found.chains == []
    assert found.joint[59] == found.joint[0]


def test_many_equal_hashes_are_one_picture_and_those_of_flat_images_mean_nothing():
    found = find_components(table([5] * 40), no_group(40))
    assert len(set(found.joint.tolist())) == 1
    assert [(c.items, c.distance, c.left) for c in found.chains] == [(40, 0, 40)]
    files = [f"f{i}" for i in range(39)] + ["f0"]
    found = find_components(table([0] * 40, files, [False] * 40), no_group(40))
    assert found.joint[0] == found.joint[39]
    assert len(set(found.joint.tolist())) == 39


def test_report_counts():
    #       train: equal files 0, 1 (other labels); 2 looks like 3; 4 alone. test: 0 again, like 4.
    hashes = [0, 0, 0xFF << 20, 0xFE << 20, 0xABCDEF << 40, 0, 0xABCDEE << 40]
    files = ["a", "a", "b", "c", "d", "a", "e"]
    scan = table(hashes, files)
    labels = pd.Series([0, 1, 0, 1, 1])
    found = find_components(scan[:5], no_group(5))
    report = report_groups(scan, labels, found)
    assert (report.exact_items, report.exact_sets) == (2, 1)
    assert (report.near_items, report.near_pairs, report.near_conflicts) == (2, 1, 1)
    assert report.conflicts == [["i0000", "i0001"]]
    assert (report.test_items, report.test_exact, report.test_near) == (2, 1, 1)
    assert (report.items, report.groups, report.largest, report.given) == (5, 3, 2, 0)


@settings(max_examples=60)
@given(st.data())
def test_counts_and_components_are_those_of_all_pairs(data):
    looks = data.draw(hash_lists().filter(lambda h: len(h) > 1))
    looks = np.append(looks, looks[: len(looks) // 2])  # equal looks, of the same file or not
    total = len(looks)
    n = data.draw(st.integers(1, min(total, CHAIN_ITEMS)))  # chains have their own tests
    file_of = [data.draw(st.sampled_from([f"{h}", f"{h}x", f"{h}y"])) for h in looks]
    groups = data.draw(st.lists(st.sampled_from(["", "", "g", "h"]), min_size=n, max_size=n))
    labels = np.array(data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    usable = np.array(data.draw(st.lists(st.booleans(), min_size=total, max_size=total)))
    usable = np.array([usable[file_of.index(name)] for name in file_of])
    scan = table(looks, file_of, usable, looks ^ np.uint64(2**63 - 1))
    found = find_components(scan[:n], pd.Series(groups, dtype=object))
    report = report_groups(scan, pd.Series(labels), found)
    near = {
        (i, j)
        for i, j in brute_force(looks, scan["phash_flip"].to_numpy(), 4)
        if usable[i] and usable[j] and file_of[i] != file_of[j]
    }
    within = {(i, j) for i, j in near if j < n}
    assert report.near_pairs == len(within)
    assert report.near_items == len({i for pair in within for i in pair})
    assert report.near_conflicts == sum(labels[i] != labels[j] for i, j in within)
    test_near = {j for i, j in near if i < n <= j and file_of[j] not in file_of[:n]}
    assert report.test_near == len(test_near)
    assert report.chains == []
    both = [(i, j) for i in range(n) for j in range(i)]
    same = {(i, j) for i, j in both if file_of[i] == file_of[j]}
    tied = {(i, j) for i, j in both if groups[i] == groups[j] != ""}
    for component, pairs in (
        (found.exact, same), (found.near, within), (found.given, tied),
        (found.joint, same | within | tied),
    ):  # fmt: skip
        assert parts_of(component) == merged(n, pairs)
