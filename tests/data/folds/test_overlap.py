"""What of a data set was seen in training on another, or in its test. Oracle: the copies made."""

import shutil
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest

from src import paths
from src.data.folds import overlap as overlaps
from src.data.folds.make import check_fit, make_folds
from src.data.folds.near_duplicates import Looks
from src.data.folds.overlap import Relatives, find_overlap, find_relatives
from src.data.folds.scan import scan_items
from src.data.layouts.load import load_dataset
from tests.clips import write_clip
from tests.data.conftest import picture

pytestmark = pytest.mark.usefixtures("artefact_root")
SCHEME = "sgkf2_s0"
home = paths.dataset_dir


def pixels_of(name: str) -> np.ndarray:
    """Return a smooth picture of its own for each name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    coarse = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (96, 96), interpolation=cv2.INTER_CUBIC)


def write(name: str, *files: str) -> None:
    for file in files:
        path = home(name) / f"{file}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), pixels_of(f"{name}/{file}"))


def both(*stems: str, split: str = "train") -> list[str]:
    return [f"{split}/{label}/{stem}" for label in ("real", "fake") for stem in stems]


def copy(one: str, two: str) -> None:
    """Copy a file of one data set into another; stored anew where it becomes a JPEG."""
    source, target = paths.input_dir() / one, paths.input_dir() / two
    if target.suffix == ".jpg":
        cv2.imwrite(str(target), np.asarray(cv2.imread(str(source))))
    else:
        shutil.copy(source, target)


def overlap(first, second, ids=None, scheme=SCHEME):
    trained, other = load_dataset(first), load_dataset(second)
    wanted = set(trained.train["item_id"]) if ids is None else ids
    found = find_overlap(trained, wanted, other, other.train, scheme)
    return found, other.train["item_id"][found.seen].tolist()


def test_copies_and_look_alikes_are_found():
    write("one", *both("a", "b", "c"))
    write("two", *both("x", "y"))
    copy("one/train/real/a.png", "two/train/fake/copy.png")
    copy("one/train/real/b.png", "two/train/fake/alike.jpg")
    found, seen = overlap("one", "two")
    assert seen == ["fake/alike.jpg", "fake/copy.png"]
    assert (found.equal, found.related, found.alike) == (1, 0, 1)
    # What was not trained on is not held against anything.
    assert overlap("one", "two", {"real/b.png"})[1] == ["fake/alike.jpg"]
    # Without opening files no copies are known.
    assert overlap("one", "two", scheme="sgkf2_s0_unscanned")[1] == []
    home("link").symlink_to(home("one"))
    found, seen = overlap("one", "link")
    assert len(seen) == found.equal == 6


def test_videos_of_a_published_set_are_known_everywhere():
    write("one", *(f"train/{p}" for p in ("real/000", "real/005", "fake/000_003", "fake/005_009")))
    write("two", "train/real/000", "train/fake/000_003")
    found, seen = overlap("one", "two")
    assert sorted(seen) == ["fake/000_003.png", "real/000.png"]
    assert (found.equal, found.related, found.alike) == (0, 2, 0)
    assert overlap("one", "two", {"real/005.png"})[1] == []


def test_groups_of_other_sets_are_their_own():
    files = both("p", "q")
    rows = "".join(f"{f[6:]}.png,{int('fake' in f)},{f[-1]}\n" for f in files)
    for name in ("one", "two"):
        write(name, *files)
        (home(name) / "train.csv").write_text(f"id,label,group\n{rows}")
    assert load_dataset("one").train["group"].tolist().count("p") == 2
    assert overlap("one", "two")[1] == []


def test_own_groups_stand_as_they_are():
    write("one", *(f"train/{p}" for p in ("real/id0_0001", "real/id1_0002", "fake/id0_id1_0001")))
    (home("one") / "dataset.yaml").write_text("group_by: video\n")
    _, seen = overlap("one", "one", {"fake/id0_id1_0001.png"})
    assert sorted(seen) == ["fake/id0_id1_0001.png", "real/id0_0001.png"]  # by clip, not people


def celeb(*clips: str) -> list[str]:
    """Return frames of clips, two each, in Celeb-DF's folders; fakes are those of two people."""
    return [
        f"Celeb-{'synthesis' if clip.count('id') == 2 else 'real'}/frames/{clip}/{frame}"
        for clip in clips for frame in (0, 1)
    ]  # fmt: skip


