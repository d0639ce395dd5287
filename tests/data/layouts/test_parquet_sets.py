"""Data sets in parquet: rows are items, whatever names, labels and splits they come with."""

import json
import multiprocessing
import os
import random
import shutil
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from src.data.folds.scan import look_at
from src.data.items import parquet_rows
from src.data.items.files import read_bytes, stamp_of
from src.data.layouts.load import load_dataset
from src.errors import UserError
from tests.data.conftest import picture, refused

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
ALPHABET = ["fake", "real"]  # as the folders of a class are numbered: 0 is fake


def hf(names: dict[str, list[str]]) -> dict[bytes, bytes]:
    """Return the metadata that Hugging Face's library writes."""
    features = {name: {"names": words, "_type": "ClassLabel"} for name, words in names.items()}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def write(root, name, columns, *, words=None, group=3):
    """Write a parquet file; `columns` holds lists, `image` those of (bytes, path)."""
    arrays = {
        key: pa.array([None if v is None else {"bytes": v[0], "path": v[1]} for v in values], IMAGE)
        if key == "image" and not isinstance(values, pa.Array)
        else pa.array(values)
        for key, values in columns.items()
    }
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(arrays).replace_schema_metadata(words and hf(words))
    pq.write_table(table, path, row_group_size=group)
    return path


@pytest.fixture
def root(artefact_root):
    folder = artefact_root / "input" / "toy"
    folder.mkdir(parents=True)
    return folder


def labels(dataset) -> dict[str, int]:
    return dict(zip(dataset.train["item_id"], dataset.train["label"].astype(int), strict=True))


def images(
    root, count: int, *, beside: bool = False, start: int = 0
) -> list[tuple[bytes | None, str]]:
    """Return (bytes, path) of pictures for rows; no bytes of those that lie beside the table."""
    for i in range(start, start + count) if beside else ():
        (root / f"{i}.png").write_bytes(picture(i))
    return [(None if beside else picture(i), f"{i}.png") for i in range(start, start + count)]


def follow(root, caught, fill=("", ""), at: int = 1) -> None:
    """Add a line that an error offers (the first) to dataset.yaml."""
    path = root / "dataset.yaml"
    before = path.read_text() if path.exists() else ""
    path.write_text(before + str(caught.value).split("`")[at].replace(*fill) + "\n")


@pytest.mark.parametrize("home", ["data/{}-00000-of-00001.parquet", "default/{}/0000.parquet"])
def test_splits_labels_and_bytes_of_hugging_faces_form(root, home):
    words = {"label": ALPHABET}
    for start, split in ((0, "train"), (10, "validation"), (20, "test")):
        columns = {"image": images(root, 4, start=start), "label": [0, 1, 1, 0]}
        write(root, home.format(split), columns, words=words)
    dataset = load_dataset("toy")
    assert labels(dataset) == {
        "fake/0.png": 1, "real/1.png": 0, "real/2.png": 0, "fake/3.png": 1,
        "val/fake/10.png": 1, "val/real/11.png": 0, "val/real/12.png": 0, "val/fake/13.png": 1,
    }  # fmt: skip
    assert dataset.test_labels is not None
    assert dataset.test_labels.to_dict() == {
        "fake/20.png": 1, "fake/23.png": 1, "real/21.png": 0, "real/22.png": 0
    }  # fmt: skip
    assert (dataset.items["kind"] == "image").all()
    for item in dataset.items.itertuples():
        number = int(str(item.item_id).rpartition("/")[2][:-4])
        assert read_bytes(root, str(item.path)) == picture(number)
    assert dataset.given_folds is not None  # train and validation as they were given


def test_bytes_without_names_and_words_for_the_classes(root):
    data = [picture(i) for i in range(4)]
    columns = {
        "image": pa.array(data, pa.large_binary()), "label": ["real", "AI", "AI", "real"],
        "generator": ["", "sd", "mj", ""], "subject": ["a", "b", "a", "b"], "width": [1, 2, 3, 4],
    }  # fmt: skip
    write(root, "train.parquet", columns)
    train = load_dataset("toy").train.set_index("item_id")
    ids = ["mj/AI/train-000002", "sd/AI/train-000001", "real/train-000000", "real/train-000003"]
    assert sorted(train.index) == sorted(ids)
    train = train.loc[ids]
    assert train["label"].tolist() == [1, 1, 0, 0]
    assert train["domain"].tolist() == ["mj", "sd", "", ""]
    assert train["group"].tolist() == ["a", "b", "a", "b"]
    assert [read_bytes(root, path) for path in train["path"]] == [data[i] for i in (2, 1, 0, 3)]


