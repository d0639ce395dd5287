"""Which test items are copies or look-alikes of given train items."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest

from src.data.folds import overlap
from src.data.folds.near_duplicates import Looks
from src.data.folds.overlap import Relatives, find_relatives
from src.data.folds.scan import scan_items
from src.data.layouts.load import load_dataset
from tests.clips import write_clip
from tests.data.conftest import picture

MakeDataset = Callable[..., Path]


def related(component: list[int], edges: list[tuple[int, int]]) -> Relatives:
    """Return items h (train), t, u, v (test)."""
    first, second = np.array(edges, np.int64).reshape(-1, 2).T
    looks = Looks(np.arange(4), first, second, np.ones(len(first), np.uint8), 4)
    names = np.array(["h", "t", "u", "v"], dtype=object)
    return Relatives(
        item_id=names,
        is_test=np.array([False, True, True, True]),
        file=names.copy(),
        component=np.array(component),
        looks=looks,
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
    found = find_relatives(load_dataset("toy", None))
    ids = {str(name)[-5]: str(name) for name in found.item_id if str(name).endswith(".png")}
    assert found.of({ids["a"]}) == ({"equal.png"}, set())
    assert found.of({ids["b"]}) == (set(), set())


def test_many_items_of_one_look_cost_one_look_and_lose_no_link(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pairs of items would be 200 million; an item four bits away is related all the same."""
    n = 20_000
    hashes = np.full(n, 0x0123456789ABCDEF, np.uint64)
    hashes[-2] ^= np.uint64(0b1111)
    hashes[-1] = ~hashes[0]
    scan = pd.DataFrame(
        {
            "item_id": [f"i{k}" for k in range(n)],
            "split": ["train"] * (n - 3) + ["test"] * 3,
            "error": "",
            "format": "jpeg",
            "sha256": [f"s{k}" for k in range(n)],
            "hashable": True,
            "phash": hashes,
            "phash_flip": hashes ^ np.uint64(0xFFFF0000FFFF0000),
        }
    )
    monkeypatch.setattr(overlap, "scan_items", lambda _: scan)
    items = pd.DataFrame({"group": [""] * n})
    found = find_relatives(SimpleNamespace(items=items))  # type: ignore[arg-type]
    assert len(found.looks.first) == 1
    assert found.of({"i0"}) == (set(), {f"i{n - 3}", f"i{n - 2}"})


def test_an_item_without_a_look_looks_like_nothing() -> None:
    flat = related([0, 1, 2, 3], [])
    flat.looks.of[:] = -1
    assert flat.of({"h"}) == (set(), set())


def test_equal_clips_are_related(artefact_root):
    root = artefact_root / "input" / "toy"
    for number, name in enumerate(("real/a", "real/b", "fake/c")):
        write_clip(root / "train" / f"{name}.mp4", 4, low=5 + 3 * number)
    copy = root / "test" / "copy.mp4"
    copy.parent.mkdir()
    copy.write_bytes((root / "train/real/a.mp4").read_bytes())
    found = find_relatives(load_dataset("toy"))
    assert found.of({"real/a.mp4"}) == ({"copy.mp4"}, set())
    assert found.of({"real/b.mp4"}) == (set(), set())


def test_a_clip_stored_again_looks_like_itself(artefact_root):
    root = artefact_root / "input" / "toy"
    frames = [picture_of_noise(seed) for seed in range(4)]
    for name, codec in (("train/real/a.avi", "MJPG"), ("train/fake/b.mp4", "mp4v")):
        (root / name).parent.mkdir(parents=True)
        letters = cv2.VideoWriter.fourcc(*codec)
        writer = cv2.VideoWriter(str(root / name), cv2.CAP_FFMPEG, letters, 25, (96, 96))
        for frame in frames:
            writer.write(frame)
        writer.release()
    scan = scan_items(load_dataset("toy"))
    first, second = (int(value) for value in scan["phash"])
    assert scan["hashable"].all()
    assert (first ^ second).bit_count() <= 4


def picture_of_noise(seed):
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return cv2.resize(small, (96, 96), interpolation=cv2.INTER_CUBIC)
