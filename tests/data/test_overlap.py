"""What of a data set was seen in training on another. Oracle: which file was copied from where."""

import shutil

import cv2
import numpy as np
import pytest

from src import paths
from src.data.layouts import load_dataset
from src.data.overlap import find_overlap

pytestmark = pytest.mark.usefixtures("artefact_root")
SCHEME = "sgkf2_s0"


def write(name, stems, seed, folder="train"):
    rng = np.random.default_rng(seed)
    for label in ("real", "fake"):
        home = paths.dataset_dir(name) / folder / label
        home.mkdir(parents=True, exist_ok=True)
        for stem in stems:
            coarse = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            pixels = cv2.resize(coarse, (96, 96), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(home / f"{stem}.png"), pixels)


def overlap(first, second, ids=None, scheme=SCHEME):
    trained, other = load_dataset(first), load_dataset(second)
    wanted = set(trained.train["item_id"]) if ids is None else ids
    found = find_overlap(trained, wanted, other, other.train, scheme)
    return found, other.train["item_id"][found.seen].tolist()


def test_copies_and_look_alikes_are_found():
    write("one", ["a", "b", "c"], 0)
    write("two", ["x", "y"], 1)
    theirs, mine = paths.dataset_dir("one") / "train/real", paths.dataset_dir("two") / "train/fake"
    shutil.copy(theirs / "a.png", mine / "copy.png")
    pixels = np.asarray(cv2.imread(str(theirs / "b.png")))
    cv2.imwrite(str(mine / "alike.jpg"), pixels)
    found, seen = overlap("one", "two")
    assert seen == ["fake/alike.jpg", "fake/copy.png"]
    assert (found.equal, found.related, found.alike) == (1, 0, 1)
    # What was not trained on is not held against anything.
    assert overlap("one", "two", {"real/b.png"})[1] == ["fake/alike.jpg"]
    # Without opening files no copies are known.
    assert overlap("one", "two", scheme="sgkf2_s0_unscanned")[1] == []


def test_a_link_to_the_same_folder_is_all_seen():
    write("one", ["a", "b"], 0)
    (paths.dataset_dir("link")).symlink_to(paths.dataset_dir("one"))
    found, seen = overlap("one", "link")
    assert len(seen) == found.equal == 4


def test_videos_of_a_published_set_are_known_everywhere():
    for name, seed in (("one", 0), ("two", 1)):
        for label, stems in (("real", ["000", "005"]), ("fake", ["000_003", "005_009"])):
            home = paths.dataset_dir(name) / "train" / label
            home.mkdir(parents=True)
            rng = np.random.default_rng([seed, len(label), ord(label[0])])
            for stem in stems if name == "one" else stems[:1]:
                pixels = rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)
                cv2.imwrite(str(home / f"{stem}.png"), pixels)
    found, seen = overlap("one", "two")
    assert sorted(seen) == ["fake/000_003.png", "real/000.png"]
    assert (found.equal, found.related, found.alike) == (0, 2, 0)
    assert overlap("one", "two", {"real/005.png"})[1] == []


def test_groups_of_other_sets_are_their_own():
    for name, seed in (("one", 0), ("two", 1)):
        write(name, ["p", "q"], seed)
        (paths.dataset_dir(name) / "train.csv").write_text(
            "id,label,group\n" + "".join(
                f"{label}/{stem}.png,{int(label == 'fake')},{stem}\n"
                for label in ("real", "fake") for stem in ("p", "q")
            )
        )  # fmt: skip
    assert load_dataset("one").train["group"].tolist().count("p") == 2
    assert overlap("one", "two")[1] == []


def test_own_groups_stand_as_they_are():
    for label, stems in (("real", ["id0_0001", "id1_0002"]), ("fake", ["id0_id1_0001"])):
        home = paths.dataset_dir("one") / "train" / label
        home.mkdir(parents=True)
        for k, stem in enumerate(stems):
            rng = np.random.default_rng([k, ord(label[0])])
            pixels = rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)
            cv2.imwrite(str(home / f"{stem}.png"), pixels)
    (paths.dataset_dir("one") / "dataset.yaml").write_text("group_by: video\n")
    _, seen = overlap("one", "one", {"fake/id0_id1_0001.png"})
    assert sorted(seen) == ["fake/id0_id1_0001.png", "real/id0_0001.png"]  # by clip, not people
