"""Which test items are copies or look-alikes of given train items."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from src.data.layouts import load_dataset
from src.data.relatives import Relatives, find_relatives
from tests.data.conftest import picture

MakeDataset = Callable[..., Path]
NONE = np.empty(0, np.int64)


def related(component: list[int], edges: list[tuple[int, int]]) -> Relatives:
    """Return items h (train), t, u, v (test)."""
    first, second = np.array(edges, np.int64).reshape(-1, 2).T
    names = np.array(["h", "t", "u", "v"], dtype=object)
    return Relatives(
        item_id=names,
        is_test=np.array([False, True, True, True]),
        file=names.copy(),
        component=np.array(component),
        first=first,
        second=second,
    )


def test_a_look_alike_of_a_look_alike_is_related() -> None:
    assert related([0, 0, 0, 1], [(0, 1), (1, 2)]).of({"h"}) == (set(), {"t", "u"})


def test_a_link_that_a_cut_chain_lost_still_counts() -> None:
    assert related([0, 1, 2, 3], [(0, 1), (1, 2)]).of({"h"}) == (set(), {"t"})


def test_nothing_is_related_to_nothing() -> None:
    assert related([0, 0, 0, 0], [(0, 1)]).of(set()) == (set(), set())


def test_a_test_item_of_the_same_name_is_another_item() -> None:
    """Ids are unique within a split only."""
    same = related([0, 1, 2, 3], [])
    same.item_id[1] = "h"
    assert same.of({"h"}) == (set(), set())


def test_real_files_equal_mirrored_and_unrelated(make_dataset: MakeDataset) -> None:
    files = {
        "train/real/a.png": picture(1, 48),
        "train/fake/b.png": picture(2, 48),
        "test/equal.png": picture(1, 48),
        "test/other.png": picture(3, 48),
        "test/broken.png": b"no image",
    }
    make_dataset(files)
    relatives = find_relatives(load_dataset("toy", None))
    ids = {str(name)[-5]: str(name) for name in relatives.item_id if str(name).endswith(".png")}
    assert relatives.of({ids["a"]}) == ({"equal.png"}, set())
    assert relatives.of({ids["b"]}) == (set(), set())
