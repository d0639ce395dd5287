"""DeepfakeBench's JSON: every nesting is read, every trap in it is named."""

import json

import pytest

from src.cli.data import main as data_command
from src.data.folds.make import make_folds
from src.data.layouts.load import load_dataset
from src.errors import UserError

FF = "FaceForensics++"
HOME = "T:\\Study\\datasets\\rgb\\"


def refused(match: str):
    return pytest.raises(UserError, match=f"(?s){match}")


def video(label: str, folder: str, frames=(0, 7)) -> dict:
    return {"label": label, "frames": [f"{folder}/{i:03d}.png" for i in frames]}


def ff_path(method: str, level: str, name: str) -> str:
    top = "original_sequences" if method == "youtube" else "manipulated_sequences"
    return f"{FF}/{top}/{method}/{level}/frames/{name}"


def ff_content(levels=("c23", "c40")) -> dict:
    def of(label: str, method: str, names: list[str]) -> dict:
        return {lv: {n: video(label, ff_path(method, lv, n)) for n in names} for lv in levels}

    return {
        FF: {
            "FF-real": {"train": of("FF-real", "youtube", ["000", "001"]),
                        "test": of("FF-real", "youtube", ["010"])},
            "FF-DF": {"train": of("FF-DF", "Deepfakes", ["000_003", "001_870"]),
                      "test": of("FF-DF", "Deepfakes", ["010_011"])},
            "FF-F2F": {"val": of("FF-F2F", "Face2Face", ["000_003"])},
        }
    }  # fmt: skip


def all_frames(node: object) -> list[str]:
    if isinstance(node, dict):
        found = [all_frames(v) for k, v in node.items() if k != "frames"]
        return [*(f for part in found for f in part), *node.get("frames", [])]
    return []


def make(make_dataset, content: dict, *, on_disk: dict | None = None, yaml: str = "", drop=0):
    frames = sorted(set(all_frames(on_disk or content)))[drop:]
    texts = {"X.json": json.dumps(content)} | ({"dataset.yaml": yaml} if yaml else {})
    make_dataset(frames, texts)
    return load_dataset("toy")


def test_levels_splits_groups_and_domains(make_dataset):
    dataset = make(make_dataset, ff_content())
    train, test = dataset.train, dataset.test
    assert len(train) == 2 * 5
    assert len(test) == 2 * 2
    assert train["path"].str.contains("/c23/").all()
    assert any("compression level: c23; c40 left aside" in note for note in dataset.notes)
    assert train.groupby("domain")["label"].first().to_dict() == {
        "FF-real": 0, "FF-DF": 1, "FF-F2F": 1,
    }  # fmt: skip
    same = train[train["path"].str.contains("/000(?:_003)?/")]
    assert len(same) == 6
    assert set(same["group"]) == {f"{FF}/000"}
    assert train["item_id"].is_unique
    # The truth of test items is kept apart.
    assert test["label"].isna().all()
    assert dataset.test_labels is not None
    assert dataset.test_labels.sum() == 2
    dataset.require_train()
    assert dataset.require_test().item_ids == sorted(test["item_id"])


def test_level_of_dataset_yaml(make_dataset):
    dataset = make(make_dataset, ff_content(), yaml="compression: c40\n")
    assert dataset.train["path"].str.contains("/c40/").all()


def test_unknown_level_lists_those_there(make_dataset):
    with refused("compression level raw is not there, only c23, c40.*compression: c23"):
        make(make_dataset, ff_content(), yaml="compression: raw\n")


def test_back_slashes_and_the_folders_of_its_author(make_dataset):
    plain = ff_content(("c23",))
    text = (
        json.dumps(plain).replace(f'["{FF}', f'["{HOME}{FF}').replace(f' "{FF}/', f' "{HOME}{FF}/')
    )
    windows = json.loads(text.replace("\\", "\\\\"))
    for frame in all_frames(windows):
        assert frame.startswith("T:\\")
    for node in (windows,):
        _to_backslashes(node)
    dataset = make(make_dataset, windows, on_disk=plain)
    assert dataset.missing == ()
    assert set(dataset.items["path"]) == set(all_frames(plain))
    assert any("Study/datasets/rgb/" in note for note in dataset.notes)


def _to_backslashes(node: object) -> None:
    if isinstance(node, dict):
        if "frames" in node:
            node["frames"] = [frame.replace("/", "\\") for frame in node["frames"]]
        for value in node.values():
            _to_backslashes(value)


