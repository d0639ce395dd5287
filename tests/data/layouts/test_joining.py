"""`combine:` makes one data set of several: ids, groups and domains say which is whose."""

import json

import pytest

from src.cli.folds import main as folds_command
from src.data.folds.make import ensure_folds, make_folds
from src.data.folds.scan import scan_items
from src.data.layouts.load import load_dataset
from tests.data.conftest import expand, picture, refused

PLAIN = expand("train/{real,fake}/{0,1,2,3}.png", "test/t.png")
DOMAINS = expand("{a,b}/{real,fake}/{0,1,2,3}.jpg")
COMBINE = {"dataset.yaml": "combine: [one, two]\n"}


@pytest.fixture
def make_both(make_dataset):
    # Other seeds for the second, so that no two pictures are copies.
    make_dataset(PLAIN, name="one")
    make_dataset({path: picture(100 + i) for i, path in enumerate(DOMAINS)}, name="two")


@pytest.mark.usefixtures("make_both")
def test_ids_and_domains_carry_the_name_of_their_set(toy, capsys):
    dataset = toy([], COMBINE)
    train = dataset.train
    assert sorted(train["item_id"]) == sorted(
        [f"one/{p.removeprefix('train/')}" for p in PLAIN[:-1]] + [f"two/{p}" for p in DOMAINS]
    )
    assert train["domain"].value_counts().to_dict() == {"one": 8, "two/a": 8, "two/b": 8}
    assert dataset.test.empty
    assert dataset.ignored == {"test items of one": 1}
    assert "combine: 8 train items of one (4 real, 4 fake)" in dataset.notes
    # The files of both are found from the folder that names them.
    assert (scan_items(dataset)["error"] == "").all()
    assert folds_command(["--data", "toy", "--scheme", "lodo"]) == 0
    printed = capsys.readouterr().out
    for fold, name in enumerate(("one", "two/a", "two/b")):
        line = next(x for x in printed.splitlines() if x.endswith(f"holds out {name}"))
        assert line.split()[:4] == [str(fold), "8", "4", "4"]
    assert "a split by domain alone would have leaked" in printed
    by_set = toy([], {"dataset.yaml": "combine: [one, two]\ndomains: set\n"})
    assert by_set.train["domain"].value_counts().to_dict() == {"one": 8, "two": 16}


def test_groups_carry_it_too(make_dataset, toy):
    rows = {"train.csv": "filename,label,video\na.png,real,v1\nb.png,fake,v1\n"}
    for name in ("one", "two"):
        make_dataset(["train/a.png", "train/b.png"], rows, name=name)
    train = toy([], COMBINE).train
    assert train["group"].tolist() == ["one/v1", "one/v1", "two/v1", "two/v1"]


@pytest.mark.usefixtures("make_both")
def test_copies_between_sets_share_a_fold(toy, artefact_root):
    home = artefact_root / "input"
    (home / "two/a/fake/copy.png").write_bytes((home / "one/train/fake/0.png").read_bytes())
    _, folds, _ = ensure_folds(toy([], COMBINE), "sgkf2_s0")
    pair = folds[folds["item_id"].isin(["one/fake/0.png", "two/a/fake/copy.png"])]
    assert len(pair) == 2
    assert len(set(pair["fold"])) == 1


def test_a_set_without_domains_is_refused_leave_one_out(toy):
    with refused("scheme lodo wants a domain for each fake, and 4 of 4 have none; .*combine:"):
        ensure_folds(toy(PLAIN), "lodo")


@pytest.mark.parametrize(
    ("yaml", "match"),
    [
        ("combine: [toy]\n", "combine names the data set itself"),
        ("combine: [one, twoo]\n", "unknown data set 'twoo'; did you mean 'two'"),
        (
            "combine: [outer]\n",
            r"outer is itself a part of toy \(combine\), so it may have no `com",
        ),
    ],
)
@pytest.mark.usefixtures("make_both")
def test_sets_that_cannot_be_parts(make_dataset, toy, yaml, match):
    make_dataset([], COMBINE, name="outer")
    with refused(match):
        toy([], {"dataset.yaml": yaml})


