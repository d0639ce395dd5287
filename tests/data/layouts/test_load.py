"""Every layout of the issue is understood; every ambiguity is an error with a way out."""

import json

import pandas as pd
import pytest

from src.data.items.files import read_bytes
from src.data.items.manifest import COLUMNS
from src.data.layouts.load import load_dataset
from tests.data.conftest import refused

FOUR = ["real/a.png", "real/b.png", "fake/a.png", "fake/c.png"]
TRAIN = [f"train/{p}" for p in FOUR]


def labels(dataset) -> dict[str, int]:
    train = dataset.train
    return dict(zip(train["item_id"], train["label"].astype(int), strict=True))


def test_manifest_has_the_columns_and_types_of_the_design(toy):
    dataset = toy([*TRAIN, "test/images/t.png"])
    items = dataset.items
    assert list(items.columns) == COLUMNS
    assert items["label"].dtype == "Int8"
    assert items.loc[items["split"] == "test", "label"].isna().all()
    assert items["width"].isna().all()
    assert (items["kind"] == "image").all()
    found = [len(read_bytes(dataset.root, path)) for path in items["path"]]
    assert found == items["bytes"].tolist()


@pytest.mark.parametrize("top", ["train/", "", "archive/real_vs_fake/", "archive/train/"])
def test_class_folders(toy, top):
    dataset = toy([top + path for path in FOUR])
    assert labels(dataset) == {"fake/a.png": 1, "fake/c.png": 1, "real/a.png": 0, "real/b.png": 0}
    assert dataset.submission is None
    with refused("no test items.*--checkpoint"):
        dataset.require_test()


@pytest.mark.parametrize(
    ("real", "fake", "yaml"),
    [("REAL", "FAKE", ""), ("real_images", "fake_images", ""), ("bonafide", "spoof", ""),
     ("Live", "Attack", ""), ("0", "1", ""), ("training_real", "training_fake", ""),
     ("genuine", "AI-generated", ""), ("calm", "teasing", "labels: {teasing: 1, calm: 0}\n")],
)  # fmt: skip
def test_words_for_the_classes(toy, real, fake, yaml):
    dataset = toy([f"train/{real}/a.png", f"train/{fake}/b.png"], {"dataset.yaml": yaml})
    assert labels(dataset) == {f"{fake}/b.png": 1, f"{real}/a.png": 0}


@pytest.mark.parametrize("top", ["train/", ""])
def test_zips_in_place(toy, top):
    sample = {"sample_submission.csv": "id,answer\n007,0\n"}
    zips = {"train.zip": [top + path for path in FOUR], "test.zip": ["images/007.png"]}
    dataset = toy({}, sample, zips=zips)
    assert len(labels(dataset)) == 4
    assert dataset.test["item_id"].tolist() == ["007"]
    assert dataset.test["path"].tolist() == ["test.zip!/images/007.png"]
    layout = dataset.require_test()
    assert (layout.id_column, layout.answer_column) == ("id", "answer")
    # The fingerprint follows content, not place.
    assert load_dataset("toy").sha256 == dataset.sha256
    zips["train.zip"].append(f"{top}fake/d.png")
    assert toy({}, zips=zips).sha256 != dataset.sha256


def test_two_zips_are_two_domains(toy):
    dataset = toy({}, zips={"print_a.zip": [f"print_a/{p}" for p in FOUR], "replay_b.zip": FOUR})
    assert sorted(set(dataset.items["domain"])) == ["print_a", "replay_b"]
    assert dataset.items["item_id"].is_unique


def test_labels_of_test_are_kept_apart_and_val_is_pooled_with_train(toy):
    dataset = toy([f"{split}/{path}" for split in ("train", "val", "test") for path in FOUR])
    assert dataset.test["label"].isna().all()
    assert dataset.test_labels is not None
    assert dataset.test_labels.to_dict() == {path: int("fake" in path) for path in sorted(FOUR)}
    assert {"real/a.png", "val/real/a.png"} <= set(labels(dataset))
    assert any("val: 4 items, pooled" in note for note in dataset.notes)


CSV = "filename,label,original\n007.png,FAKE,real1\n008.png,REAL,\nreal1.png,REAL,\n"
FLAT = ["train/007.png", "train/008.png", "train/real1.png"]


@pytest.mark.parametrize("suffix", [".png", ""])
def test_flat_train_with_csv(toy, suffix):
    train = toy(FLAT, {"train.csv": CSV.replace(".png", suffix)}).train
    # Leading zeros kept.
    assert dict(zip(train["item_id"], train["group"], strict=True)) == {
        f"007{suffix}": "real1", f"008{suffix}": "", f"real1{suffix}": "real1"}  # fmt: skip


