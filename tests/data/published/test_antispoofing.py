"""FLIP's folders and lists: domains, videos, and which word is which class."""

from src.data.folds.make import make_folds
from tests.data.conftest import refused

HOME = "data/MCIO/frame"


def frames(*videos: str) -> list[str]:
    return [f"{HOME}/{video}_frame{i}.png" for video in videos for i in (0, 1)]


MSU = frames(
    "msu/train/real/c001", "msu/train/fake/c002", "msu/test/real/c001", "msu/test/fake/c003"
)
OULU = frames("oulu/train/real/c001", "oulu/train/fake/c002")
INSIST = {"dataset.yaml": "layout: antispoofing\n"}


def notes_of(dataset) -> str:
    return "\n".join(dataset.notes)


def test_domains_videos_and_labels(toy):
    dataset = toy([*MSU, *OULU])
    train = dataset.train.set_index("item_id")
    assert len(train) == 12
    assert dataset.test.empty  # its train and test folders are pooled
    assert train.loc[f"{HOME}/msu/train/real/c001_frame0.png", "label"] == 0
    assert train.loc[f"{HOME}/msu/test/fake/c003_frame1.png", "label"] == 1
    assert set(train["domain"]) == {"msu", "oulu"}
    # Both frames of a video, one group; the same name elsewhere is another video.
    assert (train.groupby("group").size() == 2).all()
    assert train["group"].nunique() == 6
    assert "real/ is 0 and fake/ is 1 (FLIP's own lists call real 1" in notes_of(dataset)
    report = make_folds(dataset, "lodo")
    assert report.domains == ("msu", "oulu")
    assert report.folds["fold"].value_counts().to_dict() == {0: 8, 1: 4}


def test_a_real_and_a_fake_of_one_name_share_a_group(toy):
    # Replay-Attack names the attack after the client and the scene.
    names = ("replay/train/real/c1", "replay/train/fake/c1", "replay/train/fake/c2")
    train = toy(frames(*names), INSIST).train
    assert train["group"].nunique() == 2
    assert train[train["item_id"].str.contains("c1_")]["group"].nunique() == 1


def test_without_train_and_test_folders(toy):
    files = [f"{d}/{c}/v{i}_frame0.jpg" for d in "ab" for c in ("real", "fake") for i in (0, 1)]
    assert toy(files).train["domain"].value_counts().to_dict() == {"a": 4, "b": 4}


def test_lists_choose_videos_and_what_they_miss_is_counted(toy):
    dataset = toy(MSU, {
        "data/MCIO/txt/msu_real_train.txt": "msu/train/real/c001_frame0.png\n\n",
        "data/MCIO/txt/msu_fake_train.txt": "msu\\train\\fake\\c002_frame0.png\r\n",
        "data/MCIO/txt/msu_fake_test.txt": "./msu/test/fake/gone_frame0.png\n",
    })  # fmt: skip
    chosen = frames("msu/train/real/c001", "msu/train/fake/c002")
    assert sorted(dataset.train["item_id"]) == sorted(chosen)
    notes = notes_of(dataset)
    assert "3 lists name 2 of 4 videos" in notes
    assert "WARNING 1 rows of lists name no file, the first is msu/test/fake/gone" in notes
    assert dataset.ignored["frames of videos that no list names"] == 4


def test_domains_that_no_list_names_are_left_out_with_a_warning(toy):
    def lists(*domains: str) -> dict[str, str]:
        return {f"{d}_{c}_train.txt": f"{d}/train/{c}/c00{n}_frame0.png\n" for d in domains
                for n, c in enumerate(("real", "fake"), 1)}  # fmt: skip

    casia = frames("casia/train/real/c001", "casia/train/fake/c002")
    dataset = toy([*MSU, *OULU, *casia], lists("msu"))
    assert set(dataset.train["domain"]) == {"msu"}
    (warning,) = [note for note in dataset.notes if "domains" in note and "WARNING" in note]
    assert "2 of 3 domains, which are left out: casia (4 files), oulu (4 files); add" in warning
    assert dataset.ignored["frames of videos that no list names"] == 12
    dataset = toy([], lists("oulu", "casia"))
    assert len(dataset.train) == 12
    assert "which are left out" not in notes_of(dataset)


def test_a_list_that_contradicts_the_folders(toy):
    with refused("msu_real_train.txt: row 1: .*list of real faces, but lies in .*other class"):
        toy(MSU, {"msu_real_train.txt": "msu/train/fake/c002_frame0.png\n"})


def test_one_set_with_train_and_test_is_a_competitions(toy):
    dataset = toy([f"archive/{s}/{c}/v{i}_frame0.png" for s in ("train", "test")
                   for c in ("real", "fake") for i in range(2)])  # fmt: skip
    assert (len(dataset.train), len(dataset.test)) == (4, 4)


def test_the_layout_may_be_named(toy):
    dataset = toy([*MSU, "data/mask.png"], INSIST)
    assert len(dataset.train) == 8
    assert dataset.ignored == {"files that no part of the antispoofing layout names": 1}


def test_files_of_another_kind_make_it_another_layout(toy):
    names = ["real/v_frame0", "fake/v_frame0", "real/x", "fake/y"]
    assert len(toy([f"a/{name}.png" for name in names]).train) == 4