def test_the_demo_is_no_part(toy, monkeypatch, tmp_path):
    monkeypatch.setattr("src.data.demo.make.make_demo", lambda: tmp_path)
    with refused("combine names the demo"):
        toy([], {"dataset.yaml": "combine: [demo]\n"})


@pytest.mark.usefixtures("make_both")
def test_a_combined_set_has_no_files_of_its_own(toy):
    with refused("combines one, two, but the folder holds files of its own, such as stray.png"):
        toy(["stray.png"], COMBINE)


@pytest.mark.usefixtures("make_both")
def test_missing_files_of_a_part_stop_the_whole(make_dataset, toy):
    record = {"D": {"DF_fake": {"train": {"a": {"label": "DF_fake", "frames": ["x/y/0.png"]}}}}}
    make_dataset([], {"D.json": json.dumps(record)}, name="three")
    dataset = toy([], {"dataset.yaml": "combine: [one, three]\n"})
    assert dataset.missing == ("../three/x/y/0.png",)
    with refused("1 of the 9 files that it names are not there"):
        dataset.require_train()


@pytest.mark.real
def test_two_liveness_domains_and_dfdc_faces(make_dataset, shared_data, artefact_root):
    make_dataset([], {"dataset.yaml": "combine: [liveness, dfdc_faces]\n"})
    for part in ("liveness", "dfdc_faces"):
        (artefact_root / "input" / part).symlink_to(shared_data / part)
    report = make_folds(load_dataset("toy"), "lodo_unscanned")
    folds = report.folds
    assert report.domains == ("dfdc_faces", "liveness/print_a", "liveness/replay_b")
    assert folds.groupby("fold")["label"].agg(["size", "sum"]).to_numpy().tolist() == [
        [7001, 5856], [180, 90], [197, 98],
    ]  # fmt: skip
    assert (folds.groupby("group")["fold"].nunique() == 1).all()


def test_one_published_video_is_one_group_in_all_sets(make_dataset, toy):
    for name, swap in (("one", "000_003"), ("two", "003_007")):
        files = [f"{name}_real/{k:03d}.png" for k in range(12)] + [f"{name}_fake/{swap}.png"]
        yaml = f"labels: {{{name}_real: 0, {name}_fake: 1}}\n"
        make_dataset(files, {"dataset.yaml": yaml}, name=name)
    train = toy([], COMBINE).train.set_index("item_id")["group"]
    for name in ("one/one_real/000.png", "two/two_real/003.png", "one/one_real/007.png"):
        assert train[name] == train["one/one_fake/000_003.png"] == train["two/two_fake/003_007.png"]
    assert train["one/one_real/001.png"] == train["two/two_real/001.png"]
    assert train["one/one_real/001.png"] != train["one/one_real/000.png"]


def test_what_is_scored_is_not_among_the_extra_items(make_dataset, toy):
    make_dataset(expand("train/{real/003,real/020,fake/020_021}.png"), name="two")
    files = expand("train/{real/000,real/010,fake/000_003}.png")
    dataset = toy(files, {"dataset.yaml": "extra: [two]\n"})
    assert dataset.extra_ids == {"two/real/020.png", "two/fake/020_021.png"}
    assert any("1 left out, for they share a group" in note for note in dataset.notes)


@pytest.mark.parametrize("how", ["extra", "combine"])
@pytest.mark.parametrize("name", ["../outside", "two/../two", "."])
def test_a_part_is_a_name_no_path(toy, artefact_root, how, name):
    (artefact_root / "outside" / "real").mkdir(parents=True)
    files = ["real/a.png", "fake/b.png"] if how == "extra" else []
    with refused(f"dataset.yaml: {how} .*want a plain name, no path"):
        toy(files, {"dataset.yaml": f"{how}: [{name}]\n"})
