"""Lists of files, with and without header: what their rows name, and what must be refused."""

import json

import pytest

from src.artifacts.submissions import write_submission
from tests.data.conftest import expand, refused

HERE = ["faces/a/0001.png", "faces/a/0002.png", "faces/b/0001.png", "my dir/a b.png"]
WANT = {"faces/a/0001.png": 0, "faces/a/0002.png": 1, "faces/b/0001.png": 1, "my dir/a b.png": 0}


def labels(dataset) -> dict[str, int]:
    """Return path -> label."""
    train = dataset.train
    return dict(zip(train["path"], train["label"].astype(int), strict=True))


def as_list(line: str, *, words: tuple[str, str] = ("0", "1"), start: str = "") -> str:
    return "".join(line.format(start + p, words[y]) + "\n" for p, y in WANT.items())


LISTS = {
    "path label": ("train.txt", as_list("{} {}")),
    "path,label": ("list.txt", "# made by a script\n\n" + as_list("{},{}")),
    "csv": ("train.csv", as_list("{},{}")),
    "blanks in csv": ("train.csv", as_list("{} {}")),
    "semicolons": ("labels.csv", as_list("{};{}")),
    "tabs and words": ("train_list.txt", as_list("{}\t{}", words=("real", "fake"))),
    "header": ("train.txt", "path label\n" + as_list("{} {}")),
    "header with commas": ("x.txt", "image_path,label\n" + as_list("{},{}")),
    "label first": ("train.txt", as_list("{1} {0}")),
    "label first, commas": ("train.txt", as_list("{1},{0}")),
    "quotes": ("train.txt", as_list('"{}",{}')),
    "author's disk": ("train.txt", as_list("{} {}", start="/home/ann/sets/v2/")),
    "author's drive": ("train.csv", as_list("{},{}", start="D:\\sets\\").replace("/", "\\")),
    "relative": ("train.txt", as_list("{} {}", start="./")),
    "from elsewhere": ("train.csv", "path,label\n" + as_list("{},{}", start="../../data/")),
    "beside the files": ("faces/train.txt", as_list("{} {}").replace("faces/", "")),
    "windows": ("train.txt", as_list("{} {}").replace("\n", "\r\n")),
    "utf-16": ("train.csv", as_list("{},{}").encode("utf-16")),
    "more columns": ("train.txt", as_list("{},deepfakes,{}")),
}  # fmt: skip


@pytest.mark.parametrize("case", LISTS)
def test_lists_give_labels(toy, case):
    name, text = LISTS[case]
    assert labels(toy(HERE, {name: text})) == WANT


def test_no_row_of_a_csv_without_header_is_lost(toy):
    dataset = toy(["train/1.png", "train/0.png"], {"train.csv": "1.png,1\n0.png,0\n"})
    assert labels(dataset) == {"train/1.png": 1, "train/0.png": 0}


def test_what_a_list_says_of_polarity_can_be_turned_round(toy):
    yaml = {"dataset.yaml": "labels: {0: 1, 1: 0}\n"}
    dataset = toy(HERE, {"train.txt": as_list("{} {}"), **yaml})
    assert labels(dataset) == {path: 1 - label for path, label in WANT.items()}


def test_lists_are_splits_by_their_names(toy):
    files = [f"images/{i}.png" for i in range(6)]
    rows = [f"images/{i}.png {i % 2}\n" for i in range(6)]
    lists = {"train_list.txt": rows[:2], "val_list.txt": rows[2:4], "test_list.txt": rows[4:]}
    dataset = toy(files, {name: "".join(some) for name, some in lists.items()})
    ids = ["images/0.png", "images/1.png", "val/images/2.png", "val/images/3.png"]
    assert dataset.train["item_id"].tolist() == ids
    assert dataset.test["item_id"].tolist() == dataset.require_test().item_ids == files[4:]
    assert dataset.test["label"].isna().all()
    assert dataset.test_labels is not None
    assert dataset.test_labels.to_dict() == {"images/4.png": 0, "images/5.png": 1}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train.txt", "clips/v1 0\nclips/v2 1\n"),
        ("train.txt", "v1 0\nv2 1\n"),
        ("train.txt", "clips/v1 163 0\nclips/v2 122 1\n"),
        ("train.csv", "path,label\n/data/x/clips/v1/,real\n/data/x/clips/v2/,fake\n"),
        ("train.csv", "video,label\nv1.mp4,real\nv2.mp4,fake\n"),
        ("clips/metadata.json",
         json.dumps({"v1.mp4": {"label": "REAL"}, "v2.mp4": {"label": "FAKE"}})),
    ],
)  # fmt: skip
@pytest.mark.parametrize("below", ["", "frames/"])
def test_rows_that_name_folders_of_frames_make_a_group_each(toy, name, text, below):
    train = toy(expand(f"clips/{{v1,v2}}/{below}{{0,1,2}}.png"), {name: text}).train
    assert len(train) == 6
    clip = train["path"].str.split("/").str[1]
    assert (train["label"].astype(int) == (clip == "v2")).all()
    assert train.groupby(clip)["group"].nunique().tolist() == [1, 1]
    assert train["group"].nunique() == 2


