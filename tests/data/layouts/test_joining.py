"""`combine:` makes one data set of several: ids, groups and domains say which is whose."""

import pytest

from src.cli.folds import main as folds_command
from src.data.folds.make import ensure_folds, make_folds
from src.data.folds.scan import scan_items
from src.data.layouts.load import load_dataset
from src.errors import UserError
from tests.data.conftest import refused

PLAIN = [f"train/{c}/{i}.png" for c in ("real", "fake") for i in range(4)] + ["test/t.png"]
DOMAINS = [f"{d}/{c}/{i}.jpg" for d in "ab" for c in ("real", "fake") for i in range(4)]


def make_both(make_dataset, yaml: str = "combine: [one, two]\n"):
    # Other seeds for the second, so that no two pictures are copies.
    make_dataset(PLAIN, name="one")
    root = make_dataset(["unused"] * len(PLAIN) + DOMAINS, name="two")
    (root / "unused").unlink()
    make_dataset([], {"dataset.yaml": yaml})


def test_ids_and_domains_carry_the_name_of_their_set(make_dataset):
    make_both(make_dataset)
    dataset = load_dataset("toy")
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


def test_groups_carry_it_too(make_dataset, toy):
    rows = "filename,label,video\na.png,real,v1\nb.png,fake,v1\n"
    for name in ("one", "two"):
        make_dataset(["train/a.png", "train/b.png"], {"train.csv": rows}, name=name)
    train = toy([], {"dataset.yaml": "combine: [one, two]\n"}).train
    assert train["group"].tolist() == ["one/v1", "one/v1", "two/v1", "two/v1"]


def test_domains_may_be_the_sets(make_dataset):
    make_both(make_dataset, "combine: [one, two]\ndomains: set\n")
    assert load_dataset("toy").train["domain"].value_counts().to_dict() == {"one": 8, "two": 16}


def test_leave_one_domain_out_over_sets(make_dataset, capsys):
    make_both(make_dataset)
    assert folds_command(["--data", "toy", "--scheme", "lodo"]) == 0
    printed = capsys.readouterr().out
    for fold, name in enumerate(("one", "two/a", "two/b")):
        line = next(x for x in printed.splitlines() if x.endswith(f"holds out {name}"))
        assert line.split()[:4] == [str(fold), "8", "4", "4"]
    assert "a split by domain alone would have leaked" in printed


def test_copies_between_sets_share_a_fold(make_dataset, artefact_root):
    make_both(make_dataset)
    home = artefact_root / "input"
    (home / "two/a/fake/copy.png").write_bytes((home / "one/train/fake/0.png").read_bytes())
    _, folds, _ = ensure_folds(load_dataset("toy"), "sgkf2_s0")
    pair = folds[folds["item_id"].isin(["one/fake/0.png", "two/a/fake/copy.png"])]
    assert len(pair) == 2
    assert pair["fold"].nunique() == 1


def test_a_set_without_domains_is_refused_leave_one_out(toy):
    with refused("scheme lodo wants a domain for each fake, and 4 of 4 have none; .*combine:"):
        ensure_folds(toy(PLAIN), "lodo")


@pytest.mark.parametrize(
    ("yaml", "match"),
    [
        ("combine: [toy]\n", "combine names the data set itself"),
        ("combine: [demo]\n", "combine names the demo"),
        ("combine: [one, twoo]\n", "unknown data set 'twoo'; did you mean 'two'"),
    ],
)
def test_sets_that_cannot_be_parts(make_dataset, yaml, match):
    make_both(make_dataset, yaml)
    with refused(match):
        load_dataset("toy")


def test_parts_have_no_parts(make_dataset):
    make_both(make_dataset)
    make_dataset([], {"dataset.yaml": "combine: [toy]\n"}, name="outer")
    with refused(r"toy is itself a part of outer \(combine\), so it may have no `combine:`"):
        load_dataset("outer")


def test_a_combined_set_has_no_files_of_its_own(make_dataset, toy):
    make_both(make_dataset)
    with refused("combines one, two, but the folder holds files of its own, such as stray.png"):
        toy(["stray.png"])


def test_missing_files_of_a_part_stop_the_whole(make_dataset, toy):
    make_both(make_dataset)
    record = {"D": {"DF_fake": {"train": {"a": {"label": "DF_fake", "frames": ["x/y/0.png"]}}}}}
    make_dataset([], {"D.json": str(record).replace("'", '"')}, name="three")
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


def swaps(make_dataset, yaml):
    pairs = [f"{k:03d}" for k in range(12)]
    for name, swap in (("one", "000_003"), ("two", "003_007")):
        make_dataset(
            [f"{name}_real/{k}.png" for k in pairs] + [f"{name}_fake/{swap}.png"], name=name
        )
        words = f"labels: {{{name}_real: 0, {name}_fake: 1}}\n"
        make_dataset([], {"dataset.yaml": words}, name=name)
    make_dataset([], {"dataset.yaml": yaml})


def test_one_published_video_is_one_group_in_all_sets(make_dataset):
    swaps(make_dataset, "combine: [one, two]\n")
    train = load_dataset("toy").train.set_index("item_id")["group"]
    together = {name.partition("/")[2]: group for name, group in train.items()}
    for name in ("one/one_real/000.png", "two/two_real/003.png", "one/one_real/007.png"):
        assert train[name] == train["one/one_fake/000_003.png"] == train["two/two_fake/003_007.png"]
    assert train["one/one_real/001.png"] == train["two/two_real/001.png"]
    assert together["one_real/001.png"] != train["one/one_real/000.png"]


def test_what_is_scored_is_not_among_the_extra_items(make_dataset, toy):
    make_dataset(["train/real/000.png", "train/real/010.png", "train/fake/000_003.png"])
    make_dataset(["train/real/003.png", "train/real/020.png", "train/fake/020_021.png"], name="two")
    dataset = toy([], {"dataset.yaml": "extra: [two]\n"})
    assert dataset.extra_ids == {"two/real/020.png", "two/fake/020_021.png"}
    assert any("1 left out, for they share a group" in note for note in dataset.notes)


@pytest.mark.parametrize("how", ["extra", "combine"])
@pytest.mark.parametrize("name", ["../outside", "two/../two", "."])
def test_a_part_is_a_name_no_path(make_dataset, how, name):
    root = make_dataset(["real/a.png", "fake/b.png"])
    outside = root.parents[1] / "outside"
    (outside / "real").mkdir(parents=True)
    (root / "dataset.yaml").write_text(f"{how}: [{name}]\n")
    if how == "combine":
        for picture in root.rglob("*.png"):
            picture.unlink()
    with pytest.raises(UserError, match=f"dataset.yaml: {how} .*want a plain name, no path"):
        load_dataset("toy")
