"""Each line for dataset.yaml that a message offers does what the message says."""

import json
import re
from collections.abc import Callable
from typing import NamedTuple

import pytest

from src.data.folds.make import ensure_folds
from src.data.layouts.load import load_dataset
from src.errors import UserError
from tests.data.conftest import expand, refused

TRAIN = ["train/real/a.png", "train/real/b.png", "train/fake/a.png", "train/fake/c.png"]
FLAT = ["train/a.png", "train/b.png", "train/c.png"]
KEYS = re.compile(r"`([a-z_]+): ([^`]+)`")


class Step(NamedTuple):
    """A line to take from a message: its key, and what a person writes in place of what."""

    key: str
    fill: tuple[str, str] = ("", "")


class Case(NamedTuple):
    """Files that are not understood, the advice to follow, and what must come of it.

    `wanted`: path (without folders that all share) -> split and label, `test` or `train 0`;
    "" for a file that is left aside.
    """

    files: list[str]
    texts: dict[str, str]
    steps: list[Step]
    wanted: dict[str, str]
    check: Callable | None = None


def bench(*rows: tuple[str, str, str, str]) -> str:
    """Return DeepfakeBench's JSON of (label, split, level, video)."""
    content: dict = {"SET": {}}
    for label, split, level, video in rows:
        at = content["SET"].setdefault(label, {}).setdefault(split, {})
        at = at.setdefault(level, {}) if level else at
        at[video] = {"label": label, "frames": [f"SET/{level}{video}/0.png"]}
    return json.dumps(content)


def groups_of(dataset) -> dict[str, str]:
    return dict(zip(dataset.train["item_id"], dataset.train["group"], strict=True))


def _domains_are(*names: str) -> Callable:
    return lambda dataset: sorted(set(dataset.train["domain"])) == sorted(names)


