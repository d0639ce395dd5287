"""frames_per_video: some frames of each video, evenly spaced over those that are there."""

import json

import pytest

from src.data.items.dataset_yaml import read_dataset_yaml
from src.data.layouts.load import load_dataset
from src.data.pixels.frames import choose_frames
from src.errors import UserError

FRAMES = [f"{number}.png" for number in range(1, 13)]  # as text: 1, 10, 11, 12, 2, ...
# The centres of equal parts of 1..12, by hand.
EVEN = {1: [7], 2: [4, 10], 3: [3, 7, 11], 4: [2, 5, 8, 11]}


@pytest.mark.parametrize("count", EVEN)
@pytest.mark.parametrize("name", ["v/{}.png", "v/frame_{:05d}.jpg", "v/{}_of_99.png"])
def test_frames_are_evenly_spaced_by_number(count, name):
    paths = sorted(name.format(number) for number in range(1, 13))
    assert choose_frames(paths, count) == [name.format(number) for number in EVEN[count]]


@pytest.mark.parametrize("count", [None, 12, 99])
def test_all_frames_where_there_are_no_more(count):
    assert sorted(choose_frames(FRAMES, count)) == sorted(FRAMES)


def numbers(items) -> dict[str, list[int]]:
    """Return the frames of each video."""
    found: dict[str, list[int]] = {}
    for path in items["path"]:
        video, _, name = path.rpartition("/")
        found.setdefault(video, []).append(int(name.removesuffix(".png")))
    return {video: sorted(some) for video, some in found.items()}


YAML = "frames_per_video: {train: 2, test: 3}\n"


@pytest.mark.parametrize("named", [False, True])
def test_of_folders_below_the_classes(make_dataset, named):
    clips = ["train/real/a", "train/fake/b", *(f"test/{'real/' * named}{c}" for c in "cd")]
    make_dataset([f"{clip}/{frame}" for clip in clips for frame in FRAMES] + ["train/real/x.png"],
                 {"dataset.yaml": "subfolders: group\n" + YAML})  # fmt: skip
    dataset = load_dataset("toy")
    train = dataset.train[~dataset.train["path"].str.endswith("x.png")]
    assert numbers(train) == dict.fromkeys(sorted(clips[:2]), EVEN[2])
    assert len(train) == len(dataset.train) - 1
    assert numbers(dataset.test) == dict.fromkeys(clips[2:], EVEN[3])
    assert dataset.ignored["frames beyond frames_per_video"] == 2 * 10 + 2 * 9
    assert dataset.require_test().item_ids == dataset.test["item_id"].tolist()


def test_of_folders_that_lists_name(make_dataset):
    make_dataset(
        [f"all/{clip}/{frame}" for clip in "abc" for frame in FRAMES],
        {"train.txt": "a 0\nb 1\n", "test.txt": "all/c 1\n", "dataset.yaml": YAML},
    )
    dataset = load_dataset("toy")
    assert numbers(dataset.train) == {"all/a": EVEN[2], "all/b": EVEN[2]}
    assert numbers(dataset.test) == {"all/c": EVEN[3]}
    assert dataset.ignored["frames beyond frames_per_video"] == 2 * 10 + 9


@pytest.mark.parametrize("given", ["{train: 2, test: 3}", "{train: 2}", "2"])
def test_of_deepfakebench_json(make_dataset, given):
    videos = {
        label: {
            split: {
                f"{label}{split}": {
                    "label": label,
                    "frames": sorted(f"f\\{label}\\{split}\\{frame}" for frame in FRAMES),
                }
            }
            for split in ("train", "val", "test")
        }
        for label in ("UADFV_Real", "UADFV_Fake")
    }
    make_dataset(
        [f"f/{label}/{split}/{f}" for label, of in videos.items() for split in of for f in FRAMES],
        {"UADFV.json": json.dumps({"UADFV": videos}), "dataset.yaml": f"frames_per_video: {given}"},
    )
    dataset = load_dataset("toy")
    assert set(map(tuple, numbers(dataset.train).values())) == {tuple(EVEN[2])}
    tests = {"2": EVEN[2], "{train: 2}": list(range(1, 13))}.get(given, EVEN[3])
    assert list(numbers(dataset.test).values()) == [tests, tests]


@pytest.mark.parametrize("missing", ["error", "ignore"])
def test_of_frames_that_are_there(make_dataset, missing):
    frames = {"UADFV_Real": range(1, 13), "UADFV_Fake": range(1, 25)}
    videos = {
        label: {"train": {label: {"label": label, "frames": [f"{label}/{i}.png" for i in of]}}}
        for label, of in frames.items()
    }
    make_dataset(
        [f"{label}/{frame}" for label in frames for frame in FRAMES],
        {"UADFV.json": json.dumps({"UADFV": videos}),
         "dataset.yaml": f"{YAML}missing_files: {missing}\n"},
    )  # fmt: skip
    dataset = load_dataset("toy")
    there = dataset.train[~dataset.train["path"].isin(dataset.missing)]
    assert numbers(there) == {"UADFV_Fake": EVEN[2], "UADFV_Real": EVEN[2]}
    assert len(dataset.missing) == (12 if missing == "error" else 0)


def test_of_the_frames_of_a_published_set(make_dataset):
    homes = {"original_sequences/youtube": "000", "manipulated_sequences/Deepfakes": "000_003"}
    make_dataset(
        [f"{home}/c23/frames/{clip}/{f}" for home, clip in homes.items() for f in FRAMES],
        {"dataset.yaml": YAML},
    )
    assert list(numbers(load_dataset("toy").train).values()) == [EVEN[2], EVEN[2]]


@pytest.mark.parametrize("value", ["0", "x", "[1, 2]", "{train: 0}", "{val: 3}", "{}", "1.5"])
def test_other_values_are_refused(tmp_path, value):
    (tmp_path / "dataset.yaml").write_text(f"frames_per_video: {value}\n")
    with pytest.raises(UserError, match=r"dataset\.yaml: frames_per_video"):
        read_dataset_yaml(tmp_path)
