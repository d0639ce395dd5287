"""DeepfakeBench's JSON: every nesting is read, every trap in it is named."""

import json

import pytest

from src.cli.data import main as data_command
from src.data.folds.make import make_folds
from tests.data.conftest import refused

FF = "FaceForensics++"
HOME = "T:\\Study\\datasets\\rgb\\"


def video(label: str, folder: str, frames=(0, 7)) -> dict:
    return {"label": label, "frames": [f"{folder}/{i:03d}.png" for i in frames]}


def ff_content(levels=("c23",)) -> dict:
    def of(label: str, method: str, names: list[str]) -> dict:
        top = "original_sequences" if method == "youtube" else "manipulated_sequences"
        home = f"{FF}/{top}/{method}/{{}}/frames/{{}}"
        return {lv: {n: video(label, home.format(lv, n)) for n in names} for lv in levels}

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


@pytest.fixture
def make(toy):
    def load(content: dict, *, on_disk: dict | None = None, yaml: str = "", drop=0):
        frames = sorted(set(all_frames(on_disk or content)))[drop:]
        texts = {"dataset.yaml": yaml} if yaml else {}
        return toy(frames, {"X.json": json.dumps(content), **texts})

    return load


def said(dataset, text: str) -> bool:
    return any(text in note for note in dataset.notes)


def test_levels_splits_groups_and_domains(make):
    both = ff_content(("c23", "c40"))
    dataset = make(both)
    train, test = dataset.train, dataset.test
    assert (len(train), len(test)) == (2 * 5, 2 * 2)
    assert train["path"].str.contains("/c23/").all()
    assert said(dataset, "compression level: c23; c40 left aside")
    assert train.groupby("domain")["label"].first().to_dict() == {
        "FF-real": 0, "FF-DF": 1, "FF-F2F": 1,
    }  # fmt: skip
    same = train[train["path"].str.contains("/000(?:_003)?/")]
    assert (len(same), set(same["group"])) == (6, {f"{FF}/000"})
    assert train["item_id"].is_unique
    # The truth of test items is kept apart.
    assert test["label"].isna().all()
    assert dataset.test_labels is not None
    assert dataset.test_labels.sum() == 2
    dataset.require_train()
    assert dataset.require_test().item_ids == sorted(test["item_id"])
    assert make(both, yaml="compression: c40\n").train["path"].str.contains("/c40/").all()
    with refused("compression level raw is not there, only c23, c40.*compression: c23"):
        make(both, yaml="compression: raw\n")


def test_back_slashes_and_the_folders_of_its_author(make):
    def to_windows(node: object) -> object:
        if not isinstance(node, dict):
            return node
        moved = {key: to_windows(value) for key, value in node.items()}
        if "frames" in node:
            moved["frames"] = [HOME + frame.replace("/", "\\") for frame in node["frames"]]
        return moved

    plain = ff_content()
    windows = to_windows(plain)
    assert isinstance(windows, dict)
    dataset = make(windows, on_disk=plain)
    assert dataset.missing == ()
    assert set(dataset.items["path"]) == set(all_frames(plain))
    assert said(dataset, "Study/datasets/rgb/")


def test_root_of_dataset_yaml(make):
    inside = set_of("UADFV", ["0"], ["1"], home="/old")
    moved = {"x": {"frames": [f.replace("/old", "new") for f in all_frames(inside)]}}
    dataset = make(inside, on_disk=moved, yaml="json: X.json\nroot: {from: /old, to: new}\n")
    assert set(dataset.train["path"]) == set(all_frames(moved))
    assert set(dataset.train["domain"]) == {"UADFV"}
    with refused(r"does not start with '/older' \(dataset.yaml: root.from"):
        make(inside, on_disk=moved, yaml="root: {from: /older, to: new}\n")


def test_missing_frames_are_listed_and_refused_or_passed_over(make, capsys):
    dataset = make(ff_content(), drop=3)
    assert len(dataset.missing) == 3
    with refused("3 of the 14 files that it names are not there, the first is .*missing_files"):
        dataset.require_train()
    assert data_command(["--data", "toy"]) == 0
    printed = capsys.readouterr().out
    for text in ("3 of 14 files are not there", dataset.missing[0], "nothing is trained"):
        assert text in printed
    dataset = make(ff_content(), drop=3, yaml="missing_files: ignore\n")
    assert len(dataset.require_train()) + len(dataset.test) == 11
    assert said(dataset, "3 files are named but not there")


def test_none_of_the_frames(toy):
    texts = {"X.json": json.dumps(ff_content()), "dataset.yaml": "missing_files: ignore\n"}
    with refused("none of the 14 files"):
        toy([], texts)