CLIPS = [f"id{k}_{j:04d}" for k in range(8) for j in range(2)]
SWAPS = [f"id{k}_id{(k + 1) % 8}_{j:04d}" for k in range(8) for j in range(2)]


def test_people_who_chain_everything_make_no_item_a_relative():
    write("celeb", *celeb(*CLIPS, *SWAPS))
    write("mine", *both("a", "b"))
    copy("celeb/Celeb-real/frames/id3_0001/1.png", "mine/train/real/copy.png")
    assert len(set(load_dataset("celeb").train["group"])) == 1
    found, seen = overlap("mine", "celeb")
    # By hand: both frames of that clip, and of the swap that changes it.
    assert {one.split("/")[2] for one in seen} == {"id3_0001", "id3_id4_0001"}
    assert (len(seen), found.equal, found.related, found.alike) == (4, 1, 0, 3)
    assert found.example == ("Celeb-real/frames/id3_0001/1.png", "train/real/copy.png")
    write("other", *celeb("id3_0007", "id3_0001", "id20_id21_0000"))
    found, seen = overlap("other", "celeb")
    assert {one.split("/")[2] for one in seen} == {"id3_0001", "id3_id4_0001"}
    assert (found.equal, found.related, found.alike) == (0, 4, 0)
    # People met in other videos: id3_0000, id3_id4_0000 and both id2_id3 swaps, two frames each.
    assert found.people == 8


def test_related_videos_do_not_hand_it_on():
    """A copy of a frame beside a copy, in another video, is no relative of what was trained on."""
    clips = ("fake/f", "real/first", "real/second")
    write("two", *(f"train/{clip}/{frame}" for clip in clips for frame in (0, 1)))
    copy("two/train/real/first/1.png", "two/train/real/second/1.png")
    (home("two") / "dataset.yaml").write_text("subfolders: group\n")
    write("one", *both("x"))
    copy("two/train/real/first/0.png", "one/train/real/copy.png")
    assert overlap("one", "two")[1] == ["real/first/0.png", "real/first/1.png"]


def test_what_is_akin_to_a_test_set_is_not_trained_on():
    write("one", *both(*map(str, range(8))))
    write("two", *both("x", "y", split="test"))
    copy("one/train/real/3.png", "two/test/fake/copy.png")
    copy("one/train/fake/5.png", "two/test/real/alike.jpg")
    (home("one") / "dataset.yaml").write_text("test_sets: [two]\n")
    report = make_folds(load_dataset("one"), SCHEME)
    assert report.excluded["item_id"].tolist() == ["fake/5.png", "real/3.png"]
    assert report.excluded["reason"].str.contains("copy of an item of two or of its video").all()
    assert len(report.folds) == 14
    other = load_dataset("two")
    trained = report.folds["item_id"]
    assert not find_overlap(load_dataset("one"), trained, other, other.test, SCHEME).seen.any()
    check_fit(load_dataset("one"), SCHEME, report.folds)


def related(component: list[int], edges: list[tuple[int, int]]) -> Relatives:
    """Return items h (train), t, u, v (test)."""
    first, second = np.array(edges, np.int64).reshape(-1, 2).T
    names = np.array(["h", "t", "u", "v"], dtype=object)
    return Relatives(
        item_id=names,
        is_test=np.array([False, True, True, True]),
        file=names.copy(),
        component=np.array(component),
        looks=Looks(np.arange(4), first, second, np.ones(len(first), np.uint8), 4),
    )


