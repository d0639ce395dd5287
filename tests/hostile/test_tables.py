"""CSV as people and spreadsheets write it; YAML that would blow up or run code."""

import json
import time

import pytest
from ruamel.yaml import YAML

from src.artifacts.files import read_json
from src.artifacts.folds import read_folds
from src.config import read_model
from src.data.layouts.load import load_dataset
from src.errors import UserError
from src.strict_yaml import parse_yaml, read_yaml

PLAIN = 'filename,label,note\na.png,real,"x, y"\nb.png,fake,"say ""no"""\n'
FORMS = {
    "plain": PLAIN.encode(),
    "BOM": PLAIN.encode("utf-8-sig"),
    "CRLF": PLAIN.replace("\n", "\r\n").encode(),
    "CR": PLAIN.replace("\n", "\r").encode(),
    "semicolons": PLAIN.replace(",", ";").replace("x; y", "x, y").encode(),
    "tabs": PLAIN.replace(",", "\t").encode(),
    "UTF-16": PLAIN.encode("utf-16"),
    "UTF-16, tabs, as Excel does": PLAIN.replace(",", "\t").encode("utf-16"),
    "blank lines": PLAIN.replace("\n", "\n\n").encode(),
    "blanks": b"filename , label,note\n a.png, real,\nb.png ,fake , \n",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_one_table_means_the_same(make_dataset, form):
    root = make_dataset(["train/a.png", "train/b.png"])
    (root / "train.csv").write_bytes(FORMS[form])
    items = load_dataset("toy").items
    assert dict(zip(items["item_id"], items["label"], strict=True)) == {"a.png": 0, "b.png": 1}


def test_a_sample_in_semicolons_is_read_and_said_to_be_written_with_commas(make_dataset):
    make_dataset(
        ["train/real/a.png", "train/fake/b.png", "test/1.png", "test/2.png"],
        {"sample_submission.csv": "id;label\r\n2.png;0\r\n1.png;0\r\n"},
    )
    dataset = load_dataset("toy")
    assert dataset.require_test().item_ids == ["2.png", "1.png"]
    assert any("';'" in note and "commas" in note for note in dataset.notes)


BROKEN = {
    "NUL bytes": (b"filename,label\na.png,0\nb\0.png,1\n", "line 3 holds a NUL byte"),
    "UTF-16 without a mark": ("filename,label\na.png,0\n".encode("utf-16-le"), "NUL byte"),
    "latin-1": ("filename,label\n\xe9.png,0\n".encode("latin-1"), "not UTF-8"),
    "too many fields": (b"filename,label\na.png,0,\n", "row 2 has 3 fields"),
    "too few fields": (b"filename,label\na.png\n", "row 2 has 1 fields"),
    "open quote": (b'filename,label\n"a.png,0\n', "not CSV"),
    "quote inside": (b'filename,label\n"a"x.png,0\n', "not CSV"),
    "one column twice": (b"filename,label,label\na.png,0,0\n", "'label' stands twice"),
    "missing column": (b"filename,size\na.png,1\n", "no label column"),
    "endless field": (b"filename,label\n" + b"a" * 200_000 + b",0\n", "not CSV"),
    "header only": (b"filename,label\n", "train/a.png"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_table_is_named_with_its_row(make_dataset, kind):
    data, match = BROKEN[kind]
    root = make_dataset(["train/a.png", "train/b.png"])
    (root / "train.csv").write_bytes(data)
    with pytest.raises(UserError, match=match):
        load_dataset("toy")


def test_twenty_thousand_columns_do_not_hang(make_dataset):
    root = make_dataset(["train/a.png", "train/b.png"])
    header = ",".join(f"c{i}" for i in range(20_000))
    (root / "train.csv").write_text(f"{header}\n")
    began = time.monotonic()
    with pytest.raises(UserError):
        load_dataset("toy")
    assert time.monotonic() - began < 10


FOLDS = "item_id,label,group,domain,kind,fold\n"
ROWS = ["a,0,a,,image,0", "b,1,b,,image,0", "c,0,c,,image,1", "d,1,d,,image,1"]


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([*ROWS[:3], "d,1,d,image,1"], "row 5 has 5 fields"),
        ([f"{row},9" for row in ROWS], "row 2 has 7 fields"),
        ([*ROWS[:3], "d,1,d,,image,1e300"], "'1e300', want a whole number"),
        ([*ROWS[:3], "d\0,1,d,,image,1"], "NUL"),
        ([*ROWS[:3], '"d,1,d,,image,1'], "not a readable CSV"),
    ],
)
def test_our_own_csv_is_never_shifted_or_filled_up(tmp_path, rows, match):
    path = tmp_path / "f.csv"
    path.write_text(FOLDS + "\n".join(rows) + "\n")
    with pytest.raises(UserError, match=match):
        read_folds(path)


# --- YAML and JSON

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{n}: &{n} [{', '.join([f'*{m}'] * 9)}]\n" for m, n in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "k0: &k0 {x: 1}\n" + "".join(
    f"k{i}: &k{i} {{<<: [*k{i - 1}, *k{i - 1}]}}\n" for i in range(1, 40)
)
YAMLS = {
    "billion laughs": (LAUGHS, "aliases stand for more than"),
    "merge bomb": (MERGES, "aliases stand for more than"),
    "holds itself": ("a: &a [*a]", "holds itself"),
    "deep": ("[" * 5_000, "more than 100 brackets are open"),
    "deep blocks": ("- " * 3_000 + "x", "RecursionError"),
    "key twice": ("seed: 1\nseed: 2\n", "stands twice"),
    "python tag": ("a: !!python/object/apply:os.system [id]", "constructor"),
    "python name": ("a: !!python/name:os.system", "constructor"),
    "NUL": ("a: \0", "not valid YAML"),
    "endless number": ("a: 0x" + "f" * 9000, "too large"),
    "bad date": ("a: 2001-99-99", "month"),
    "two documents": ("--- 1\n--- 2\n", "single document"),
}


