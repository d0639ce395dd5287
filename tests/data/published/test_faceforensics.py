"""FaceForensics++ and Celeb-DF as downloaded: frames or videos, people, levels, lists."""

import json

import pytest

from src.data.folds.make import ensure_folds, make_folds
from src.data.folds.schemes import default_scheme
from tests.data.conftest import refused


def ff(method: str, video: str, level: str = "c23", kind: str = "frames") -> str:
    top = "original" if method in ("youtube", "actors") else "manipulated"
    return f"FF/{top}_sequences/{method}/{level}/{kind}/{video}"


PAIRS = ["000_003", "003_000", "001_870", "870_001"]
FRAMES = [
    *(f"{ff('youtube', v)}/000{i}.png" for v in ("000", "001", "003", "870") for i in (0, 1)),
    *(f"{ff(m, v)}/000{i}.png" for m in ("Deepfakes", "Face2Face") for v in PAIRS for i in (0, 1)),
]
# The download script puts masks beside the compression levels, not below them.
MASKS = [
    "FF/manipulated_sequences/Deepfakes/masks/videos/000_003.mp4",
    "FF/manipulated_sequences/Face2Face/masks/frames/000_003/0.png",
    "FF/manipulated_sequences/Deepfakes/models/000_003/preview.png",
    f"{ff('Deepfakes', '000_003', kind='masks')}/0000.png",
]


def test_faceforensics_frames(toy):
    dataset = toy([*FRAMES, *MASKS])
    train = dataset.train
    assert sorted(train["item_id"]) == sorted(FRAMES)
    assert (train["label"] == train["item_id"].str.contains("manipulated")).all()
    assert set(train["domain"]) == {"youtube", "Deepfakes", "Face2Face"}
    assert set(train["group"]) == {"FaceForensics++/000", "FaceForensics++/001"}
    assert set(train.loc[train["group"] == "FaceForensics++/001", "item_id"]) == {
        path for path in FRAMES if path.split("/")[-2][:3] in ("001", "870")
    }
    assert dataset.masks.to_dict() == {f"{ff('Deepfakes', '000_003')}/0000.png": MASKS[-1]}
    assert dataset.ignored == {"masks and landmarks": 1, "masks of no train picture": 2}


def test_leaving_a_manipulation_out_leaks_no_person(toy):
    report = make_folds(toy(FRAMES), "lodo_unscanned")
    folds = report.folds
    assert report.domains == ("Deepfakes", "Face2Face")
    assert (folds.groupby("group")["fold"].nunique() == 1).all()
    # A manipulation keeps half of the people, with their originals; the other half is listed.
    assert folds["fold"].value_counts().to_dict() == {0: 8, 1: 8}
    assert len(report.excluded) == 8
    assert report.excluded["reason"].str.contains("spans domains").all()
    assert report.leaks[-1].items > 0  # what a split by domain alone would have leaked


def test_video_files_are_rows_of_their_own_kind_but_for_those_whose_frames_are_there(toy):
    names = [f"{ff(method, name, kind='videos')}.mp4"
             for method, name in (("youtube", "000"), ("Deepfakes", "000_003"))]  # fmt: skip
    train = toy([], {name: f"clip {name}" for name in names}).train
    assert train["kind"].tolist() == ["video", "video"]
    assert set(train["item_id"]) == set(names)
    assert train["group"].nunique() == 1
    dataset = toy(FRAMES)
    assert set(dataset.train["kind"]) == {"image"}
    assert dataset.ignored == {"videos whose frames are here too": 2}


def test_compression_level_is_chosen_and_said(toy):
    files = [f"{ff(m, v, level)}/0.png" for level in ("c23", "c40")
             for m, v in (("youtube", "000"), ("Deepfakes", "000_003"))]  # fmt: skip
    dataset = toy(files)
    assert dataset.train["path"].str.contains("/c23/").all()
    assert dataset.ignored == {"compression level c40": 2}
    assert any("compression level: c23; c40 left aside" in note for note in dataset.notes)
    other = toy(files, {"dataset.yaml": "compression: c40\n"})
    assert other.train["path"].str.contains("/c40/").all()
    with refused("level raw is not there, only c23, c40"):
        toy([], {"dataset.yaml": "compression: raw\n"})


def test_a_file_that_lies_elsewhere_is_named(toy):
    with refused(r"youtube/x.png: want original_sequences or .*METHOD.*ignore: "):
        toy([*FRAMES, "FF/original_sequences/youtube/x.png"])


def test_deepfake_detection_ties_actors(toy):
    files = [f"{ff('actors', f'{actor}__walk')}/0.png" for actor in ("01", "02", "05")]
    train = toy([*files, f"{ff('DeepFakeDetection', '01_02__walk__YVGY8LOK')}/0.png"]).train
    assert train["group"].value_counts().tolist() == [3, 1]


CELEB = [
    *(f"Celeb-real/id{i}_000{j}/0.png" for i in (0, 1) for j in (0, 1)),
    *(f"YouTube-real/0000{j}/0.png" for j in (0, 1)),
    "Celeb-synthesis/id0_id1_0000/0.png", "Celeb-synthesis/id0_id1_0001/0.png",
    "Celeb-synthesis/id1_id0_0000/0.png",
]  # fmt: skip
LIST = "List_of_testing_videos.txt"