def test_swaps_in_a_csv_without_groups_are_tied_by_name(toy):
    names = ["000", "005", "000_005", "005_000"]
    rows = "".join(f"{name}.png,{int('_' in name)}\n" for name in names)
    dataset = toy([f"train/{name}.png" for name in names], {"train.csv": "id,label\n" + rows})
    assert dataset.train["group"].unique().tolist() == ["FaceForensics++/000"]
    assert any("named as face swaps" in note for note in dataset.notes)


def test_csv_with_group_domain_and_fold(toy):
    rows = "".join(f"{i},{i % 2},s{i // 2},g{i % 2},{i // 2 % 2}\n" for i in range(8))
    text = f"image,target,subject,generator,fold\n{rows}"
    dataset = toy([f"train/{i}.png" for i in range(8)], {"train.csv": text})
    assert dataset.train["group"].tolist() == [f"s{i // 2}" for i in range(8)]
    assert dataset.train["domain"].tolist() == [f"g{i % 2}" for i in range(8)]
    assert dataset.given_folds is not None
    assert dataset.given_folds.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]


def test_everything_in_one_folder(toy):
    dataset = toy(
        ["images/a.png", "images/b.png", "images/t.png"],
        {"train.csv": "id,label\na,0\nb,1\n", "sample_submission.csv": "id,label\nt,0\n"},
    )
    assert labels(dataset) == {"a": 0, "b": 1}
    assert dataset.test["item_id"].tolist() == ["t"]


def test_metadata_json_with_videos(toy):
    entries = {
        "x.mp4": {"label": "FAKE", "split": "train", "original": "y.mp4"},
        "y.mp4": {"label": "REAL", "split": "train", "original": None},
        "z.mp4": {"label": "REAL", "split": "train"},
    }
    files = dict.fromkeys([f"train_sample_videos/{name}" for name in entries], b"video")
    dataset = toy(files, {"train_sample_videos/metadata.json": json.dumps(entries)})
    assert labels(dataset) == {"x.mp4": 1, "y.mp4": 0, "z.mp4": 0}
    assert dataset.train["group"].tolist() == ["y", "y", ""]
    assert set(dataset.items["kind"]) == {"video"}
    assert len(dataset.require_train()) == 3


@pytest.mark.parametrize("home", ["", "part/"])
def test_metadata_json_of_paths_names_files_below_it(toy, home):
    rows = {f"{c}/{i}/x.mp4": {"label": c.upper()} for c in ("real", "fake") for i in (0, 1)}
    texts = {f"{home}videos/{path}": f"clip {path}" for path in rows}
    train = toy(texts, {f"{home}videos/metadata.json": json.dumps(rows)}).train
    assert (train["label"] == train["path"].str.contains("/fake/")).all()
    assert len(train) == 4


@pytest.mark.parametrize("linked", [False, True])
def test_extra_data_joins_train_only(make_dataset, tmp_path, linked):
    root = make_dataset(TRAIN, {"dataset.yaml": "extra: [other]\n"})
    other = make_dataset(["real/n.png", "fake/m.png", "test/t.png"], name="other")
    if linked:
        root.rename(tmp_path / "elsewhere")
        root.symlink_to(tmp_path / "elsewhere")
    dataset = load_dataset("toy")
    assert dataset.extra_ids == {"other/real/n.png", "other/fake/m.png"}
    row = dataset.train.set_index("item_id").loc["other/real/n.png"]
    assert read_bytes(dataset.root, row["path"]) == (other / "real" / "n.png").read_bytes()
    assert row["domain"] == "other"
    assert dataset.test.empty
    assert all(read_bytes(dataset.root, path) for path in dataset.items["path"])


def test_words_of_a_sample_submission(toy):
    sample = {"sample_submission.csv": "id,y\nt,real\ns,fake\n"}
    layout = toy([*TRAIN, "test/s.png", "test/t.png"], sample).require_test()
    assert layout.label_names == ("real", "fake")
    assert layout.item_ids == ["t", "s"]


@pytest.mark.parametrize(("setting", "group", "domain"), [
    ("group", "fake/v1", ""), ("domain", "", "v1"), ("ignore", "", ""),
])  # fmt: skip
def test_folders_below_the_classes(toy, setting, group, domain):
    yaml = {"dataset.yaml": f"subfolders: {setting}\n"}
    row = toy(["real/v0/f.png", "fake/v1/f.png"], yaml).train.iloc[0]
    assert (row["group"], row["domain"]) == (group, domain)