ALL_TRAIN = {path: f"train {int('fake' in path)}" for path in TRAIN}
FF = "manipulated_sequences/Deepfakes/c23/videos/000_003.mp4"
FF_REAL = "original_sequences/youtube/c23/videos/{}.mp4"
CASES = {
    "outside: a split": Case(
        [*TRAIN, "phase1/x.png"], {}, [Step("splits")], {**ALL_TRAIN, "phase1/x.png": "test"}),
    "outside: aside": Case(
        [f"set/phase1/{p}" for p in (*TRAIN, "more/x.png", "x.png")], {}, [Step("ignore")],
        {**{f"set/phase1/{p}": v for p, v in ALL_TRAIN.items()}, "set/phase1/x.png": ""}),
    "outside: quotes and brackets": Case(
        [*TRAIN, "it's [1]/x.png"], {}, [Step("ignore")], {**ALL_TRAIN, "it's [1]/x.png": ""}),
    "outside: odd name": Case(
        [*TRAIN, "it's: 1/x.png"], {}, [Step("splits")], {**ALL_TRAIN, "it's: 1/x.png": "test"}),
    "splits at odds: aside": Case(
        [*TRAIN, "train/test_images/a/x.png", "train/test_images/y.png"], {}, [Step("ignore")],
        {**ALL_TRAIN, "train/test_images/a/x.png": "", "train/test_images/y.png": ""}),
    "splits at odds: a name": Case(
        [*TRAIN, "train/real/test_shots/x.png"], {}, [Step("splits"), Step("subfolders")],
        {**ALL_TRAIN, "train/real/test_shots/x.png": "train 0"}),
    "splits at odds in one name": Case(
        ["train_test/real/a.png", "train_test/fake/b.png"], {}, [Step("splits")],
        {"train_test/real/a.png": "train 0", "train_test/fake/b.png": "train 1"}),
    "classes at odds: aside": Case(
        [*TRAIN, "train/real/ai/x.png"], {}, [Step("ignore")],
        {**ALL_TRAIN, "train/real/ai/x.png": ""}),
    "classes at odds: a name": Case(
        [*TRAIN, "train/real/ai/x.png"], {}, [Step("labels"), Step("subfolders")],
        {**ALL_TRAIN, "train/real/ai/x.png": "train 0"}),
    "no word for a class": Case(
        ["train/real/a.png", "train/teasing/v/b.png"], {},
        [Step("labels", ("teasing: 0|1", "teasing: 1")), Step("subfolders")],
        {"train/real/a.png": "train 0", "train/teasing/v/b.png": "train 1"}),
    "no word for either class": Case(
        [f"{d}/{c}/a.png" for d in ("one", "two") for c in ("teasing", "plain")], {},
        [Step("labels", ("plain: 0|1, teasing: 0|1", "plain: 0, teasing: 1"))],
        {"one/teasing/a.png": "train 1", "two/plain/a.png": "train 0"}, _domains_are("one", "two")),
    "no word for the class in a split's name": Case(
        [f"{s}{c}/{s}.png" for s in ("train", "test") for c in ("Teasing", "Plain")], {},
        [Step("labels", ("Plain: 0|1, Teasing: 0|1", "Plain: 0, Teasing: 1"))],
        {"trainTeasing/train.png": "train 1", "trainPlain/train.png": "train 0",
         "testPlain/test.png": "test"}, lambda d: d.test_labels.sum() == 1),
    "no class: aside": Case(
        [*TRAIN, "train/unsure/v/x.png"], {}, [Step("ignore")],
        {**ALL_TRAIN, "train/unsure/v/x.png": ""}),
    "a name taken for a test": Case(
        [*TRAIN, "my_test_set/real/d.png"], {}, [Step("splits")],
        {**ALL_TRAIN, "my_test_set/real/d.png": "train 0"}),
    "a name taken for train": Case(
        ["FF_train/real/a.png", "FF_train/fake/b.png", "test/c.png"], {}, [Step("splits")],
        {"FF_train/real/a.png": "train 0", "test/c.png": "test"}),
    "a name that says split and class": Case(
        [f"{s}{c}/{s}.png" for s in ("train", "test") for c in ("Real", "Fake")], {},
        [Step("splits")],
        {"testFake/test.png": "train 1", "testReal/test.png": "test",
         "trainFake/train.png": "train 1"}),
    "table against folders": Case(
        ["train/real/a.png", "train/fake/b.png", "test/real/t.png"],
        {"train.csv": "id,label\na,1\nb,0\n"}, [Step("labels")],
        {"train/real/a.png": "train 0", "train/fake/b.png": "train 1"},
        lambda d: set(d.items["domain"]) == {""} and d.test_labels is not None),
    "rows without file": Case(
        FLAT, {"train.csv": "id,label\na,1\nb,0\nc,0\nz,1\n"}, [Step("missing_files")],
        {"train/a.png": "train 1", "train/c.png": "train 0"}),
    "files without row": Case(
        FLAT, {"train.csv": "id,label\na,1\nb,0\n"}, [Step("unlisted_files")],
        {"train/a.png": "train 1", "train/c.png": ""}),
    "test files without row": Case(
        [*TRAIN, "test/s.png", "test/t.png"], {"sample_submission.csv": "id,y\nt.png,0\n"},
        [Step("unlisted_files")], {**ALL_TRAIN, "test/t.png": "test", "test/s.png": ""}),
    "two samples": Case(
        [*TRAIN, "test/t.png"],
        dict.fromkeys(["sample_submission.csv", "sample_submission2.csv"], "id,y\nt,0\n"),
        [Step("submission")], {**ALL_TRAIN, "test/t.png": "test"}),
    "words of a sample": Case(
        [*TRAIN, "test/s.png", "test/t.png"], {"sample_submission.csv": "id,y\ns,nay\nt,yea\n"},
        [Step("submission", ("[nay, yea]", "[nay, yea]"))], ALL_TRAIN,
        lambda d: d.require_test().label_names == ("nay", "yea")),
    "group columns": Case(
        FLAT, {"train.csv": "id,label,subject,original\na,1,p,b\nb,0,q,\nc,0,p,\n"},
        [Step("group_column")], {}, lambda d: groups_of(d) == {"a": "b", "b": "b", "c": ""}),
    "id columns": Case(
        ["train/a.png", "train/b.png"], {"train.csv": "id,image,label\na,b,1\nb,a,0\n"},
        [Step("id_column")], {"train/a.png": "train 1", "train/b.png": "train 0"}),
    "real is 1": Case(
        ["train/a.png", "train/b.png"],
        {"train.csv": "id,is_real\na,1\nb,0\n", "dataset.yaml": "label_column: is_real\n"},
        [Step("labels")], {"train/a.png": "train 0", "train/b.png": "train 1"}),
    "two tables": Case(
        FLAT, {"train.csv": "id,label\na,1\nb,0\nc,0\n", "more/labels.csv": "id,label\na,0\n"},
        [Step("labels_file: 'train.csv'")], {"train/a.png": "train 1"}),
    "words of a table": Case(
        FLAT, {"train.csv": "id,label\na,yes\nb,fake\nc,fake\n"},
        [Step("labels", ("yes: 0|1", "yes: 0"))],
        {"train/a.png": "train 0", "train/b.png": "train 1"}),
    "no label column": Case(
        FLAT, {"train.csv": "id,kind\na,real\nb,fake\nc,fake\n"},
        [Step("label_column", ("NAME", "kind"))],
        {"train/a.png": "train 0", "train/b.png": "train 1"}),
    "label columns at odds": Case(
        FLAT, {"train.csv": "id,label,label_str\na,1,real\nb,0,fake\nc,0,fake\n"},
        [Step("label_column: label_str")], {"train/a.png": "train 0", "train/b.png": "train 1"}),
    "label columns at odds: turned round": Case(
        FLAT, {"train.csv": "id,label,label_str\na,1,real\nb,0,fake\nc,0,fake\n"},
        [Step("labels")], {"train/a.png": "train 0", "train/b.png": "train 1"}),
    "DFDC preview: labels": Case(
        ["method_A/u.mp4", "method_A/v.mp4"],
        {"dataset.json": json.dumps({f"method_A/{v}.mp4": {"label": label, "set": "train"}
                                     for v, label in (("u", "REAL"), ("v", "swap"))})},
        [Step("labels", ("0|1", "1"))],
        {"method_A/u.mp4": "train 0", "method_A/v.mp4": "train 1"}),
    "DeepfakeBench: labels": Case(
        ["SET/u/0.png", "SET/v/0.png"],
        {"SET.json": bench(("good", "train", "", "u"), ("FF-DF", "train", "", "v"))},
        [Step("labels: {good: 0, fake: 1}")],
        {"SET/u/0.png": "train 0", "SET/v/0.png": "train 1"}),
    "DeepfakeBench: levels": Case(
        [f"SET/{level}{v}/0.png" for level, v in (("c23", "u"), ("c40", "u"), ("c40", "v"))],
        {"SET.json": bench(("FF-real", "train", "c23", "u"), ("FF-real", "train", "c40", "u"),
                           ("FF-DF", "train", "c40", "v"))},
        [Step("compression")], {"SET/c40u/0.png": "train 0", "SET/c40v/0.png": "train 1"}),
    "DeepfakeBench: a level that is not there": Case(
        [f"SET/{level}{v}/0.png" for level in ("raw", "c40") for v in "uv"],
        {"SET.json": bench(*((label, "train", level, v) for level in ("raw", "c40")
                             for label, v in (("FF-real", "u"), ("FF-DF", "v"))))},
        [Step("compression")], {"SET/c40u/0.png": "train 0", "SET/c40v/0.png": "train 1"}),
    "generators: outside": Case(
        ["gan/0_real/a.png", "gan/1_fake/b.png", "gan/notes/x.png"], {}, [Step("ignore")],
        {"gan/0_real/a.png": "train 0", "gan/1_fake/b.png": "train 1", "gan/notes/x.png": ""}),
    "FaceForensics++: elsewhere": Case(
        [FF, FF_REAL.format("003"), "original_sequences/odd/a/x.mp4",
         "original_sequences/odd/b/y.mp4"], {}, [Step("ignore")],
        {FF: "train 1", FF_REAL.format("003"): "train 0", "original_sequences/odd/b/y.mp4": ""}),
    "FaceForensics++: lists": Case(
        [FF, FF_REAL.format("003"), FF_REAL.format("000")],
        {"train.json": '[["000", "003"]]', "val.json": '[["003", "004"]]'}, [Step("ignore")],
        {FF: "train 1", FF_REAL.format("003"): "train 0"}),
    "a note on a split": Case(
        [*TRAIN, "eval/real/x.png"], {}, [Step("splits", ("train", "val"))],
        {**ALL_TRAIN, "eval/real/x.png": "train 0"}),
}  # fmt: skip


