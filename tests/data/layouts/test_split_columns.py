"""A column of splits is obeyed, as is the folder of a table: test is never trained on."""

import json

import pytest

from tests.data.conftest import refused

FILES = [f"img/{i}.png" for i in range(12)]
SPLITS = ["train"] * 6 + ["val"] * 2 + ["test"] * 4
NAMES = ["split", "Set", "subset", "partition", "phase"]


def rows(line: str, words: dict[str, str] | None = None) -> str:
    return "".join(
        line.format(path, i % 2, (words or {}).get(split, split)) + "\n"
        for i, (path, split) in enumerate(zip(FILES, SPLITS, strict=True))
    )


def numbered(of, line: str = "{}.png,{}\n") -> str:
    """Return rows of items by number, whose label is whether it is odd."""
    return "".join(line.format(i, i % 2) for i in of)


META = {"meta.csv": "path,label,split\n" + rows("{},{},{}")}
TABLES = {
    **{name: ("meta.csv", f"path,label,{name}\n" + rows("{},{},{}"), "") for name in NAMES},
    "other words": ("meta.csv", "path,label,split\n" + rows("{},{},{}", {
        "train": "Training", "val": "dev", "test": "evaluation"}), ""),
    "given words": ("meta.csv", "path,label,split\n" + rows("{},{},{}", {
        "train": "0", "val": "1", "test": "2"}), "splits: {0: train, 1: val, 2: test}\n"),
    "no header": ("list.txt", rows("{} {} {}"), ""),
    "no header, csv": ("list.csv", rows("{2},{0},{1}"), ""),
    "tabs": ("meta.tsv", "path\tlabel\tsplit\n" + rows("{}\t{}\t{}"), ""),
    "json": ("metadata.json", json.dumps({
        path: {"label": ("REAL", "FAKE")[i % 2], "split": split}
        for i, (path, split) in enumerate(zip(FILES, SPLITS, strict=True))}), ""),
    "named as a test": ("test_meta.csv", META["meta.csv"], "labels_file: test_meta.csv\n"),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_rows_of_test_are_held_out_and_val_is_told(toy, case):
    name, text, yaml = TABLES[case]
    dataset = toy(FILES, {name: text, "dataset.yaml": yaml})
    assert set(dataset.test["path"]) == {*FILES[8:]}
    assert set(dataset.train["path"]) == {*FILES[:8]}
    assert dataset.test_labels is not None
    paths = dataset.test.set_index("item_id")["path"]
    assert {paths[k]: v for k, v in dataset.test_labels.items()} == {
        path: i % 2 for i, path in enumerate(FILES) if i >= 8
    }
    assert dataset.given_folds is not None
    in_val = dataset.train["item_id"].str.startswith("val/")
    assert set(dataset.train["path"][in_val]) == {*FILES[6:8]}


@pytest.mark.parametrize("home", ["train/", "train/{}/"])
def test_a_column_goes_before_the_folder_that_a_file_lies_in(toy, home):
    files = [home.format(("real", "fake")[i % 2]) + f"{i}.png" for i in range(6)]
    text = numbered(range(4), "{}.png,{},train\n") + numbered((4, 5), "{}.png,{},test\n")
    dataset = toy(files, {"meta.csv": "filename,label,split\n" + text})
    assert set(dataset.test["path"]) == {*files[4:]}
    assert set(dataset.train["path"]) == {*files[:4]}


@pytest.mark.parametrize("test", ["0.1", "", "maybe"])
def test_a_value_that_is_no_split_is_asked_about(toy, test):
    with refused(rf"meta\.csv: row 10: split is '{test}'.*splits:") as caught:
        toy(FILES, {"meta.csv": "path,label,split\n" + rows("{},{},{}", {"test": test})})
    line = str(caught.value).split("`")[1] + "\n"
    with refused(r"splits.*found 'train\|val\|test\|none"):
        toy([], {"dataset.yaml": line})
    dataset = toy([], {"dataset.yaml": line.replace("train|val|test|none", "test")})
    assert set(dataset.test["path"]) == {*FILES[8:]}


def test_a_few_words_among_many_values_are_not_passed_over_unlike_none(toy):
    words = [f"w{i}" for i in range(10)] + ["train", "test"]
    text = "".join(f"{p},{i % 2},{words[i]}\n" for i, p in enumerate(FILES))
    with refused("split is 'w0'"):
        toy(FILES, {"meta.csv": "path,label,split\n" + text})
    for word in ("ff", "s{}"):
        text = "".join(f"{p},{i % 2},{word.format(i)}\n" for i, p in enumerate(FILES))
        assert len(toy([], {"meta.csv": "path,label,subset\n" + text}).train) == 12


def test_a_column_that_dataset_yaml_calls_a_domain_is_no_split(toy):
    text = META["meta.csv"].replace(",split\n", ",set\n")
    dataset = toy(FILES, {"meta.csv": text, "dataset.yaml": "domain_column: set\n"})
    assert set(dataset.train["domain"]) == {"train", "val", "test"}


def test_a_sample_goes_before_the_column(toy):
    sample = "path,label\n" + "".join(f"{path},0\n" for path in FILES[8:])
    dataset = toy(FILES, {**META, "sample_submission.csv": sample})
    assert dataset.require_test().item_ids == FILES[8:]
    assert set(dataset.train["path"]) == {*FILES[:8]}


def test_labels_of_test_rows_need_not_be_there(toy):
    text = META["meta.csv"].replace(",0,test", ",,test").replace(",1,test", ",,test")
    dataset = toy(FILES, {"meta.csv": text})
    assert (len(dataset.train), len(dataset.test), dataset.test_labels) == (8, 4, None)


@pytest.mark.parametrize("wrap", ["", "archive/"])
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_a_table_in_the_folder_of_a_split_is_that_splits(toy, wrap, suffix):
    mark, texts, files = {"csv": ",", "tsv": "\t"}[suffix], {}, []
    for split, start in (("train", 0), ("validation", 4), ("test", 8)):
        text = "file_name,label\n" + numbered(range(start, start + 4))
        texts[f"{wrap}{split}/metadata.{suffix}"] = text.replace(",", mark)
        files += [f"{wrap}{split}/{i}.png" for i in range(start, start + 4)]
    dataset = toy(files, texts)
    assert set(dataset.test["path"]) == {*files[8:]}
    train = dict(zip(dataset.train["path"], dataset.train["label"], strict=True))
    assert train == {path: i % 2 for i, path in enumerate(files[:8])}
    assert dataset.test_labels is not None
    assert dataset.given_folds is not None


@pytest.mark.parametrize("name", ["val.csv", "train.csv"])
def test_a_row_of_two_splits_is_called_a_test_item(toy, name):
    lists = {"train.csv": (0, 1, 2, 3), "val.csv": (4, 5, 6, 7), "test.csv": (8, 9, 10, 11)}
    texts = {
        key: "id,label\n" + numbered((*of, *(8,) * (key == name))) for key, of in lists.items()
    }
    with refused(rf"{name}: row 6: id '8\.png' is a test item.*missing_files: ignore"):
        toy(FILES, texts)
    dataset = toy([], {"dataset.yaml": "missing_files: ignore\n"})
    assert (len(dataset.train), set(dataset.test["path"])) == (8, {*FILES[8:]})


def test_columns_that_nobody_reads_are_named_with_their_key(toy):
    text = "".join(f"{i}.png,{i % 2},{'ab'[i % 2]},{i},{'xyz'[i % 3]}\n" for i in range(12))
    dataset = toy(FILES, {"train.csv": "id,label,performer,serial,camera\n" + text})
    (note,) = [note for note in dataset.notes if "not used" in note]
    assert "performer, camera" in note
    assert "serial" not in note
    dataset = toy([], {"dataset.yaml": note.split("`")[1] + "\n"})
    assert set(dataset.train["group"]) == {"a", "b"}
    (note,) = [note for note in dataset.notes if "not used" in note]
    assert "domain_column: camera" in note


@pytest.mark.parametrize("name", ["person", "Person ID", "user_id", "client", "actor"])
def test_columns_of_people_are_groups(toy, name):
    text = "".join(f"{i}.png,{i % 2},p{i % 3}\n" for i in range(12))
    dataset = toy(FILES, {"train.csv": f"id,label,{name}\n{text}"})
    assert set(dataset.train["group"]) == {"p0", "p1", "p2"}


def test_a_table_of_test_items_alone_is_left_aside_as_offered(toy):
    text = "id,label\n" + numbered(range(8, 12))
    classes = [f"{('real', 'fake')[i % 2]}/{i}.png" for i in range(8)]
    with refused(r"labels\.csv: row 2: .*is a test item.*4 of 4") as caught:
        toy([*classes, *FILES[8:]], {"test.csv": text, "labels.csv": text})
    dataset = toy([], {"dataset.yaml": str(caught.value).split("`")[1] + "\n"})
    assert (len(dataset.train), len(dataset.test)) == (8, 4)


def test_labels_files_of_one_split_may_be_several(toy):
    parts = enumerate((range(6), range(6, 12)))
    with refused(r"or a list of names"):
        toy(FILES, {f"part{k}.csv": "id,label\n" + numbered(of) for k, of in parts})
    dataset = toy([], {"dataset.yaml": "labels_file: [part0.csv, part1.csv]\n"})
    assert len(dataset.train) == 12
