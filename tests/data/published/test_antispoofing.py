"""FLIP's folders and lists: domains, videos, and which word is which class."""

import pytest

from src.data.folds.make import make_folds
from src.data.layouts.load import load_dataset
from src.errors import UserError

HOME = "data/MCIO/frame"


def refused(match: str):
    return pytest.raises(UserError, match=f"(?s){match}")


def frames(*videos: str) -> list[str]:
    return [f"{HOME}/{video}_frame{i}.png" for video in videos for i in (0, 1)]


MSU = frames(
    "msu/train/real/c001", "msu/train/fake/c002", "msu/test/real/c001", "msu/test/fake/c003"
)
OULU = frames("oulu/train/real/c001", "oulu/train/fake/c002")


def notes_of(dataset) -> str:
    return "\n".join(dataset.notes)


def test_domains_videos_and_labels(make_dataset):
    make_dataset([*MSU, *OULU])
    dataset = load_dataset("toy")
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


def test_a_real_and_a_fake_of_one_name_share_a_group(make_dataset):
    # Replay-Attack names the attack after the client and the scene.
    make_dataset(frames("replay/train/real/c1", "replay/train/fake/c1", "replay/train/fake/c2"),
                 {"dataset.yaml": "layout: antispoofing\n"})  # fmt: skip
    train = load_dataset("toy").train
    assert train["group"].nunique() == 2
    assert train[train["item_id"].str.contains("c1_")]["group"].nunique() == 1


def test_without_train_and_test_folders(make_dataset):
    make_dataset([f"{d}/{c}/v{i}_frame0.jpg" for d in "ab" for c in ("real", "fake")
                  for i in range(2)])  # fmt: skip
    train = load_dataset("toy").train
    assert train["domain"].value_counts().to_dict() == {"a": 4, "b": 4}


def test_lists_choose_videos_and_what_they_miss_is_counted(make_dataset):
    lists = {
        "data/MCIO/txt/msu_real_train.txt": "msu/train/real/c001_frame0.png\n\n",
        "data/MCIO/txt/msu_fake_train.txt": "msu\\train\\fake\\c002_frame0.png\r\n",
        "data/MCIO/txt/msu_fake_test.txt": "./msu/test/fake/gone_frame0.png\n",
    }
    make_dataset(MSU, lists)
    dataset = load_dataset("toy")
    assert sorted(dataset.train["item_id"]) == sorted(
        frames("msu/train/real/c001", "msu/train/fake/c002")
    )
    assert "3 lists name 2 of 4 videos" in notes_of(dataset)
    assert "WARNING 1 rows of lists name no file, the first is msu/test/fake/gone" in notes_of(
        dataset
    )
    assert dataset.ignored["frames of videos that no list names"] == 4


def test_a_domain_that_no_list_names_is_left_out_with_a_warning(make_dataset):
    lists = {
        "data/MCIO/txt/msu_real_train.txt": "msu/train/real/c001_frame0.png\n",
        "data/MCIO/txt/msu_fake_train.txt": "msu/train/fake/c002_frame0.png\n",
    }
    make_dataset([*MSU, *OULU, *frames("casia/train/real/c1")], lists)
    dataset = load_dataset("toy")
    assert set(dataset.train["domain"]) == {"msu"}
    (warning,) = [note for note in dataset.notes if "domains" in note and "WARNING" in note]
    assert "2 of 3 domains, which are left out: casia (2 files), oulu (4 files); add" in warning
    assert dataset.ignored["frames of videos that no list names"] == 10


def test_lists_of_all_domains_warn_of_none(make_dataset):
    lists = {
        f"{d}_{c}_train.txt": f"{d}/train/{c}/c00{n}_frame0.png\n"
        for d in ("msu", "oulu") for n, c in enumerate(("real", "fake"), 1)
    }  # fmt: skip
    make_dataset([*MSU, *OULU], lists)
    dataset = load_dataset("toy")
    assert len(dataset.train) == 8
    assert "which are left out" not in notes_of(dataset)


def test_a_list_that_contradicts_the_folders(make_dataset):
    make_dataset(MSU, {"msu_real_train.txt": "msu/train/fake/c002_frame0.png\n"})
    with refused("msu_real_train.txt: row 1: .*list of real faces, but lies in .*other class"):
        load_dataset("toy")


def test_files_of_another_kind_make_it_another_layout(make_dataset):
    make_dataset(["a/real/v_frame0.png", "a/fake/v_frame0.png", "a/real/x.png", "a/fake/y.png"])
    assert len(load_dataset("toy").train) == 4


def test_one_set_with_train_and_test_is_a_competitions(make_dataset):
    make_dataset([f"archive/{s}/{c}/v{i}_frame0.png" for s in ("train", "test")
                  for c in ("real", "fake") for i in range(2)])  # fmt: skip
    dataset = load_dataset("toy")
    assert (len(dataset.train), len(dataset.test)) == (4, 4)


def test_the_layout_may_be_named(make_dataset):
    make_dataset([*MSU, "data/mask.png"], {"dataset.yaml": "layout: antispoofing\n"})
    dataset = load_dataset("toy")
    assert len(dataset.train) == 8
    assert dataset.ignored == {"files that no part of the antispoofing layout names": 1}


def test_leave_one_domain_out(make_dataset):
    make_dataset([*MSU, *OULU])
    report = make_folds(load_dataset("toy"), "lodo")
    folds = report.folds
    assert report.domains == ("msu", "oulu")
    assert folds["fold"].value_counts().to_dict() == {0: 8, 1: 4}