def message_of(dataset: str = "toy") -> str:
    """Return what is said of a data set: the error, or its notes."""
    try:
        return "\n".join(load_dataset(dataset).notes)
    except UserError as error:
        return str(error)


def follow(root, text: str, step: Step) -> None:
    """Write the offered line into dataset.yaml."""
    offers = [f"{key}: {value}" for key, value in KEYS.findall(text)]
    line = next((offer for offer in offers if offer.startswith(step.key)), None)
    assert line is not None, f"no `{step.key}` among {offers} of: {text}"
    assert step.fill[0] in line, line
    path = root / "dataset.yaml"
    before = path.read_text() if path.exists() else ""
    path.write_text(before + line.replace(*step.fill) + "\n")


@pytest.mark.parametrize("case", CASES)
def test_what_is_offered_works(make_dataset, case):
    files, texts, steps, wanted, check = CASES[case]
    root = make_dataset(files, texts)
    for step in steps:
        follow(root, message_of(), step)
    dataset = load_dataset("toy")
    found = {
        row.path: f"train {row.label}" if row.split == "train" else "test"
        for row in dataset.items.itertuples()
    }
    assert {path: found.get(path, "") for path in wanted} == wanted
    assert check is None or check(dataset), dataset.items


@pytest.mark.parametrize(
    "name", ["train.zip", "more's [1].zip", "train/real2", "train/real/caf\udce9 [1].png"]
)
def test_what_is_no_readable_file_is_left_aside_as_offered(make_dataset, name):
    root = make_dataset(TRAIN)
    if name == "train.zip":
        make_dataset([], zips={name: ["real/a.png"]})
    elif name == "train/real2":
        (root / name).symlink_to(root / "train" / "real")
    else:
        (root / name).write_bytes(b"no zip")
    follow(root, message_of(), Step("ignore"))
    assert len(load_dataset("toy").train) == 4