@pytest.mark.parametrize("kind", YAMLS)
def test_hostile_yaml_is_refused_quickly(tmp_path, kind):
    text, match = YAMLS[kind]
    (tmp_path / "x.yaml").write_text(text)
    began = time.monotonic()
    with pytest.raises(UserError, match=match):
        read_yaml(tmp_path / "x.yaml")
    assert time.monotonic() - began < 10


def test_a_config_of_a_tag_runs_nothing(artefact_root, tmp_path):
    folder = artefact_root / "configs" / "models"
    folder.mkdir(parents=True)
    mark = tmp_path / "ran"
    (folder / "evil.yaml").write_text(f"backbone: !!python/object/apply:os.mkdir ['{mark}']\n")
    with pytest.raises(UserError, match=r"evil\.yaml"):
        read_model("evil")
    assert not mark.exists()


def test_a_few_aliases_are_fine_and_a_huge_file_is_not(tmp_path):
    assert parse_yaml("a: &x {k: 1}\nb: *x", "here")["b"] == {"k": 1}
    (tmp_path / "x.yaml").write_text("# " + "x" * 2**23)
    with pytest.raises(UserError, match="larger than"):
        read_yaml(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    "data",
    [b"[" * 100_000, b'{"schema": 1, "a": NaN', b"\xff", b'{"schema": 1, "a": "\0"}', b"\0", b"",
     b'{"schema": 1' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_hostile_json_is_a_users_error(tmp_path, data):
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(UserError, match=r"x\.json"):
        read_json(tmp_path / "x.json", schema=1, what="record")


def test_a_folder_where_a_file_should_be(tmp_path):
    with pytest.raises(UserError, match="not a readable JSON"):
        read_json(tmp_path, schema=1, what="record")
    with pytest.raises(UserError, match="not a readable CSV"):
        read_folds(tmp_path)


def test_metadata_that_is_nested_without_end(make_dataset):
    root = make_dataset(["train/a.png", "train/b.png"])
    (root / "train" / "metadata.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"metadata\.json"):
        load_dataset("toy")
    (root / "train" / "metadata.json").write_text(json.dumps({"a.png": {"label": ["FAKE"]}}))
    with pytest.raises(UserError, match=r"metadata\.json"):
        load_dataset("toy")


def test_the_library_would_have_run_the_tag():
    with pytest.warns(PendingDeprecationWarning):
        library = YAML(typ="unsafe", pure=True)
    loaded = library.load("!!python/object/apply:os.path.basename ['a/b']")
    assert loaded == "b"