@pytest.mark.parametrize("values", [[0, 1, 1, 0], [False, True, True, False], [0.0, 1.0, 1.0, 0.0]])
def test_numbers_without_names_are_said_and_can_be_turned_round(root, values):
    write(root, "train.parquet", {"image": images(root, 4), "label": values})
    dataset = load_dataset("toy")
    assert labels(dataset) == {"real/0.png": 0, "fake/1.png": 1, "fake/2.png": 1, "real/3.png": 0}
    assert any("0 -> real, 1 -> fake; where folders" in note for note in dataset.notes)
    if isinstance(values[1], bool):
        return
    (root / "dataset.yaml").write_text(f"labels: {{{values[1]}: 0, {values[0]}: 1}}\n")
    train = load_dataset("toy").train
    turned = dict(zip(train["path"], train["label"].astype(int), strict=True))
    assert turned == {f"train.parquet!/{i}/{i}.png": 1 - y for i, y in enumerate(values)}


def test_names_that_repeat_are_told_apart_by_file_and_row(root):
    for shard in (0, 1):
        pictures = [(picture(10 * shard + i), "image.png") for i in (0, 1)]
        columns = {"image": pictures, "label": ["real", "fake"]}
        write(root, f"data/train-0000{shard}-of-00003.parquet", columns)
    dataset = load_dataset("toy")
    assert labels(dataset) == {
        f"{word}/train-0000{shard}-of-00003-00000{row}-image.png": row
        for shard in (0, 1) for row, word in enumerate(("real", "fake"))
    }  # fmt: skip
    assert any("only 2 of 3 files are here" in note for note in dataset.notes)


@pytest.mark.parametrize("key", ["id", "image_id"])
def test_ids_of_a_test_set_match_the_sample(root, key):
    pair = {"image": images(root, 2), "label": ["real", "fake"]}
    write(root, "train.parquet", pair)
    nameless = [(picture(i), None) for i in (5, 6, 7)]
    write(root, "test.parquet", {"image": nameless, key: [7, 9, 8]})
    (root / "sample_submission.csv").write_text("id,label\n9,0\n7,0\n8,0\n")
    dataset = load_dataset("toy")
    assert dataset.require_test().item_ids == ["9", "7", "8"]
    paths = dataset.test.set_index("item_id")["path"]
    found = [read_bytes(root, path) for path in paths.loc[["7", "9", "8"]]]
    assert found == [picture(i) for i in (5, 6, 7)]
    assert dataset.test_labels is None


@pytest.mark.parametrize("start", ["", "/home/ann/set/"])
@pytest.mark.parametrize("form", ["struct", "text"])
def test_rows_that_name_files_beside_them(root, start, form):
    names = ["pics/real/0.png", "pics/fake/1.png", "pics/fake/2.png"]
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(i))
    paths = [f"{start}{name}" for name in names]
    image = [(None, path) for path in paths] if form == "struct" else pa.array(paths)
    write(root, "train.parquet", {"image": image, "label": [1, 0, 0]}, words={"label": ALPHABET})
    train = load_dataset("toy").train
    found = dict(zip(train["path"], train["label"].astype(int), strict=True))
    assert found == {name: int("fake" in name) for name in names}


def test_as_extra_data(root, toy):
    pair = {"image": images(root, 2), "label": ["real", "fake"]}
    write(root.parent / "more", "train.parquet", pair)
    dataset = toy(["real/a.png", "fake/b.png"], {"dataset.yaml": "extra: [more]\n"})
    assert dataset.extra_ids == {"more/real/0.png", "more/fake/1.png"}
    row = dataset.train.set_index("item_id").loc["more/fake/1.png"]
    assert read_bytes(dataset.root, row["path"]) == picture(1)


def _all_equal(root, wanted: dict[str, bytes], seed: int) -> bool:
    order = random.Random(seed).sample(sorted(wanted), len(wanted))
    return all(read_bytes(root, path) == wanted[path] for path in order)