def test_words_that_contradict_folders_are_not_turned_round(make_dataset):
    make_dataset(["train/real/a.png", "train/fake/b.png"],
                 {"train.csv": "id,label\na,fake\nb,real\n"})  # fmt: skip
    assert "labels:" not in message_of()


def test_a_labels_file_that_is_there_is_not_denied(make_dataset):
    texts = {"labels.xlsx": "x", "dataset.yaml": "labels_file: labels.xlsx\n"}
    make_dataset(FLAT, texts)
    assert "labels.xlsx lies there, but is no table" in message_of()


def test_a_guess_at_a_class_is_refused_when_pasted(make_dataset):
    root = make_dataset(["train/real/a.png", "train/teasing/b.png"])
    follow(root, message_of(), Step("labels"))
    assert "labels: teasing is '0|1', want 0 (real) or 1 (fake)" in message_of()


@pytest.mark.parametrize("layout", ["deepfakebench", "artifact"])
def test_missing_files_are_passed_over_where_it_is_offered(make_dataset, layout):
    if layout == "deepfakebench":
        rows = [("FF-real", "train", "", v) for v in "uw"] + [("FF-DF", "train", "", "v")]
        files = ["there/SET/u/0.png", "there/SET/v/0.png"]
        root = make_dataset(files, {"SET.json": bench(*rows)})
    else:
        rows = "".join(f"{name}.png,{name}.png,{int(name == 'b')},x\n" for name in "abc")
        table = f"filename,image_path,target,category\n{rows}"
        root = make_dataset(["gan/a.png", "gan/b.png"], {"gan/metadata.csv": table})
    with pytest.raises(UserError) as error:
        load_dataset("toy").require_train()
    # `root:` says where DeepfakeBench's paths lead, and nothing to other layouts.
    assert ("`root:" in str(error.value)) == (layout == "deepfakebench")
    if layout == "deepfakebench":
        fill = ("{from: START_OF_PATHS, to: FOLDER}", '{from: "", to: there}')
        follow(root, str(error.value), Step("root", fill))
    follow(root, str(error.value), Step("missing_files"))
    dataset = load_dataset("toy")
    assert (len(dataset.require_train()), dataset.missing) == (2, ())


@pytest.mark.parametrize(("people", "offers"), [("p0,p1,p2,p3", True), ("p0", False)])
def test_fewer_folds_are_offered_where_there_are_fewer(toy, people, offers):
    files = expand(f"{{real,fake}}/{{{people}}}/{{0,1}}.png")
    dataset = toy(files, {"dataset.yaml": "subfolders: group\n"})
    with refused("too few for 5 folds") as error:
        ensure_folds(dataset, None)
    found = re.search(r"--n-folds (\d+)", str(error.value))
    assert (found is not None) == offers
    assert "group_by" not in str(error.value)
    if found:
        assert ensure_folds(dataset, f"sgkf{found[1]}_s42")[2] is not None