def test_root_of_dataset_yaml(make_dataset):
    real, fake = video("UADFV_Real", "/old/real/0"), video("UADFV_Fake", "/old/fake/1")
    inside = {"UADFV": {"UADFV_Real": {"train": {"0": real}}, "UADFV_Fake": {"train": {"1": fake}}}}
    moved = {"x": {"frames": [f.replace("/old", "new") for f in all_frames(inside)]}}
    dataset = make(
        make_dataset, inside, on_disk=moved, yaml="json: X.json\nroot: {from: /old, to: new}\n"
    )
    assert set(dataset.train["path"]) == set(all_frames(moved))
    assert set(dataset.train["domain"]) == {"UADFV"}
    with refused(r"does not start with '/older' \(dataset.yaml: root.from"):
        make(make_dataset, inside, on_disk=moved, yaml="root: {from: /older, to: new}\n")


def test_missing_frames_are_listed_and_training_is_refused(make_dataset, capsys):
    dataset = make(make_dataset, ff_content(("c23",)), drop=3)
    assert len(dataset.missing) == 3
    with refused("3 of the 14 files that it names are not there, the first is .*missing_files"):
        dataset.require_train()
    assert data_command(["--data", "toy"]) == 0
    printed = capsys.readouterr().out
    assert "3 of 14 files are not there" in printed
    assert dataset.missing[0] in printed
    assert "nothing is trained" in printed


def test_missing_frames_may_be_passed_over(make_dataset):
    content = ff_content(("c23",))
    dataset = make(make_dataset, content, drop=3, yaml="missing_files: ignore\n")
    assert len(dataset.items) == 11
    assert any("3 files are named but not there" in note for note in dataset.notes)
    dataset.require_train()


def test_none_of_the_frames(make_dataset):
    texts = {"X.json": json.dumps(ff_content(("c23",))), "dataset.yaml": "missing_files: ignore\n"}
    make_dataset([], texts)
    with refused("none of the 14 files"):
        load_dataset("toy")


def test_overlapping_splits(make_dataset):
    content = ff_content(("c23",))
    both = dict(list(content[FF]["FF-real"]["train"]["c23"].items())[:1])
    content[FF]["FF-real"]["test"]["c23"] |= both
    dataset = make(make_dataset, content)
    assert any("1 videos in test+train, of 7" in note for note in dataset.notes)
    assert len(dataset.test) == 4
    held_out = make(make_dataset, content, yaml="overlap: test\nlabels: {FF-real: 0, x: 1}\n")
    assert len(held_out.test) == 6
    assert not set(held_out.test["path"]) & set(held_out.train["path"])


def test_unknown_label_and_its_way_out(make_dataset):
    content = {"New": {"good": {"train": {"a": video("good", "r/f/a")}},
                       "swapped": {"train": {"b": video("swapped", "r/f/b")}}}}  # fmt: skip
    with refused("unknown label in .*New > good > train > a: 'good'.*UADFV_Real.*labels:"):
        make(make_dataset, content)
    dataset = make(make_dataset, content, yaml="labels: {good: 0, swapped: 1}\n")
    assert dataset.train["label"].sum() == 2


def test_contradicting_label(make_dataset):
    content = ff_content(("c23",))
    content[FF]["FF-DF"]["train"]["c23"]["000_003"]["label"] = "FF-real"
    with refused("FF-DF > train > c23 > 000_003: label is 'FF-real', which contradicts"):
        make(make_dataset, content)


@pytest.mark.parametrize(
    ("frame", "match"),
    [
        ("../../etc/passwd.png", r"train > a: frame '\.\./\.\./etc.*leads out of"),
        ("x\\..\\..\\y.png", r"leads out of"),
    ],
)
def test_path_escapes(make_dataset, frame, match):
    record = {"label": "DF_fake", "frames": [frame]}
    content = {"D": {"DF_fake": {"train": {"a": record}}}}
    with refused(match):
        make_dataset(["DF/real/x.png"], {"X.json": json.dumps(content)})
        load_dataset("toy")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"UADFV_Real": {"train": {"0": video("UADFV_Real", "a/b")}}},
         "UADFV_Real > train > 0: wrong nesting, want one of train, val, test"),
        ({"U": {"UADFV_Real": {"train": {"c23": {"x": {"y": {"frames": []}}}}}}},
         "UADFV_Real > train > c23 > x: wrong nesting, want a video.*keys y"),
        ({"U": {"UADFV_Real": {"train": ["a"]}}},
         "U > UADFV_Real > train: wrong nesting, want .*found list"),
        ({"U": {"UADFV_Real": {"train": {"a": {"frames": [1]}}}}},
         "U > UADFV_Real > train > a: frames is no list of paths"),
    ],
)  # fmt: skip
def test_wrong_nesting_names_the_key_path(make_dataset, content, match):
    make_dataset(["a/b/0.png"], {"X.json": json.dumps(content)})
    with refused(match):
        load_dataset("toy")


def test_videos_without_frames_are_named(make_dataset):
    content = ff_content(("c23",))
    content[FF]["FF-DF"]["train"]["c23"]["002_005"] = {"label": "FF-DF", "frames": []}
    dataset = make(make_dataset, content)
    assert any("1 videos have no frame, the first is 002_005" in note for note in dataset.notes)