@pytest.mark.parametrize("kept", [1, 64 * 2**20])
def test_rows_are_read_from_threads_and_forks(root, monkeypatch, kept):
    monkeypatch.setattr(parquet_rows, "KEPT", kept)
    columns = {"image": images(root, 60), "label": ["real", "fake"] * 30}
    write(root, "a.parquet", columns, group=7)
    wanted = {f"a.parquet!/{i}/{i}.png": picture(i) for i in range(60)}
    assert set(load_dataset("toy").items["path"]) == set(wanted)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda seed: _all_equal(root, wanted, seed), range(8)))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert all(pool.starmap(_all_equal, [(root, wanted, seed) for seed in range(4)]))


def test_fingerprint_follows_content_and_stamps_follow_time(root):
    columns = {"image": images(root, 4), "label": ["real", "fake"] * 2}
    path = write(root, "train.parquet", columns)
    before, stamp = load_dataset("toy"), stamp_of(root, "train.parquet!/0/0.png")
    os.utime(path, (1, 1))
    assert load_dataset("toy").sha256 == before.sha256
    assert stamp_of(root, "train.parquet!/0/0.png") != stamp
    columns["image"][3] = (picture(99), "3.png")
    write(root, "train.parquet", columns)
    assert load_dataset("toy").sha256 != before.sha256
    with pytest.raises(UserError, match="no row '7'"):
        read_bytes(root, "train.parquet!/7")
    shutil.rmtree(root)
    with pytest.raises(UserError, match="not there any more"):
        stamp_of(root, "gone.parquet!/0")


def test_a_row_without_picture_and_a_damaged_group_are_unreadable(root):
    rows = [*images(root, 5), (None, "5.png")]
    path = write(root, "train.parquet", {"image": rows, "label": ["real", "fake"] * 3})
    items = load_dataset("toy").items
    errors = [look_at(root, p).error for p in items.sort_values("path")["path"]]
    assert [bool(error) for error in errors] == [False] * 5 + [True]
    assert "row 5 holds no picture" in errors[5]
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 40] = b"\xff" * 40
    path.write_bytes(bytes(data))
    load_dataset("toy")  # what was read before is kept
    assert "row group 1 is damaged" in look_at(root, "train.parquet!/3/3.png").error
    assert look_at(root, "train.parquet!/0/0.png").error == ""


def test_what_is_no_set_of_pictures_is_left_aside_with_a_line(root, toy):
    pq.write_table(pa.table({"item_id": ["a"], "logit": [0.5]}), root / "fold_0.views.parquet")
    (root / "pointer.parquet").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    dataset = toy(["real/a.png", "fake/b.png"])
    assert len(dataset.items) == 2
    notes = "\n".join(dataset.notes)
    for text in ("fold_0.views.parquet left aside: no label column", "pointer.parquet", "lfs pull"):
        assert text in notes


