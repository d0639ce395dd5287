"""FaceForensics++ and Celeb-DF as downloaded: frames or videos, people, levels, lists."""

import json

import pytest

from src.data.folds.make import ensure_folds, make_folds
from src.data.folds.schemes import default_scheme
from src.data.layouts.load import load_dataset
from src.errors import UserError


def refused(match: str):
    return pytest.raises(UserError, match=f"(?s){match}")


def ff(method: str, video: str, level: str = "c23", kind: str = "frames") -> str:
    top = "original" if method in ("youtube", "actors") else "manipulated"
    return f"FF/{top}_sequences/{method}/{level}/{kind}/{video}"


PAIRS = ["000_003", "003_000", "001_870", "870_001"]
FRAMES = [
    *(f"{ff('youtube', v)}/000{i}.png" for v in ("000", "001", "003", "870") for i in (0, 1)),
    *(f"{ff(m, v)}/000{i}.png" for m in ("Deepfakes", "Face2Face") for v in PAIRS for i in (0, 1)),
]


def test_faceforensics_frames(make_dataset):
    masks = f"{ff('Deepfakes', '000_003', kind='masks')}/0000.png"
    make_dataset([*FRAMES, masks])
    dataset = load_dataset("toy")
    train = dataset.train
    assert sorted(train["item_id"]) == sorted(FRAMES)
    assert (train["label"] == train["item_id"].str.contains("manipulated")).all()
    assert set(train["domain"]) == {"youtube", "Deepfakes", "Face2Face"}
    assert set(train["group"]) == {"FaceForensics++/000", "FaceForensics++/001"}
    assert set(train.loc[train["group"] == "FaceForensics++/001", "item_id"]) == {
        path for path in FRAMES if path.split("/")[-2][:3] in ("001", "870")
    }
    assert dataset.ignored == {"masks and landmarks": 1}


def test_leaving_a_manipulation_out_leaks_no_person(make_dataset):
    make_dataset(FRAMES)
    report = make_folds(load_dataset("toy"), "lodo_unscanned")
    folds = report.folds
    assert report.domains == ("Deepfakes", "Face2Face")
    assert (folds.groupby("group")["fold"].nunique() == 1).all()
    # A manipulation keeps half of the people, with their originals; the other half is listed.
    assert folds["fold"].value_counts().to_dict() == {0: 8, 1: 8}
    assert len(report.excluded) == 8
    assert report.excluded["reason"].str.contains("spans domains").all()
    assert report.leaks[-1].items > 0  # what a split by domain alone would have leaked


def test_video_files_are_rows_of_their_own_kind(make_dataset):
    names = [f"{ff('youtube', '000', kind='videos')}.mp4",
             f"{ff('Deepfakes', '000_003', kind='videos')}.mp4"]  # fmt: skip
    make_dataset([], {name: f"clip {name}" for name in names})
    train = load_dataset("toy").train
    assert train["kind"].tolist() == ["video", "video"]
    assert set(train["item_id"]) == set(names)
    assert train["group"].nunique() == 1


def test_frames_go_before_the_video_they_are_of(make_dataset):
    make_dataset(FRAMES, {f"{ff('youtube', '000', kind='videos')}.mp4": "clip"})
    dataset = load_dataset("toy")
    assert set(dataset.train["kind"]) == {"image"}
    assert dataset.ignored == {"videos whose frames are here too": 1}


def test_compression_level_is_chosen_and_said(make_dataset):
    files = [f"{ff(m, v, level)}/0.png" for level in ("c23", "c40")
             for m, v in (("youtube", "000"), ("Deepfakes", "000_003"))]  # fmt: skip
    make_dataset(files)
    dataset = load_dataset("toy")
    assert dataset.train["path"].str.contains("/c23/").all()
    assert dataset.ignored == {"compression level c40": 2}
    assert any("compression level: c23; c40 left aside" in note for note in dataset.notes)
    make_dataset(files, {"dataset.yaml": "compression: c40\n"})
    assert load_dataset("toy").train["path"].str.contains("/c40/").all()
    make_dataset([], {"dataset.yaml": "compression: raw\n"})
    with refused("level raw is not there, only c23, c40"):
        load_dataset("toy")