def test_other_json_is_left_to_others(make_dataset):
    make_dataset(["real/a.png", "fake/b.png"], {"info.json": '{"a": {"b": {"c": [1]}}}'})
    assert len(load_dataset("toy").train) == 2


def test_unknown_json_name(make_dataset):
    with refused("json in .*Y.json"):
        make(make_dataset, ff_content(), yaml="json: [Y.json]\n")


def celeb(version: str, videos: int) -> dict:
    home = f"Celeb-DF-{version}"

    def of(kind: str, top: str, tail: str) -> dict:
        name = f"CelebDF{version}_{kind}"
        names = [f"id{k}{tail}_0000" for k in range(videos)]
        return {name: {"train": {n: video(name, f"{home}/{top}/frames/{n}") for n in names}}}

    return {home: of("real", "Celeb-real", "") | of("fake", "Celeb-synthesis", "_id9")}


def two_versions(make_dataset, videos: tuple[int, int], home: str, yaml: str = ""):
    contents = {f"v{k}.json": celeb(f"v{k}", n) for k, n in zip((1, 2), videos, strict=True)}
    here = [f.replace("Celeb-DF-v2/", home, 1) for f in all_frames(contents["v2.json"])]
    texts = {name: json.dumps(content) for name, content in contents.items()}
    make_dataset(here, texts | ({"dataset.yaml": yaml} if yaml else {}))
    return here, all_frames(contents["v1.json"])


def test_missing_frames_are_never_those_of_another_set(make_dataset):
    # v1 has a video more, so that v2's frames fit v2.json better.
    here, others = two_versions(make_dataset, (4, 3), "")
    dataset = load_dataset("toy")
    assert set(dataset.missing) == set(others)
    train = dataset.train
    assert set(train.loc[train["domain"] == "Celeb-DF-v2", "item_id"]) == set(here)
    assert any("v1.json begin with Celeb-DF-v1/" in note for note in dataset.notes)


def test_frames_that_fit_two_sets_equally_are_refused(make_dataset):
    here, _ = two_versions(make_dataset, (3, 3), "")
    with refused("paths of two videos lead there, Celeb-DF-v1/.*v1.json.*Celeb-DF-v2/.*v2.json"):
        load_dataset("toy")
    two_versions(make_dataset, (3, 3), "", "json: v2.json\n")
    dataset = load_dataset("toy")
    assert set(dataset.train["item_id"]) == set(here)
    assert dataset.missing == ()


def test_paths_that_stand_there_in_full_go_first(make_dataset):
    real, fake = video("UADFV_Real", "a/real/f/0"), video("UADFV_Fake", "a/fake/f/0")
    far = video("DF_real", "old/a/real/f/0")
    content = {
        "UADFV": {"UADFV_Real": {"train": {"0": real}}, "UADFV_Fake": {"train": {"0": fake}}}
    }
    make_dataset(all_frames(content), {"X.json": json.dumps(content),
                 "Y.json": json.dumps({"D": {"DF_real": {"train": {"9": far}}}})})  # fmt: skip
    dataset = load_dataset("toy")
    assert set(dataset.missing) == set(far["frames"])
    assert len(dataset.train) == 6


def test_one_frame_under_two_names_is_read_once_in_both_splits(make_dataset):
    content = ff_content(("c23",))
    twin = content[FF]["FF-real"]["train"]["c23"]["001"]
    content[FF]["FF-real"]["test"]["c23"]["777"] = twin
    dataset = make(make_dataset, content)
    assert any("1 videos name files of another one, the first are 777" in n for n in dataset.notes)
    assert any("1 videos in test+train" in n for n in dataset.notes)
    assert set(twin["frames"]) <= set(dataset.train["item_id"])
    held_out = make(make_dataset, content, yaml="overlap: test\n")
    assert set(twin["frames"]) <= set(held_out.test["item_id"])


def test_a_video_that_stands_twice_is_refused(make_dataset):
    text = json.dumps(ff_content(("c23",)))
    twice = text.replace('"001": {', '"000": {', 1)
    make_dataset(all_frames(ff_content(("c23",))), {"X.json": twice})
    with refused("X.json: 1 keys stand twice in one object.*'000'"):
        load_dataset("toy")


def test_val_is_pooled_and_said_and_kept_apart_on_request(make_dataset):
    content = {"UADFV": {}}
    for label, top in (("UADFV_Real", "real"), ("UADFV_Fake", "fake")):
        content["UADFV"][label] = {
            split: {k: video(label, f"U/{top}/{k}") for k in names}
            for split, names in (("train", "abc"), ("val", "de"), ("test", "f"))
        }
    dataset = make(make_dataset, content)
    assert any("val: 8 items, pooled with train" in note for note in dataset.notes)
    folds = make_folds(dataset, "fixed_unscanned").folds
    assert (folds["fold"] == folds["item_id"].str.contains("/[abc]/")).all()
    assert len(folds) == 20