def test_celeb_df_by_people_and_by_video(toy):
    dataset = toy(CELEB)
    train = dataset.train.set_index("item_id")
    assert (train["label"] == train.index.str.contains("synthesis")).all()
    assert set(train["domain"]) == {"Celeb-DF"}
    assert train["group"].value_counts().to_dict() == {
        "Celeb-DF/id0": 7, "Celeb-DF/00000": 1, "Celeb-DF/00001": 1,
    }  # fmt: skip
    assert any("chain 7 of 9 items into one group (Celeb-DF/id0)" in n for n in dataset.notes)
    with refused(r"'Celeb-DF/id0' alone holds 7 of 9 items.*group_by: video"):
        ensure_folds(dataset, "sgkf2_s0_unscanned")
    dataset = toy([], {"dataset.yaml": "group_by: video\n"})
    tied = dataset.train[dataset.train["group"] == "Celeb-DF/id0_0000"]["item_id"]
    assert set(tied) == {"Celeb-real/id0_0000/0.png", "Celeb-synthesis/id0_id1_0000/0.png"}
    assert not any("WARNING" in note for note in dataset.notes)
    ensure_folds(dataset, "sgkf2_s0_unscanned")


def test_celeb_df_test_list(toy):
    rows = "1 Celeb-real/id0_0000.mp4\n0 Celeb-synthesis/id0_id1_0000.mp4\n1 YouTube-real/9.mp4\n"
    dataset = toy(CELEB, {LIST: rows})
    assert dataset.test_labels is not None
    assert dataset.test_labels.to_dict() == {
        "Celeb-real/id0_0000/0.png": 0, "Celeb-synthesis/id0_id1_0000/0.png": 1,
    }  # fmt: skip
    assert len(dataset.train) == 7
    assert any("1 videos of List_of_testing_videos.txt are not here" in n for n in dataset.notes)
    with refused(f"{LIST}: row 1: '0 Celeb-real.*1 means real there"):
        toy([], {LIST: "0 Celeb-real/id0_0000.mp4\n"})


def test_two_versions_of_celeb_df_side_by_side(toy):
    files = [f"Celeb-DF-{v}/{path}" for v in ("v1", "v2") for path in CELEB]
    dataset = toy(files, {f"Celeb-DF-v1/{LIST}": "1 Celeb-real/id0_0000.mp4\n",
                          f"Celeb-DF-v2/{LIST}": "1 YouTube-real/00001.mp4\n"})  # fmt: skip
    assert any("12 real and 6 fake videos" in note for note in dataset.notes)
    assert set(dataset.test["item_id"]) == {
        "Celeb-DF-v1/Celeb-real/id0_0000/0.png", "Celeb-DF-v2/YouTube-real/00001/0.png",
    }  # fmt: skip
    same = dataset.train["item_id"].str.contains("id1_0000")
    assert set(dataset.train.loc[same, "group"]) == {"Celeb-DF/id0"}


def test_dfdc_parts_with_their_metadata(toy):
    texts = {f"part_{p}/{name}{p}.mp4": f"clip {p}{name}" for p in (0, 1) for name in "ab"}
    for p in (0, 1):
        rows = {
            f"{name}{p}.mp4": {"label": label, "split": "train", "original": original}
            for name, label, original in (("a", "REAL", None), ("b", "FAKE", f"a{p}.mp4"))
        }
        texts[f"part_{p}/metadata.json"] = json.dumps(rows)
    train = toy([], texts).train
    assert (len(train), train["label"].sum(), train["group"].nunique()) == (4, 2, 2)
    assert set(train["kind"]) == {"video"}


SIX = [("000", "003"), ("001", "870"), ("010", "011")]
SIX_FILES = [
    *(f"{ff('youtube', v)}/0.png" for pair in SIX for v in pair),
    *(f"{ff(m, f'{a}_{b}')}/0.png" for m in ("Deepfakes", "FaceSwap") for x, y in SIX
      for a, b in ((x, y), (y, x))),
]  # fmt: skip


@pytest.fixture
def published(toy):
    def load(**splits: list[list[str]]):
        return toy(SIX_FILES, {f"splits/{k}.json": json.dumps(v) for k, v in splits.items()})

    return load


def test_published_splits_hold_out_test_and_offer_train_and_val(published):
    splits = {name: [list(pair)] for name, pair in zip(("train", "val", "test"), SIX, strict=True)}
    dataset = published(**splits)
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


def test_videos_in_no_list_are_always_trained_on(published):
    dataset = published(train=[["000", "003"]], val=[["001", "870"]])
    assert dataset.given_folds is not None
    alone = dataset.given_folds[dataset.given_folds == -1].index
    assert set(alone) == {path for path in SIX_FILES if path.split("/")[-2][:3] in ("010", "011")}
    assert any("WARNING 6 videos stand in no list" in note for note in dataset.notes)


def test_lists_that_share_a_video_are_refused(published):
    with refused(r"val.json: video 003 stands in a list of train too"):
        published(train=[["000", "003"]], val=[["003", "870"]])