BAD = {
    "damaged": (["real", "fake"], r"b\.parquet.*download it again"),
    "word": (["real", "cat"],
             r"train\.parquet: row 1: label is 'cat'.*labels: \{real: 0, cat: 0\|1\}"),
    "no label": (["real", ""], r"1 of 2 train files have no label.*train\.parquet!/1/1\.png"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_sets_are_named(root, case):
    words, match = BAD[case]
    write(root, "train.parquet", {"image": images(root, 2), "label": words})
    if case == "damaged":
        (root / "b.parquet").write_bytes(b"PAR1 no")
    with refused(match) as caught:
        load_dataset("toy")
    if case == "damaged":
        follow(root, caught, at=3)  # which leaves it aside
        assert len(load_dataset("toy").items) == 2


@pytest.mark.parametrize("values", [[1, 0], [True, False], [1.0, 0.0]])
def test_a_column_whose_name_says_that_1_is_real_is_asked_about(root, values):
    columns = {"image": images(root, 4), "is_real": values * 2}
    write(root, "train.parquet", columns)
    (root / "dataset.yaml").write_text("label_column: is_real\n")
    with refused(r"train\.parquet: does 1 in column 'is_real'") as caught:
        load_dataset("toy")
    follow(root, caught)
    train = load_dataset("toy").train
    found = dict(zip(train["path"].str[-5], train["label"].astype(int), strict=True))
    assert found == {"0": 0, "1": 1, "2": 0, "3": 1}


@pytest.mark.parametrize("key", ["group_column", "label_column", "id_column", "domain_column",
                                 "fold_column"])  # fmt: skip
@pytest.mark.parametrize("beside", [False, True])
def test_a_column_that_is_not_there_is_named(root, key, beside):
    columns = {"image": images(root, 4, beside=beside), "label": ["real", "fake"] * 2}
    write(root, "train.parquet", columns | {"person": [*"abab"]})
    (root / "dataset.yaml").write_text(f"{key}: persn\n")
    with refused(rf"column \({key}.*train\.parquet: 'persn'.*person"):
        load_dataset("toy")


@pytest.mark.parametrize("beside", [False, True])
def test_columns_of_any_name_are_read(root, beside):
    columns = {
        "image": images(root, 8, beside=beside), "verdict": [0, 1] * 4, "who": [*"aabbccdd"],
        "maker": [*"xxxxyyyy"], "fold": [0, 0, 0, 0, 1, 1, 1, -1], "split": ["train"] * 8,
        "tool": [*"aabbaabb"],
    }  # fmt: skip
    write(root, "train.parquet", columns, words={"verdict": ALPHABET})
    yaml = "label_column: verdict\ngroup_column: who\ndomain_column: maker\n"
    (root / "dataset.yaml").write_text(yaml)
    dataset = load_dataset("toy")
    train = dataset.train.sort_values("path")
    assert train["label"].astype(int).tolist() == [1, 0] * 4
    assert train["group"].tolist() == [*"aabbccdd"]
    assert train["domain"].tolist() == [*"xxxxyyyy"]
    assert dataset.given_folds is not None
    assert dataset.given_folds[train["item_id"]].tolist() == [0, 0, 0, 0, 1, 1, 1, -1]
    assert not dataset.from_splits
    assert any("not used: tool" in note for note in dataset.notes)


@pytest.mark.parametrize("beside", [False, True])
def test_a_column_of_splits_decides(root, beside):
    columns = {
        "image": images(root, 10, beside=beside), "label": [0, 1] * 4 + [1, 0],
        "partition": ["train"] * 6 + ["val"] * 2 + ["test"] * 2,
    }  # fmt: skip
    write(root, "all.parquet", columns)
    dataset = load_dataset("toy")
    assert sorted(path[-5] for path in dataset.train["path"]) == [*"01234567"]
    assert sorted(path[-5] for path in dataset.test["path"]) == [*"89"]
    assert dataset.test_labels is not None
    assert dataset.given_folds is not None


def test_words_of_a_class_label_that_are_not_known_are_asked_about(root):
    columns = {"image": images(root, 4), "label": [0, 1, 1, 0]}
    write(root, "train.parquet", columns, words={"label": ["AiArtData", "Photo"]})
    with refused(r"row 0.*'AiArtData'") as caught:
        load_dataset("toy")
    assert "`labels: {AiArtData: 0|1, Photo: 0|1}`" in str(caught.value)
    follow(root, caught, ("AiArtData: 0|1, Photo: 0|1", "AiArtData: 1, Photo: 0"))
    found = labels(load_dataset("toy"))
    assert found == {"AiArtData/0.png": 1, "Photo/1.png": 0, "Photo/2.png": 0, "AiArtData/3.png": 1}


def test_a_test_set_needs_no_column_of_the_train_set(root):
    columns = {"verdict": ["real", "fake"] * 2, "who": [*"abab"]}
    write(root, "train.parquet", {"image": images(root, 4), **columns})
    test = {"image": images(root, 2, start=8), "label": [-1, -1]}
    write(root, "test.parquet", test)
    (root / "dataset.yaml").write_text("label_column: verdict\ngroup_column: who\n")
    dataset = load_dataset("toy")
    assert (len(dataset.train), len(dataset.test), dataset.test_labels) == (4, 2, None)


def test_a_test_list_in_parquet_is_a_test_list(root):
    rows = images(root, 6, beside=True)
    for name, of in (("train", range(4)), ("test", (5, 4))):
        columns = {"image": [rows[i] for i in of], "label": [i % 2 for i in of]}
        write(root, f"data/{name}-00000-of-00001.parquet", columns)
    assert load_dataset("toy").require_test().item_ids == ["5.png", "4.png"]


def test_folds_may_be_spread_over_shards_and_test_has_none(root):
    for shard in (0, 1):
        columns = {"label": [0, 1] * 2, "fold": [shard] * 4}
        columns["image"] = images(root, 4, start=8 * shard)
        write(root, f"data/train-0000{shard}-of-00002.parquet", columns)
    test = {"image": images(root, 2, start=20), "fold": [None, 3]}
    write(root, "data/test-00000-of-00001.parquet", test)
    dataset = load_dataset("toy")
    assert dataset.given_folds is not None
    assert sorted(dataset.given_folds) == [0] * 4 + [1] * 4
