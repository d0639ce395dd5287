"""Names of the field's videos are tied as their papers say who is in them."""

import pytest

from src.data.folds.make import make_folds
from src.data.items.identities import (
    CELEB_DF,
    FACEFORENSICS,
    UADFV,
    family_of,
    group_sources,
    sources_of,
    tie_parts,
    tie_swaps,
    video_in,
)
from tests.data.conftest import expand


@pytest.mark.parametrize(
    ("dataset", "video", "identity", "clip"),
    [
        ("FaceForensics++", "000", ["000"], ["000"]),
        ("FF-F2F", "000_003", ["000", "003"], ["000"]),
        ("Celeb-DF-v2", "id0_0001", ["id0"], ["id0_0001"]),
        ("Celeb-DF-v1", "id0_id1_0001", ["id0", "id1"], ["id0_0001"]),
        ("Celeb-DF-v2", "00170", ["00170"], ["00170"]),
        ("DeepFakeDetection", "01__exit_phone_room", ["01"], ["01__exit_phone_room"]),
        ("DeepFakeDetection", "01_02__exit_phone_room__YVGY8LOK", ["01", "02"],
         ["01__exit_phone_room"]),
        ("UADFV", "0003_fake", ["0003"], ["0003"]),
        ("Mine", "000_003", ["000_003"], ["000_003"]),
    ],
)  # fmt: skip
def test_sources(dataset, video, identity, clip):
    assert sources_of(family_of(dataset), video) == identity
    assert sources_of(family_of(dataset), video, "video") == clip


def test_groups_join_through_others_but_not_across_families():
    ff, celeb = family_of("FF-DF"), family_of("Celeb-DF-v2")
    videos = [(ff, "000_003"), (ff, "003"), (ff, "000"), (ff, "001"), (celeb, "000"),
              (celeb, "id1_id2_0000"), (celeb, "id2_id3_0000"), (celeb, "id3_0004")]  # fmt: skip
    groups = group_sources((family, sources_of(family, name)) for family, name in videos)
    assert groups[:3] == ["FaceForensics++/000"] * 3
    assert groups[3:5] == ["FaceForensics++/001", "Celeb-DF/000"]
    assert groups[5:] == ["Celeb-DF/id1"] * 3
    clips = group_sources((family, sources_of(family, name, "video")) for family, name in videos)
    assert len(set(clips)) == 7


def test_swaps_in_plain_class_folders_are_tied_to_their_originals(toy):
    names = ["real/004", "real/634", "real/video", "fake/004_982", "fake/634_660", "fake/other"]
    groups = toy([f"train/{name}.mp4" for name in names]).items.set_index("item_id")["group"]
    assert groups["real/004.mp4"] == groups["fake/004_982.mp4"] != ""
    assert groups["real/634.mp4"] == groups["fake/634_660.mp4"] != groups["real/004.mp4"]
    assert groups["real/video.mp4"] == groups["fake/other.mp4"] == ""


def test_numbers_alone_are_no_swaps():
    assert tie_swaps(["001", "003_004"], [0, 1]) == {}
    assert tie_swaps(["001", "001"], [0, 1]) == {}
    assert tie_swaps(["001", "002", "002_001"], [0, 1, 1]) == {}
    assert tie_swaps(["001", "002_001"], [0, 1]) == dict.fromkeys((0, 1), "FaceForensics++/001")
    celeb = tie_swaps(["id0_0001", "id0_id1_0001", "id0_0002"], [0, 1, 0])
    assert celeb[0] == celeb[1] != celeb[2]


@pytest.mark.parametrize("frames", [1, 3])
def test_frames_of_swaps_in_flat_folders_are_tied_to_their_originals(toy, frames):
    names = [f"real/{k:03d}" for k in range(6)] + [f"fake/{k:03d}_{k + 1:03d}" for k in (0, 2, 4)]
    groups = toy([f"{name}_frame{n}.png" for name in names for n in range(frames)]).items["group"]
    assert groups.value_counts().to_dict() == {
        f"FaceForensics++/{k:03d}": 3 * frames for k in (0, 2, 4)
    }