@pytest.mark.real
def test_uadfv_is_read_whole(make_dataset, shared_data):
    source = shared_data / "deepfakebench_json" / "UADFV.json"
    make_dataset([], {"UADFV.json": source.read_text()})
    dataset = load_dataset("toy")
    # Counted from the file by hand: 49 + 49 videos, the same ones in three splits.
    content = json.loads(source.read_text())["UADFV"]
    frames = {f for of in content.values() for v in of["train"].values() for f in v["frames"]}
    assert set(dataset.items["item_id"]) == frames
    assert set(dataset.missing) == frames
    assert dataset.train.groupby("label")["group"].nunique().to_dict() == {0: 49, 1: 49}
    assert dataset.train["group"].nunique() == 49
    assert any("98 videos in test+train+val, of 98" in note for note in dataset.notes)


@pytest.mark.real
def test_excerpt_with_windows_paths(make_dataset, shared_data):
    text = (shared_data / "deepfakebench_json" / "FaceForensics++.excerpt.json").read_text()
    fake = json.dumps({FF: {"FF-DF": {"train": {"c23": {"001_870": video("FF-DF", "FF/a/b")}}}}})
    make_dataset(["FF/a/b/000.png"], {"a.json": text, "b.json": fake})
    dataset = load_dataset("toy")
    reals = dataset.train[dataset.train["label"] == 0]
    assert not reals["item_id"].str.contains("\\\\").any()
    assert reals["item_id"].str.endswith("/c23/frames/001/000.png").sum() == 1
    assert set(dataset.train.loc[reals.index, "group"]) == {f"{FF}/001", f"{FF}/002"}


def set_of(name: str, reals: list[str], fakes: list[str], ends=("_Real", "_Fake")) -> dict:
    videos = {
        f"{name}{end}": {"train": {v: video(f"{name}{end}", f"{name}/{k}/f/{v}") for v in names}}
        for k, (end, names) in enumerate(zip(ends, (reals, fakes), strict=True))
    }
    return {name: videos}


def groups_of(dataset) -> dict[str, str]:
    train = dataset.train
    keys = train["path"].str.split("/").map(lambda parts: f"{parts[0]} {parts[-2]}")
    return dict(zip(keys, train["group"], strict=True))


@pytest.mark.parametrize("ends", [("_Real", "_Fake"), ("_real", "_fake"), ("-real", "_synthesis")])
def test_a_set_of_any_name_is_tied_by_its_videos(make_dataset, ends):
    content = set_of("simswap_ff", ["000", "001", "002"], ["000_001", "003_002"], ends)
    dataset = make(make_dataset, content)
    groups = groups_of(dataset)
    assert dataset.train["label"].sum() == 4  # frames, two a video
    assert groups["simswap_ff 000"] == groups["simswap_ff 001"] == groups["simswap_ff 000_001"]
    assert groups["simswap_ff 002"] == groups["simswap_ff 003_002"] != groups["simswap_ff 000"]
    assert set(dataset.train["domain"]) == {"simswap_ff"}
    assert any("5 videos of simswap_ff are named as face swaps" in n for n in dataset.notes)


def test_a_set_made_from_a_published_one_is_tied_to_its_videos(make_dataset):
    mine = set_of("mine", [], ["000_003", "870_001"])
    content = ff_content(("c23",)) | mine | set_of("uadfv_like", ["5", "6"], ["5_fake", "7_fake"])
    groups = groups_of(make(make_dataset, content))
    assert groups["mine 000_003"] == groups[f"{FF} 000"]
    assert groups["mine 870_001"] == groups[f"{FF} 001"]
    assert groups["uadfv_like 5"] == groups["uadfv_like 5_fake"] != groups["uadfv_like 6"]


def test_numbers_of_a_set_that_are_no_swaps_stay_its_own(make_dataset):
    groups = groups_of(make(make_dataset, set_of("mine", ["000", "001"], ["000", "002"])))
    assert groups == {f"mine {k}": f"mine/{k}" for k in ("000", "001", "002")}


@pytest.mark.parametrize(("offer", "fakes"), [("{good: 0, fake: 1}", 0), ("{good: 1, real: 0}", 2)])
def test_the_lines_offered_for_a_label_do_what_they_say(make_dataset, offer, fakes):
    content = set_of("New", ["a"], ["b"])
    content["New"]["good"] = {"train": {"c": video("good", "r/f/c")}}
    with refused(f"'good'.*`labels: {offer}`"):
        make(make_dataset, content)
    dataset = make(make_dataset, content, yaml=f"labels: {offer}\n")
    assert dataset.train["label"].sum() == 2 + fakes
