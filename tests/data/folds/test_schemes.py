"""Leave-one-domain-out: no group in two folds, both classes in each, nothing lost in silence."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src import paths
from src.data.folds.make import ensure_folds, make_folds
from src.data.folds.schemes import LEFT_OUT, domain_folds
from src.data.layouts.load import load_dataset
from src.errors import UserError
from tests.data.conftest import refused

WHERE = Path("somewhere")


def has_leaks(folds: pd.DataFrame) -> bool:
    return len(folds[["group", "fold"]].drop_duplicates()) > len(set(folds["group"]))


def split(rows: list[tuple[str, int, int]]) -> list[int]:
    """Take (domain, label, group) an item."""
    domains, labels, groups = zip(*rows, strict=True)
    return domain_folds(np.array(labels), pd.Series(domains), np.array(groups), WHERE).tolist()


@pytest.mark.parametrize(
    ("rows", "folds"),
    [
        ("b0 a0 a1 b1 b1", [1, 0, 0, 1, 1]),  # a fold a domain, by name
        ("a0 a1 b0 b1 c0", [0, 0, 1, 1, -1]),  # reals that nobody needs are always trained on
    ],
)
def test_a_fold_a_domain(rows, folds):
    assert split([(row[0], int(row[1]), k) for k, row in enumerate(rows.split())]) == folds


def test_reals_are_lent_by_group_to_domains_of_fakes():
    rows = [("x", 1, 0), ("y", 1, 1)] + [("", 0, 10 + i // 2) for i in range(8)]
    folds = split(rows)
    assert folds[:2] == [0, 1]
    assert folds[2::2] == folds[3::2]  # two items a group
    assert sorted(folds[2:]) == [0] * 4 + [1] * 4


def test_reals_of_a_groups_fakes_go_with_them():
    # FaceForensics++: 000 is real, 000_003 a fake of it under two manipulations.
    folds = split([(d, int(d != "real"), k) for k in (0, 1) for d in ("real", "DF", "F2F")])
    assert sorted(folds) == [LEFT_OUT, LEFT_OUT, 0, 0, 1, 1]
    assert folds[0] in folds[1:3]
    assert folds[3] in folds[4:6]


def test_a_group_that_spans_domains_belongs_to_its_larger_part():
    rows = [("a", 0, 0), ("a", 1, 1), ("b", 0, 2), ("b", 1, 3),
            ("a", 1, 9), ("b", 1, 9), ("b", 0, 9)]  # fmt: skip
    assert split(rows) == [0, 0, 1, 1, LEFT_OUT, 1, 1]


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([("a", 0, 0), ("a", 1, 1)], r"two or more domains.*is 1: a \(2 items\)"),
        ([("a", 0, 0), ("a", 1, 1), ("", 1, 2)], "1 of 2 have none"),
        ([("", 0, 0), ("", 1, 1)], "1 of 1 have none"),
        ([("a", 0, 0), ("a", 1, 1), ("g", 1, 2)], r"both classes.*: g \(0 real, 1 fake\)"),
    ],
)
def test_domains_that_cannot_be_held_out_are_named(rows, match):
    with refused(match):
        split(rows)


ROW = st.tuples(st.sampled_from(["a", "b", "c", ""]), st.integers(0, 1), st.integers(0, 12))


@given(st.lists(ROW, min_size=4, max_size=60))
def test_whatever_is_split_never_leaks(rows):
    groups = np.unique([r[2] for r in rows], return_inverse=True)[1].tolist()
    rows = [(d, label, g) for (d, label, _), g in zip(rows, groups, strict=True)]
    try:
        folds = split(rows)
    except UserError:
        return
    table = pd.DataFrame(rows, columns=["domain", "label", "group"]).assign(fold=folds)
    kept = table[table["fold"] != LEFT_OUT]
    assert not has_leaks(kept)
    for fold, part in kept[kept["fold"] >= 0].groupby("fold"):
        assert set(part["label"]) == {0, 1}
        (domain,) = set(part.loc[part["label"] == 1, "domain"])
        # What is trained on never comes from the domain that is held out.
        assert domain not in set(kept.loc[kept["fold"] != fold, "domain"])
    assert (table.loc[table["fold"] == LEFT_OUT, "domain"] != "").all()


TOY = [f"{d}/{c}/{i}.png" for d in ("print", "replay") for c in ("real", "fake") for i in range(4)]


def test_fold_file_and_report(toy):
    report = make_folds(toy(TOY), "lodo")
    folds = report.folds
    assert report.scheme == "lodo"
    assert report.domains == ("print", "replay")
    assert (folds["fold"] == (folds["domain"] == "replay")).all()
    assert report.leaks[-1].items == 0
    again, same, none = ensure_folds(load_dataset("toy"), None)  # as it is the only one there
    assert (again, none) == ("lodo", None)
    assert same.equals(folds)


def test_copies_across_domains_are_left_out_and_listed(make_dataset, artefact_root):
    root = make_dataset(TOY)
    for name in ("print/fake/copy.png", "replay/fake/a.png", "replay/fake/b.png"):
        (root / name).write_bytes((root / "print/fake/0.png").read_bytes())
    report = make_folds(load_dataset("toy"), "lodo")
    folds = report.folds
    listed = pd.read_csv(paths.excluded_csv("toy", "lodo"))
    left = set(listed["item_id"])
    assert left in (
        {"replay/fake/a.png", "replay/fake/b.png"},
        {"print/fake/copy.png", "print/fake/0.png"},
    )
    assert listed["reason"].str.contains("spans domains and is held out with").all()
    assert len(folds) == len(TOY) + 3 - 2
    assert {leak.reason: leak.items for leak in report.leaks}["equal files"] == 4
    ensure_folds(load_dataset("toy"), "lodo")  # they still count as known


def test_without_a_scan(toy):
    scheme, folds, _ = ensure_folds(toy(TOY), "lodo_unscanned")
    assert scheme == "lodo_unscanned"
    assert set(folds["fold"]) == {0, 1}