@pytest.mark.parametrize("tail", [".mp4", "/000.png"])
def test_uadfv_as_downloaded_is_tied_to_its_originals(toy, tail):
    names = [f"{form.format(k)}{tail}" for form in ("real/{:04d}", "fake/{:04d}_fake")
             for k in range(12)]  # fmt: skip
    groups = toy(names, {"dataset.yaml": "subfolders: group\n"}).items["group"]
    assert groups.value_counts().to_dict() == {f"{k:04d}": 2 for k in range(12)}


def test_deepfake_detection_in_class_folders_is_tied_by_actors(toy):
    pairs = range(0, 12, 2)
    names = [f"real/{k:02d}__{{walk,talk}}.mp4" for k in range(12)]
    names += [f"fake/{k:02d}_{k + 1:02d}__{{walk,talk}}__ABCD1234.mp4" for k in pairs]
    dataset = toy(expand(*names))
    groups = dataset.items["group"]
    assert groups.value_counts().to_dict() == {f"DeepFakeDetection/{k:02d}": 6 for k in pairs}
    folds = make_folds(dataset, "sgkf3_s0_unscanned").folds
    assert (folds.groupby("group")["fold"].nunique() == 1).all()


def test_fakes_are_tied_to_a_real_of_the_same_name_alone():
    assert tie_swaps(["a", "a_fake", "b_fake", "c"], [0, 1, 1, 0]) == {0: "a", 1: "a"}
    assert tie_swaps(["a", "a_fake", "0001"], [0, 0, 1]) == {}
    assert tie_swaps(["a", "a"], [0, 1]) == {}


def test_fakes_are_tied_within_a_folder_alone(toy):
    items = toy(expand("d{0,1,2}/real/{0,1,2,3}.png", "d{0,1,2}/fake/{0,1,2,3}_fake.png")).items
    assert (items.groupby("group")["domain"].nunique() == 1).all()
    assert items["group"].value_counts().tolist() == [2] * 12


def test_given_folds_are_not_overruled_by_names(toy):
    names = [f"{k:04d}{tail}.png" for k in range(4) for tail in ("", "_fake")]
    rows = "".join(f"{name},{int('fake' in name)},{k // 2 % 2}\n" for k, name in
                   enumerate(names[1:] + names[:1]))  # fmt: skip
    dataset = toy([f"train/{n}" for n in names], {"train.csv": "filename,label,fold\n" + rows})
    assert (dataset.items["group"] == "").all()
    assert any("the given folds part some of them" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("family", "path", "video"),
    [
        (FACEFORENSICS, "original_sequences/youtube/c23/frames/024/000.png", "024"),
        (FACEFORENSICS, "x/c23/frames/024_025/014.png", "024_025"),
        (FACEFORENSICS, "fake/000_003.mp4", "000_003"),
        (FACEFORENSICS, "fake/other.mp4", None),
        (CELEB_DF, "frames/id0_id1_0001/00012.png", "id0_id1_0001"),
        (UADFV, "frames/0001/00012.png", None),
    ],
)
def test_the_video_of_a_path_is_its_folder_before_its_file(family, path, video):
    assert video_in(family, path) == video


def test_sets_of_frames_are_tied_by_video():
    frames = ["A/frames/000/000.png", "A/frames/001/000.png", "B/frames/000_002/001.png"]
    groups = [f"{FACEFORENSICS}/{one}" for one in ("000", "001", "000")]
    assert tie_parts(groups, frames) == groups


def test_families_grouped_by_clip_stay_so():
    paths = ["a/id0_0001.mp4", "a/id0_id1_0001.mp4", "b/id0_0002.mp4", "b/id1_id0_0003.mp4"]
    clips = [f"{CELEB_DF}/{one}" for one in ("id0_0001", "id0_0001", "id0_0002", "id1_0003")]
    assert tie_parts(clips, paths) == clips
    people = [f"{CELEB_DF}/id0"] * 3 + [f"{CELEB_DF}/id1"]
    assert set(tie_parts(people, paths)) == {f"{CELEB_DF}/id0"}