@pytest.mark.parametrize(
    ("files", "rows", "yaml", "groups"),
    [
        ("c/{000,003,000_003}/{0,1}.png", "c/000 0\nc/003 0\nc/000_003 1\n", "", 1),  # swaps
        ("{x,y}/p0/{0,1}.png", "x/p0 0\ny/p0 1\n", "", 1),  # one person in both classes
        ("{x,y}/p0/{0,1}.png", "x/p0 0\ny/p0 1\n", "same_names: ignore\n", 2),
    ],
)
def test_folders_of_frames_are_tied_by_their_names(toy, files, rows, yaml, groups):
    texts = {"train.txt": rows, "dataset.yaml": f"n_folds: 2\n{yaml}"}
    assert toy(expand(files), texts).train["group"].nunique() == groups


BAD = {
    "twice": ("a.png 0\nb.png 1\na.png 0\n", r"train\.txt: row 3: .*'a\.png' stands already in"),
    "contradiction": ("a.png 0\nb.png 1\nimg/a.png 1\n", r"row 3: 'img/a\.png' and another row"),
    "label": ("a.png 0\nb.png 1\n" * 30 + "c.png maybe\n", r"row 61: label is 'maybe'"),
    "ragged": ("a.png,0\nb.png,1\nc.png\n", r"row 3 has 1 fields, the first row has 2"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_lists_are_named(toy, case):
    text, match = BAD[case]
    with refused(match):
        toy(expand("img/{a,b,c}.png" if "c.png" in text else "img/{a,b}.png"), {"train.txt": text})


def test_other_texts_are_no_lists(toy):
    files = [f"{c}/{i}.png" for c in ("real", "fake") for i in range(25)]
    captions = {path.replace(".png", ".txt"): path.rpartition("/")[2] + " 1\n" for path in files}
    other = {
        "README.txt": "real/0.png is the first picture\nsee also the paper\nfake 1\n",
        "classes.txt": "real 0\nfake 1\n",
        "bytes.txt": b"\xff\x00\x01",
    }
    dataset = toy(files, {**captions, **other})
    assert labels(dataset) == {path: int(path.startswith("fake")) for path in files}
    assert "labels: from the names of folders" in dataset.notes


def test_start_of_paths_by_hand(toy):
    dataset = toy(["all/1.png", "all/y/2.png"], {
        "train.csv": "path,label\nx/1.png,0\nx/y/2.png,1\n",
        "dataset.yaml": "root: {from: x, to: all}\n",
    })  # fmt: skip
    assert labels(dataset) == {"all/1.png": 0, "all/y/2.png": 1}


TRAIN = ["train/real/a.png", "train/fake/b.png"]


@pytest.mark.parametrize("home", ["test/", "test/images/"])
@pytest.mark.parametrize("text", ["7.png,0\n8.png,1\n", "8,0.5\n7,0.5\n", "8.png,\n7.png,\n"])
def test_a_sample_without_header_keeps_its_first_row_and_form(toy, tmp_path, text, home):
    dataset = toy([*TRAIN, f"{home}7.png", f"{home}8.png"], {"sample_submission.csv": text})
    layout = dataset.require_test()
    ids = [line.split(",")[0] for line in text.splitlines()]
    assert layout.item_ids == ids
    pred = dataset.test.set_index("item_id")["path"].str.contains("8").astype(int)
    write_submission(tmp_path / "s.csv", layout, pred.to_frame("pred").assign(prob=pred), {})
    assert (tmp_path / "s.csv").read_text() == "".join(f"{i},{int('8' in i)}\n" for i in ids)


def test_a_test_csv_of_ids_is_the_sample(toy):
    files = [*TRAIN, *expand("test/{3,1,2}.png")]
    layout = toy(files, {"test.csv": "id,width\n3,24\n1,24\n2,24\n"}).require_test()
    assert (layout.id_column, layout.answer_column) == ("id", None)
    assert layout.item_ids == ["3", "1", "2"]


def test_a_test_list_takes_its_files_out_of_the_class_folders(toy):
    dataset = toy(expand("{real,fake}/{0,1,2}.png"), {"test.txt": "real/0.png\nfake/2.png\n"})
    assert dataset.test["item_id"].tolist() == ["fake/2.png", "real/0.png"]
    assert dataset.test_labels is not None
    assert dataset.test_labels.to_dict() == {"fake/2.png": 1, "real/0.png": 0}
    assert len(dataset.train) == 4


@pytest.mark.parametrize(
    ("text", "match"),
    [("id\n1\n1\n", r"test\.csv: row 3: id '1' stands there twice"),
     ("id\n1\n9\n", r"test\.csv: row 3: id '9' has no file"),
     ("id\n1\n1.png\n", r"row 3: id '1\.png' and another row, '1', fit the same"),
     ("id\n1\n", r"test\.csv has no row for test/2\.png.*unlisted_files")],
)  # fmt: skip
def test_bad_test_lists_are_named(toy, text, match):
    with refused(match):
        toy([*TRAIN, "test/1.png", "test/2.png"], {"test.csv": text})


def test_one_of_two_lists_of_a_split_is_chosen_by_name(toy):
    rows = [f"images/{i}.png {i % 2}\n" for i in range(4)]
    texts = {"a_train.txt": "".join(rows[:2]), "b_train.txt": "".join(rows), "val.txt": rows[3]}
    with refused(r"a_train\.txt and .*b_train\.txt both.*labels_file"):
        toy([f"images/{i}.png" for i in range(4)], texts)
    assert len(toy([], {"dataset.yaml": "labels_file: b_train.txt\n"}).train) == 4
    yaml = "labels_file: [a_train.txt, val.txt]\nunlisted_files: ignore\n"
    ids = ["images/0.png", "images/1.png", "val/images/3.png"]
    assert toy([], {"dataset.yaml": yaml}).train["item_id"].tolist() == ids


def test_of_two_test_lists_one_is_left_aside_as_offered(toy):
    texts = {"test.csv": "id\n1\n2\n", "lists/test_b.csv": "id\n2\n1\n"}
    with refused("both lists of test items") as caught:
        toy([*TRAIN, "test/1.png", "test/2.png"], texts)
    dataset = toy([], {"dataset.yaml": str(caught.value).split("`")[1] + "\n"})
    assert dataset.require_test().item_ids in (["1", "2"], ["2", "1"])


@pytest.mark.parametrize(
    "test",
    [{"test.csv": "path\nw0\nw1\n"},
     {"sample_submission.csv": "id,label\nw0/0.png,0\nw1/0.png,0\n"}],
)  # fmt: skip
def test_folders_of_frames_in_a_test_are_no_domains(toy, test):
    table = {"train.csv": "path,label\nv0,0\nv1,1\nv2,0\nv3,1\n"}
    dataset = toy(expand("train/{v0,v1,v2,v3}/0.png", "test/{w0,w1}/0.png"), table | test)
    assert len(dataset.test) == 2
    assert set(dataset.items["domain"]) == {""}


def test_folders_of_a_test_are_domains_where_those_of_train_items_are(toy):
    files = [f"train/{d}/{d}{k}.png" for d in ("print", "replay") for k in (0, 1)]
    rows = "".join(f"{d}{k}.png,{k},{d}\n" for d in ("print", "replay") for k in (0, 1))
    dataset = toy([*files, "test/print/t.png", "test/other/u.png"],
                  {"train.csv": "filename,label,domain\n" + rows})  # fmt: skip
    assert dataset.test.set_index("item_id")["domain"].to_dict() == {
        "print/t.png": "print", "other/u.png": "other"}  # fmt: skip
