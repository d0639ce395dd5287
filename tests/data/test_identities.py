"""Names of the field's videos are tied as their papers say who is in them."""

import pytest

from src.data.identities import family_of, group_videos, sources_of, tie_swaps
from src.data.layouts import load_dataset


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
    groups = group_videos(videos)
    assert groups[:3] == ["FaceForensics++/000"] * 3
    assert groups[3:5] == ["FaceForensics++/001", "Celeb-DF/000"]
    assert groups[5:] == ["Celeb-DF/id1"] * 3
    assert len(set(group_videos(videos, "video"))) == 7


def test_swaps_in_plain_class_folders_are_tied_to_their_originals(make_dataset):
    names = ["real/004", "real/634", "real/video", "fake/004_982", "fake/634_660", "fake/other"]
    make_dataset([f"train/{name}.mp4" for name in names])
    groups = load_dataset("toy").items.set_index("item_id")["group"]
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