def test_numbered_folders_below_a_class_are_no_labels(toy):
    dataset = toy(["real/1/f.png", "fake/0/f.png"], {"dataset.yaml": "subfolders: group\n"})
    assert labels(dataset) == {"fake/0/f.png": 1, "real/1/f.png": 0}


# Bad input: (files, texts, what the message must name).
BAD = {
    "nothing": (["notes.txt"], {}, r"no image or video.*\.txt"),
    "empty class": (["real/a.png", "real/b.png"], {}, r"2 train items are real.*fake.*empty"),
    "no labels": (["train/a.png"], {}, r"train/a\.png.*no CSV.*add a CSV of `filename,label`"),
    "unknown class folder": (
        ["train/real/a.png", "train/teasing/b.png"], {}, r"1 of 2.*train/teasing/b\.png.*labels:"
    ),
    "contradiction": (["real/ai/a.png", "fake/b.png"], {}, r"real/ai.*contradict.*ignore"),
    "subfolders": (["real/v0/f.png", "fake/v1/f.png"], {},
                   r"fake/v1/f\.png.*subfolders: group.*: domain.*: ignore"),
    "outside": ([*[f"train/{p}" for p in FOUR], "x/a.png"], {}, r"1 files lie outside.*x/a\.png"),
    "csv label": (FLAT, {"train.csv": CSV.replace("8.png,REAL", "8.png,2")},
                  r"train\.csv: row 3: label is '2'.*labels:"),
    "csv soft label": (FLAT, {"train.csv": CSV.replace("8.png,REAL", "8.png,0.5")},
                       r"train\.csv: row 3: label is '0\.5'"),
    "csv id twice": (FLAT, {"train.csv": CSV.replace("008", "007")},
                     r"train\.csv: row 3: filename '007\.png' stands already in row 2"),
    "csv two names of one file": (FLAT, {"train.csv": CSV + "008,FAKE,\n"},
                                  r"row 5: '008'.*fit the same file train/008\.png"),
    "csv unknown file": (FLAT, {"train.csv": CSV + "zzz.png,REAL,\n"},
                         r"train\.csv: row 5: filename 'zzz\.png' has no file.*missing_files"),
    "file without row": ([*FLAT, "train/more.png"], {"train.csv": CSV},
                         r"train\.csv: no row names train/more\.png.*unlisted_files"),
    "csv ragged": (FLAT, {"train.csv": CSV + "x,y\n"}, r"train\.csv: row 5 has 2 fields"),
    "csv empty": (FLAT, {"train.csv": ""}, r"train\.csv: empty"),
    "csv without label": (FLAT, {"train.csv": "filename,kind\n007.png,a\n"},
                          r"train\.csv left aside.*no label column|no label column.*kind"),
    "csv bare name of two files": (
        ["train/a/x.png", "train/b/x.png"], {"train.csv": "id,label\nx,0\na/x,1\n"},
        r"train\.csv: row 2: id 'x' fits 2 files"),
    "two csv": (FLAT, {"train.csv": CSV, "labels.csv": CSV},
                r"labels\.csv.*train\.csv.*labels_file"),
    "label columns contradict": (
        ["train/a.png", "train/b.png"],
        {"train.csv": "id,label,label_str\na,1,real\nb,0,fake\n"},
        r"row 2: label is '1' and label_str is 'real'.*labels: \{1: 0"),
    "csv against folders": (
        ["train/real/a.png", "train/fake/b.png"], {"train.csv": "id,label\na,1\nb,0\n"},
        r"row 2: label is '1'.*train/real/a\.png.*real"),
    "two group columns": (
        ["train/a.png", "train/b.png"],
        {"train.csv": "id,label,subject,original\na,1,p,q\nb,0,p,q\n"},
        r"'original' and 'subject' could both be meant.*group_column"),
    "is_real": (
        ["train/a.png", "train/b.png"],
        {"train.csv": "id,is_real\na,1\nb,0\n", "dataset.yaml": "label_column: is_real\n"},
        r"does 1 in column 'is_real' mean real.*labels:"),
    "fold": (["train/a.png", "train/b.png"], {"train.csv": "id,label,fold\na,1,0\nb,0,x\n"},
             r"train\.csv: row 3: fold is 'x'"),
    "folds from 1": (["train/a.png", "train/b.png"], {"train.csv": "id,label,fold\na,1,1\nb,0,2\n"},
                     r"column of folds holds \[1, 2\], want 0\.\.k-1"),
    "json label": ({"train/x.mp4": b"1"}, {"train/metadata.json": '{"x.mp4": {"label": "MAYBE"}}'},
                   r"metadata\.json: entry 'x\.mp4': label is 'MAYBE'"),
    "extra unknown": (FOUR, {"dataset.yaml": "extra: [othr]\n"}, r"unknown data set 'othr'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(toy, case):
    files, texts, match = BAD[case]
    with refused(match):
        toy(files, texts)


BAD_SAMPLES = {
    "id without file": ("id,label\nt.png,0\nu.png,0\n", r"row 3: id 'u\.png' has no file.*1 such"),
    "no rows": ("id,label\n", "header and no rows"),
    "id twice": ("id,label\nt.png,0\ns.png,0\nt.png,0\n", r"row 4: id 't\.png' stands there twice"),
    "two names": ("id,label\nt.png,0\nt,0\ns,0\n", r"row 3: id 't' and id 't\.png' fit the same"),
    "one column": ("id\nt.png\n", "want two or more: an id and an answer"),
    "three columns": ("id,a,b\nt.png,0,0\n", "which of the columns a, b is the answer?"),
    "unknown word": ("id,label\nt.png,maybe\ns.png,maybe\n", r"'maybe'.*label_names"),
    "missing id": ("id,label\nt.png,0\n", r"no row for test/s\.png.*unlisted_files"),
}


@pytest.mark.parametrize("case", BAD_SAMPLES)
def test_bad_sample_submission_is_named(toy, case):
    text, match = BAD_SAMPLES[case]
    with refused(rf"sample_submission\.csv.*{match}"):
        toy([*TRAIN, "test/s.png", "test/t.png"], {"sample_submission.csv": text})


@pytest.mark.parametrize("item_id", ["b.jxl", "test/b.jxl", "b", "test\\b"])
def test_a_test_file_that_lies_there_unread_is_named(toy, item_id):
    sample = f"id,label\nt.png,0\nzz,0\n{item_id},0\n"
    texts = {"sample_submission.csv": sample, "test/b.jxl": "", "test/zz.txt": "caption"}
    with refused(
        r"row 4: id '(test.+)?b(\.jxl)?' has no file among the test items \(2 such ids of 3\): "
        r"test/b\.jxl lies there, but files of its suffix are not read.*convert it"
    ):
        toy([*TRAIN, "test/t.png"], texts)


def test_a_sample_without_test_files_still_trains_and_names_what_is_not_read(toy):
    dataset = toy(TRAIN, {"sample_submission.csv": "id,label\nb.jxl,0\n"})
    assert dataset.submission is None
    assert any("no test items" in note for note in dataset.notes)
    (note,) = [note for note in toy([], {"test/b.jxl": ""}).notes if "no test items" in note]
    assert "test/b.jxl lies there" in note


def test_ambiguous_test_name_is_refused(toy):
    sample = {"sample_submission.csv": "id,label\nt,0\n"}
    with refused("row 2: id 't' fits 2 test files"):
        toy([*TRAIN, "test/a/t.png", "test/b/t.png"], sample)


def test_misfits_can_be_passed_over(toy):
    dataset = toy([*FLAT, "train/more.png"], {
        "train.csv": CSV + "zzz.png,REAL,\n",
        "dataset.yaml": "missing_files: ignore\nunlisted_files: ignore\n",
    })  # fmt: skip
    assert len(labels(dataset)) == 3
    assert dataset.ignored == {"train files that no row names": 1}


def test_unknown_data_set_offers_names(make_dataset):
    make_dataset(FOUR, name="cifake")
    with refused("unknown data set 'cifak'; did you mean 'cifake'"):
        load_dataset("cifak")


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "train", "test", "fakes", "groups", "domains"),
    [("cifake", 40000, 8000, 20000, 0, 1), ("dfdc_faces", 7001, 2002, 5856, 1217, 1),
     ("liveness", 377, 0, 188, 0, 2)],
)  # fmt: skip
def test_real_data_sets(shared_data, name, train, test, fakes, groups, domains):
    dataset = load_dataset(name, shared_data)
    assert (len(dataset.train), len(dataset.test)) == (train, test)
    assert dataset.train["label"].sum() == fakes
    assert len(set(dataset.train["group"]) - {""}) == groups
    assert dataset.train["domain"].nunique() == domains
    if test:
        sample = pd.read_csv(shared_data / name / "sample_submission.csv", dtype=str)
        assert dataset.require_test().item_ids == sample["filename"].tolist()
        assert set(dataset.test["item_id"]) == set(sample["filename"])