def test_a_file_that_lies_elsewhere_is_named(make_dataset):
    make_dataset([*FRAMES, "FF/original_sequences/youtube/x.png"])
    with refused(r"youtube/x.png: want original_sequences or .*METHOD.*ignore: "):
        load_dataset("toy")


def test_deepfake_detection_ties_actors(make_dataset):
    make_dataset([f"{ff('actors', '01__walk')}/0.png", f"{ff('actors', '02__walk')}/0.png",
                  f"{ff('actors', '05__walk')}/0.png",
                  f"{ff('DeepFakeDetection', '01_02__walk__YVGY8LOK')}/0.png"])  # fmt: skip
    groups = load_dataset("toy").train.set_index("item_id")["group"]
    assert groups.value_counts().tolist() == [3, 1]


CELEB = [
    *(f"Celeb-real/id{i}_000{j}/0.png" for i in (0, 1) for j in (0, 1)),
    *(f"YouTube-real/0000{j}/0.png" for j in (0, 1)),
    "Celeb-synthesis/id0_id1_0000/0.png", "Celeb-synthesis/id0_id1_0001/0.png",
    "Celeb-synthesis/id1_id0_0000/0.png",
]  # fmt: skip


def test_celeb_df(make_dataset):
    make_dataset(CELEB)
    dataset = load_dataset("toy")
    train = dataset.train.set_index("item_id")
    assert (train["label"] == train.index.str.contains("synthesis")).all()
    assert set(train["domain"]) == {"Celeb-DF"}
    assert train["group"].value_counts().to_dict() == {
        "Celeb-DF/id0": 7, "Celeb-DF/00000": 1, "Celeb-DF/00001": 1,
    }  # fmt: skip
    assert any("chain 7 of 9 items into one group (Celeb-DF/id0)" in n for n in dataset.notes)
    with refused(r"'Celeb-DF/id0' alone holds 7 of 9 items.*group_by: video"):
        ensure_folds(dataset, "sgkf2_s0_unscanned")


def test_celeb_df_by_video(make_dataset):
    make_dataset(CELEB, {"dataset.yaml": "group_by: video\n"})
    dataset = load_dataset("toy")
    train = dataset.train
    tied = train[train["group"] == "Celeb-DF/id0_0000"]["item_id"]
    assert set(tied) == {"Celeb-real/id0_0000/0.png", "Celeb-synthesis/id0_id1_0000/0.png"}
    assert not any("WARNING" in note for note in dataset.notes)
    ensure_folds(dataset, "sgkf2_s0_unscanned")


LIST = "List_of_testing_videos.txt"


def test_celeb_df_test_list(make_dataset):
    rows = "1 Celeb-real/id0_0000.mp4\n0 Celeb-synthesis/id0_id1_0000.mp4\n1 YouTube-real/9.mp4\n"
    make_dataset(CELEB, {LIST: rows})
    dataset = load_dataset("toy")
    assert dataset.test_labels is not None
    assert dataset.test_labels.to_dict() == {
        "Celeb-real/id0_0000/0.png": 0, "Celeb-synthesis/id0_id1_0000/0.png": 1,
    }  # fmt: skip
    assert len(dataset.train) == 7
    assert any("1 videos of List_of_testing_videos.txt are not here" in n for n in dataset.notes)


def test_celeb_df_list_that_contradicts_the_folders(make_dataset):
    make_dataset(CELEB, {LIST: "0 Celeb-real/id0_0000.mp4\n"})
    with refused(f"{LIST}: row 1: '0 Celeb-real.*1 means real there"):
        load_dataset("toy")


def test_dfdc_parts_with_their_metadata(make_dataset):
    files = {f"dfdc_train_part_{p}/{n}.mp4": f"clip {p}{n}" for p in (0, 1) for n in "ab"}
    meta = '{{"a{0}.mp4": {{"label": "REAL", "split": "train", "original": null}}, '
    meta += '"b{0}.mp4": {{"label": "FAKE", "split": "train", "original": "a{0}.mp4"}}}}'
    files = {f"dfdc_train_part_{p}/{n}{p}.mp4": f"clip {p}{n}" for p in (0, 1) for n in "ab"}
    tables = {f"dfdc_train_part_{p}/metadata.json": meta.format(p) for p in (0, 1)}
    make_dataset([], {**files, **tables})
    train = load_dataset("toy").train
    assert len(train) == 4
    assert train["label"].sum() == 2
    assert train["group"].nunique() == 2
    assert set(train["kind"]) == {"video"}