@pytest.mark.parametrize(
    ("component", "edges", "of", "found"),
    [
        ([0, 0, 0, 1], [(0, 1), (1, 2)], {"h"}, {"t", "u"}),  # a look-alike of a look-alike
        ([0, 1, 2, 3], [(0, 1), (1, 2)], {"h"}, {"t"}),  # a link that a cut chain lost counts
        ([0, 0, 0, 0], [(0, 1)], set(), set()),
    ],
)
def test_which_test_items_are_related(component, edges, of, found):
    assert related(component, edges).of(of) == (set(), found)


def test_items_of_one_name_or_without_a_look_are_no_relatives():
    same = related([0, 1, 2, 3], [])
    same.item_id[1] = "h"  # ids are unique within a split only
    assert same.of({"h"}) == (set(), set())
    flat = related([0, 1, 2, 3], [])
    flat.looks.of[:] = -1
    assert flat.of({"h"}) == (set(), set())


def test_real_files_equal_and_unrelated(toy):
    files = {"train/real/a.png": picture(1, 48), "train/fake/b.png": picture(2, 48),
             "test/equal.png": picture(1, 48), "test/other.png": picture(3, 48),
             "test/broken.png": b"no image"}  # fmt: skip
    found = find_relatives(toy(files))
    assert found.of({"real/a.png"}) == ({"equal.png"}, set())
    assert found.of({"fake/b.png"}) == (set(), set())


def test_many_items_of_one_look_cost_one_look_and_lose_no_link(monkeypatch):
    """Pairs of items would be 200 million; an item four bits away is related all the same."""
    n = 20_000
    hashes = np.full(n, 0x0123456789ABCDEF, np.uint64)
    hashes[-2] ^= np.uint64(0b1111)
    hashes[-1] = ~hashes[0]
    scan = pd.DataFrame({
        "item_id": [f"i{k}" for k in range(n)], "split": ["train"] * (n - 3) + ["test"] * 3,
        "error": "", "format": "jpeg", "sha256": [f"s{k}" for k in range(n)], "hashable": True,
        "phash": hashes, "phash_flip": hashes ^ np.uint64(0xFFFF0000FFFF0000),
    })  # fmt: skip
    monkeypatch.setattr(overlaps, "scan_items", lambda _: scan)
    items = pd.DataFrame({"group": [""] * n})
    found = find_relatives(SimpleNamespace(items=items))  # type: ignore[arg-type]
    assert len(found.looks.first) == 1
    assert found.of({"i0"}) == (set(), {f"i{n - 3}", f"i{n - 2}"})


def test_equal_clips_are_related(artefact_root):
    root = artefact_root / "input" / "toy"
    for number, name in enumerate(("real/a", "real/b", "fake/c")):
        write_clip(root / "train" / f"{name}.mp4", 4, low=5 + 3 * number)
    (root / "test").mkdir()
    copy("toy/train/real/a.mp4", "toy/test/copy.mp4")
    found = find_relatives(load_dataset("toy"))
    assert found.of({"real/a.mp4"}) == ({"copy.mp4"}, set())
    assert found.of({"real/b.mp4"}) == (set(), set())


def test_a_clip_stored_again_looks_like_itself(artefact_root):
    root = artefact_root / "input" / "toy"
    for name, codec in (("train/real/a.avi", "MJPG"), ("train/fake/b.mp4", "mp4v")):
        (root / name).parent.mkdir(parents=True)
        letters = cv2.VideoWriter.fourcc(*codec)
        writer = cv2.VideoWriter(str(root / name), cv2.CAP_FFMPEG, letters, 25, (96, 96))
        for seed in range(4):
            writer.write(pixels_of(str(seed)))
        writer.release()
    scan = scan_items(load_dataset("toy"))
    first, second = (int(value) for value in scan["phash"])
    assert scan["hashable"].all()
    assert (first ^ second).bit_count() <= 4
