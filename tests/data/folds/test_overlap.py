"""What of a data set was seen in training on another. Oracle: which file was copied from where."""

import shutil

import cv2
import numpy as np
import pytest

from src import paths
from src.data.folds.make import check_fit, make_folds
from src.data.folds.overlap import find_overlap
from src.data.layouts.load import load_dataset

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


def write_celeb(name, clips, seed=7):
    """Write frames of clips, two each, in Celeb-DF's folders; fakes are those of two people."""
    rng = np.random.default_rng(seed)
    for clip in clips:
        top = "Celeb-synthesis" if clip.count("id") == 2 else "Celeb-real"
        home = paths.dataset_dir(name) / top / "frames" / clip
        home.mkdir(parents=True)
        for frame in range(2):
            coarse = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            pixels = cv2.resize(coarse, (96, 96), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(home / f"{frame}.png"), pixels)


CLIPS = [f"id{k}_{j:04d}" for k in range(8) for j in range(2)]
SWAPS = [f"id{k}_id{(k + 1) % 8}_{j:04d}" for k in range(8) for j in range(2)]


def test_people_who_chain_everything_make_no_item_a_relative():
    write_celeb("celeb", CLIPS + SWAPS)
    write("mine", ["a", "b"], 0)
    frame = paths.dataset_dir("celeb") / "Celeb-real/frames/id3_0001/1.png"
    shutil.copy(frame, paths.dataset_dir("mine") / "train/real/copy.png")
    assert load_dataset("celeb").train["group"].nunique() == 1
    found, seen = overlap("mine", "celeb")
    # By hand: both frames of that clip, and of the swap that changes it.
    assert {one.split("/")[2] for one in seen} == {"id3_0001", "id3_id4_0001"}
    assert (len(seen), found.equal, found.related, found.alike) == (4, 1, 0, 3)
    assert found.example == ("Celeb-real/frames/id3_0001/1.png", "train/real/copy.png")


def test_people_met_in_other_videos_are_counted_and_stay():
    write_celeb("celeb", CLIPS + SWAPS)
    write_celeb("other", ["id3_0007", "id3_0001", "id20_id21_0000"], 8)
    found, seen = overlap("other", "celeb")
    assert {one.split("/")[2] for one in seen} == {"id3_0001", "id3_id4_0001"}
    assert (found.equal, found.related, found.alike) == (0, 4, 0)
    # id3_0000, id3_id4_0000 and both id2_id3 swaps, two frames each.
    assert found.people == 8


def test_related_videos_do_not_hand_it_on():
    """A copy of a frame beside a copy, in another video, is no relative of what was trained on."""
    write_clip_folder("two", "fake", "f", [1, 2])
    write_clip_folder("two", "real", "first", [3, 4])
    write_clip_folder("two", "real", "second", [5, 4])
    (paths.dataset_dir("two") / "dataset.yaml").write_text("subfolders: group\n")
    write("one", ["x"], 6)
    frame = paths.dataset_dir("two") / "train/real/first/0.png"
    shutil.copy(frame, paths.dataset_dir("one") / "train/real/copy.png")
    assert overlap("one", "two")[1] == ["real/first/0.png", "real/first/1.png"]


def write_clip_folder(name, label, clip, seeds):
    home = paths.dataset_dir(name) / "train" / label / clip
    home.mkdir(parents=True, exist_ok=True)
    for place, seed in enumerate(seeds):
        coarse = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        pixels = cv2.resize(coarse, (96, 96), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(home / f"{place}.png"), pixels)


def test_what_is_akin_to_a_test_set_is_not_trained_on():
    write("one", [f"{k}" for k in range(8)], 0)
    write("two", ["x", "y"], 1, folder="test")
    mine, theirs = paths.dataset_dir("one") / "train", paths.dataset_dir("two") / "test"
    shutil.copy(mine / "real/3.png", theirs / "fake/copy.png")
    cv2.imwrite(str(theirs / "real/alike.jpg"), np.asarray(cv2.imread(str(mine / "fake/5.png"))))
    (paths.dataset_dir("one") / "dataset.yaml").write_text("test_sets: [two]\n")
    report = make_folds(load_dataset("one"), SCHEME)
    assert report.excluded["item_id"].tolist() == ["fake/5.png", "real/3.png"]
    assert report.excluded["reason"].str.contains("copy of an item of two or of its video").all()
    assert len(report.folds) == 14
    other = load_dataset("two")
    trained = report.folds["item_id"]
    assert not find_overlap(load_dataset("one"), trained, other, other.test, SCHEME).seen.any()
    check_fit(load_dataset("one"), SCHEME, report.folds)