def test_overlapping_splits(make):
    content = ff_content()
    reals = content[FF]["FF-real"]
    reals["test"]["c23"]["000"] = reals["train"]["c23"]["000"]
    dataset = make(content)
    assert said(dataset, "1 videos in test+train, of 7")
    assert len(dataset.test) == 4
    held_out = make(content, yaml="overlap: test\nlabels: {FF-real: 0, x: 1}\n")
    assert len(held_out.test) == 6
    assert not set(held_out.test["path"]) & set(held_out.train["path"])


@pytest.mark.parametrize(("offer", "fakes"), [("{good: 0, fake: 1}", 0), ("{good: 1, real: 0}", 2)])
def test_an_unknown_label_and_the_lines_offered_for_it(make, offer, fakes):
    content = set_of("New", ["a"], ["b"])
    content["New"]["good"] = {"train": {"c": video("good", "r/f/c")}}
    with refused(f"unknown label in .*New > good > train > c: 'good'.*UADFV_Real.*labels: {offer}"):
        make(content)
    dataset = make(content, yaml=f"labels: {offer}\n")
    assert dataset.train["label"].sum() == 2 + fakes


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
        ({"U": {"DF_fake": {"train": {"a": {"frames": ["../../etc/passwd.png"]}}}}},
         r"train > a: frame '\.\./\.\./etc.*leads out of"),
        ({"U": {"DF_fake": {"train": {"a": {"frames": ["x\\..\\..\\y.png"]}}}}}, "leads out of"),
        ({"U": {"DF_fake": {"train": {"a": video("FF-real", "a/b")}}}},
         "DF_fake > train > a: label is 'FF-real', which contradicts"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_its_key_path(toy, content, match):
    with refused(match):
        toy(["a/b/0.png"], {"X.json": json.dumps(content)})


def test_videos_without_frames_are_named(make):
    content = ff_content()
    content[FF]["FF-DF"]["train"]["c23"]["002_005"] = {"label": "FF-DF", "frames": []}
    assert said(make(content), "1 videos have no frame, the first is 002_005")


def test_which_json_is_read(make, toy):
    other = {"info.json": '{"a": {"b": {"c": [1]}}}'}
    assert len(toy(["real/a.png", "fake/b.png"], other).train) == 2
    with refused("json in .*Y.json"):
        make(ff_content(), yaml="json: [Y.json]\n")


def two_versions(toy, videos: tuple[int, int], yaml: str = ""):
    """Load two sets of Celeb-DF of which only the second is there, without its top folder."""
    contents = {}
    for version, count in zip(("v1", "v2"), videos, strict=True):
        of = {}
        for kind, top, tail in (("real", "Celeb-real", ""), ("fake", "Celeb-synthesis", "_id9")):
            label, home = f"CelebDF{version}_{kind}", f"Celeb-DF-{version}/{top}/frames"
            names = [f"id{k}{tail}_0000" for k in range(count)]
            of[label] = {"train": {name: video(label, f"{home}/{name}") for name in names}}
        contents[f"{version}.json"] = {f"Celeb-DF-{version}": of}
    here = [f.replace("Celeb-DF-v2/", "", 1) for f in all_frames(contents["v2.json"])]
    texts = {name: json.dumps(content) for name, content in contents.items()}
    dataset = toy(here, texts | ({"dataset.yaml": yaml} if yaml else {}))
    return dataset, here, all_frames(contents["v1.json"])


def test_missing_frames_are_never_those_of_another_set(toy):
    # v1 has a video more, so that v2's frames fit v2.json better.
    dataset, here, others = two_versions(toy, (4, 3))
    assert set(dataset.missing) == set(others)
    train = dataset.train
    assert set(train.loc[train["domain"] == "Celeb-DF-v2", "item_id"]) == set(here)
    assert said(dataset, "v1.json begin with Celeb-DF-v1/")


def test_frames_that_fit_two_sets_equally_are_refused(toy):
    with refused("paths of two videos lead there, Celeb-DF-v1/.*v1.json.*Celeb-DF-v2/.*v2.json"):
        two_versions(toy, (3, 3))
    dataset, here, _ = two_versions(toy, (3, 3), "json: v2.json\n")
    assert (set(dataset.train["item_id"]), dataset.missing) == (set(here), ())


def test_paths_that_stand_there_in_full_go_first(toy):
    content = set_of("UADFV", ["0"], ["1"])
    far = video("DF_real", "old/UADFV/0/f/0")
    texts = {"X.json": content, "Y.json": {"D": {"DF_real": {"train": {"9": far}}}}}
    dataset = toy(all_frames(content), {name: json.dumps(text) for name, text in texts.items()})
    assert set(dataset.missing) == set(far["frames"])
    assert len(dataset.train) == 6


def test_one_frame_under_two_names_is_read_once_in_both_splits(make):
    content = ff_content()
    twin = content[FF]["FF-real"]["train"]["c23"]["001"]
    content[FF]["FF-real"]["test"]["c23"]["777"] = twin
    dataset = make(content)
    assert said(dataset, "1 videos name files of another one, the first are 777")
    assert said(dataset, "1 videos in test+train")
    assert set(twin["frames"]) <= set(dataset.train["item_id"])
    held_out = make(content, yaml="overlap: test\n")
    assert set(twin["frames"]) <= set(held_out.test["item_id"])


def test_a_video_that_stands_twice_is_refused(toy):
    text = json.dumps(ff_content())
    with refused("X.json: 1 keys stand twice in one object.*'000'"):
        toy(all_frames(ff_content()), {"X.json": text.replace('"001": {', '"000": {', 1)})


def test_val_is_pooled_and_said_and_kept_apart_on_request(make):
    content = {"UADFV": {}}
    for label, top in (("UADFV_Real", "real"), ("UADFV_Fake", "fake")):
        content["UADFV"][label] = {
            split: {k: video(label, f"U/{top}/{k}") for k in names}
            for split, names in (("train", "abc"), ("val", "de"), ("test", "f"))
        }
    dataset = make(content)
    assert said(dataset, "val: 8 items, pooled with train")
    folds = make_folds(dataset, "fixed_unscanned").folds
    assert (folds["fold"] == folds["item_id"].str.contains("/[abc]/")).all()
    assert len(folds) == 20


@pytest.mark.real
def test_uadfv_is_read_whole(toy, shared_data):
    text = (shared_data / "deepfakebench_json" / "UADFV.json").read_text()
    dataset = toy([], {"UADFV.json": text})
    # Counted from the file by hand: 49 + 49 videos, the same ones in three splits.
    content = json.loads(text)["UADFV"]
    frames = {f for of in content.values() for v in of["train"].values() for f in v["frames"]}
    assert set(dataset.items["item_id"]) == set(dataset.missing) == frames
    assert dataset.train.groupby("label")["group"].nunique().to_dict() == {0: 49, 1: 49}
    assert dataset.train["group"].nunique() == 49
    assert said(dataset, "98 videos in test+train+val, of 98")


@pytest.mark.real
def test_excerpt_with_windows_paths(toy, shared_data):
    text = (shared_data / "deepfakebench_json" / "FaceForensics++.excerpt.json").read_text()
    fake = json.dumps({FF: {"FF-DF": {"train": {"c23": {"001_870": video("FF-DF", "FF/a/b")}}}}})
    dataset = toy(["FF/a/b/000.png"], {"a.json": text, "b.json": fake})
    reals = dataset.train[dataset.train["label"] == 0]
    assert not reals["item_id"].str.contains("\\\\").any()
    assert reals["item_id"].str.endswith("/c23/frames/001/000.png").sum() == 1
    assert set(dataset.train.loc[reals.index, "group"]) == {f"{FF}/001", f"{FF}/002"}


def set_of(name: str, reals: list[str], fakes: list[str], ends=("_Real", "_Fake"), home="") -> dict:
    start = f"{home}/{name}" if home else name
    return {
        name: {
            f"{name}{end}": {
                "train": {v: video(f"{name}{end}", f"{start}/{k}/f/{v}") for v in names}
            }
            for k, (end, names) in enumerate(zip(ends, (reals, fakes), strict=True))
        }
    }


def groups_of(dataset) -> dict[str, str]:
    train = dataset.train
    keys = train["path"].str.split("/").map(lambda parts: f"{parts[0]} {parts[-2]}")
    return dict(zip(keys, train["group"], strict=True))


@pytest.mark.parametrize("ends", [("_Real", "_Fake"), ("_real", "_fake"), ("-real", "_synthesis")])
def test_a_set_of_any_name_is_tied_by_its_videos(make, ends):
    dataset = make(set_of("simswap_ff", ["000", "001", "002"], ["000_001", "003_002"], ends))
    groups = groups_of(dataset)
    assert dataset.train["label"].sum() == 4  # frames, two a video
    assert groups["simswap_ff 000"] == groups["simswap_ff 001"] == groups["simswap_ff 000_001"]
    assert groups["simswap_ff 002"] == groups["simswap_ff 003_002"] != groups["simswap_ff 000"]
    assert set(dataset.train["domain"]) == {"simswap_ff"}
    assert said(dataset, "5 videos of simswap_ff are named as face swaps")


def test_a_set_made_from_a_published_one_is_tied_to_its_videos(make):
    mine = set_of("mine", [], ["000_003", "870_001"])
    groups = groups_of(make(ff_content() | mine | set_of("like", ["5", "6"], ["5_fake", "7_fake"])))
    assert groups["mine 000_003"] == groups[f"{FF} 000"]
    assert groups["mine 870_001"] == groups[f"{FF} 001"]
    assert groups["like 5"] == groups["like 5_fake"] != groups["like 6"]


def test_numbers_of_a_set_that_are_no_swaps_stay_its_own(make):
    groups = groups_of(make(set_of("mine", ["000", "001"], ["000", "002"])))
    assert groups == {f"mine {k}": f"mine/{k}" for k in ("000", "001", "002")}