def test_masks_as_downloaded_are_left_aside(make_dataset):
    # The download script puts masks beside the compression levels, not below them.
    masks = ["FF/manipulated_sequences/Deepfakes/masks/videos/000_003.mp4",
             "FF/manipulated_sequences/Face2Face/masks/frames/000_003/0.png",
             "FF/manipulated_sequences/Deepfakes/models/000_003/preview.png"]  # fmt: skip
    make_dataset([*FRAMES, *masks])
    dataset = load_dataset("toy")
    assert sorted(dataset.train["item_id"]) == sorted(FRAMES)
    assert dataset.ignored == {"masks and landmarks": 3}


def published(splits: dict[str, list[list[str]]]) -> dict[str, str]:
    return {f"splits/{name}.json": json.dumps(pairs) for name, pairs in splits.items()}


SIX = [("000", "003"), ("001", "870"), ("010", "011")]
SIX_FILES = [
    *(f"{ff('youtube', v)}/0.png" for pair in SIX for v in pair),
    *(f"{ff(m, f'{a}_{b}')}/0.png" for m in ("Deepfakes", "FaceSwap") for x, y in SIX
      for a, b in ((x, y), (y, x))),
]  # fmt: skip


def test_published_splits_hold_out_test_and_offer_train_and_val(make_dataset):
    splits = {name: [list(pair)] for name, pair in zip(("train", "val", "test"), SIX, strict=True)}
    make_dataset(SIX_FILES, published(splits))
    dataset = load_dataset("toy")
    of = {video: name for name, pairs in splits.items() for pair in pairs for video in pair}
    expected = {path: of[path.split("/")[-2][:3]] for path in SIX_FILES}
    assert set(dataset.test["item_id"]) == {p for p, split in expected.items() if split == "test"}
    assert not any("left aside" in note for note in dataset.notes)
    assert any("val: 6 items, pooled with train" in note for note in dataset.notes)
    assert default_scheme(dataset) == "sgkf5_s42"
    folds = make_folds(dataset, "fixed_unscanned").folds.set_index("item_id")["fold"]
    assert folds.to_dict() == {
        path: ("val", "train").index(split) for path, split in expected.items() if split != "test"
    }


def test_videos_in_no_list_are_always_trained_on(make_dataset):
    splits = {"train": [["000", "003"]], "val": [["001", "870"]]}
    make_dataset(SIX_FILES, published(splits))
    dataset = load_dataset("toy")
    assert dataset.given_folds is not None
    alone = dataset.given_folds[dataset.given_folds == -1].index
    assert set(alone) == {path for path in SIX_FILES if path.split("/")[-2][:3] in ("010", "011")}
    assert any("WARNING 6 videos stand in no list" in note for note in dataset.notes)


def test_lists_that_share_a_video_are_refused(make_dataset):
    splits = {"train": [["000", "003"]], "val": [["003", "870"]]}
    make_dataset(SIX_FILES, published(splits))
    with refused(r"val.json: video 003 stands in a list of train too"):
        load_dataset("toy")


def test_two_versions_of_celeb_df_side_by_side(make_dataset):
    files = [f"Celeb-DF-{v}/{path}" for v in ("v1", "v2") for path in CELEB]
    make_dataset(files, {f"Celeb-DF-v1/{LIST}": "1 Celeb-real/id0_0000.mp4\n",
                         f"Celeb-DF-v2/{LIST}": "1 YouTube-real/00001.mp4\n"})  # fmt: skip
    dataset = load_dataset("toy")
    assert any("12 real and 6 fake videos" in note for note in dataset.notes)
    assert set(dataset.test["item_id"]) == {
        "Celeb-DF-v1/Celeb-real/id0_0000/0.png", "Celeb-DF-v2/YouTube-real/00001/0.png",
    }  # fmt: skip
    same = dataset.train["item_id"].str.contains("id1_0000")
    assert set(dataset.train.loc[same, "group"]) == {"Celeb-DF/id0"}
