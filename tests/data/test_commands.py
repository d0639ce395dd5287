"""`python -m src data` and `python -m src folds`, called in this process."""

import re

import pandas as pd
import pytest

from src import paths
from src.artifacts.label_names import read_label_names
from src.cli import data as data_command
from src.cli import folds as folds_command
from src.data.audit.metadata import find_shortcuts
from src.data.folds.scan import scan_items
from src.data.layouts.load import load_dataset
from tests.clips import write_clip
from tests.data.conftest import picture

SIX = [f"train/{c}/{i}.png" for c in ("real", "fake") for i in range(6)]


def test_data_says_what_was_understood(make_dataset, capsys):
    root = make_dataset([*SIX, "test/t.png"], {"sample_submission.csv": "id,label\nt,0\n"})
    (root / "train/real/broken.jpg").write_bytes(b"")
    (root / "train/real/.DS_Store").write_bytes(b"")
    (root / "test/t.png").write_bytes((root / SIX[0]).read_bytes())
    assert data_command.main(["--data", "toy"]) == 0
    out = capsys.readouterr().out
    for part in (
        "train  real   image         7", "train  fake   image         6", "test   ?",
        "sample_submission.csv, 1 rows of id,label", "24x24 (13)", "png 13", "1 x junk",
        "real/broken.jpg: the file is empty", "test items whose file is in train: 1",
        "python -m src folds",
    ):  # fmt: skip
        assert part in out, part


def test_folds_prints_table_and_leaks_twice(make_dataset, capsys):
    make_dataset(SIX)
    for text in ("sgkf3_s1.csv", "exist already"):
        assert folds_command.main(["--data", "toy", "--n-folds", "3", "--seed", "1"]) == 0
        out = capsys.readouterr().out
        assert text in out
        assert "StratifiedKFold would have leaked" in out
    assert folds_command.main(["--scheme", "sgkf3_s1", "--seed", "1"]) == 2
    assert "drop one" in capsys.readouterr().err


def test_data_says_what_training_on_another_set_would_see(make_dataset, capsys):
    one = make_dataset(SIX, name="one")
    names = [f"{label}/{k}.png" for label in ("real", "fake") for k in range(4)]
    theirs = {name: picture(40 + k) for k, name in enumerate(names)}
    make_dataset(theirs | {"fake/copy.png": (one / SIX[0]).read_bytes()}, name="two")
    assert data_command.main(["--data", "two", "--from", "one"]) == 0
    said = capsys.readouterr()
    assert "8 of 9 labelled train items of two can be scored by what is trained on one" in said.out
    assert "two: 1 of 9 items would be seen in training on one" in said.out
    assert data_command.main(["--data", "one", "--from", "one"]) == 2
    assert "one data set: drop --from" in capsys.readouterr().err


@pytest.mark.parametrize("command", [data_command, folds_command])
def test_typos_are_named(make_dataset, capsys, command):
    make_dataset(SIX)
    assert command.main(["--dat", "toy"]) == 2
    assert "did you mean '--data'" in capsys.readouterr().err
    assert command.main(["--data", "toi"]) == 2
    assert "did you mean 'toy'" in capsys.readouterr().err


def test_clips_are_described_and_folded(make_dataset, capsys):
    root = make_dataset({"train/real/bad.mp4": b"1", "train/real/p.png": picture(0)})
    for number in range(3):
        write_clip(root / "train" / "real" / f"{number}.mp4", 5 + number, fps=10, low=number)
        write_clip(
            root / "train" / "fake" / f"{number}.mp4", 8, size=(24, 40), fps=20, low=9 * number
        )
    assert data_command.main([]) == 0
    out = capsys.readouterr().out
    assert "clips: 6 can be read" in out
    assert re.search(r"frames a second +10 +15 +20\n", out)
    assert re.search(r"seconds +0.4 +0.45 +0.7\n", out)
    assert re.search(r"frames +5 +7.5 +8\n", out)
    assert "bad.mp4: not a video" in out
    assert folds_command.main(["--n-folds", "2"]) == 0
    folds = pd.read_csv(paths.folds_csv("toy", "sgkf2_s42"))
    assert folds["kind"].value_counts().to_dict() == {"video": 6, "image": 1}
    assert set(folds["fold"]) == {0, 1}


def test_shortcuts_are_found(make_dataset):
    root = make_dataset([f"train/{c}/{i}.png" for c in ("real", "fake") for i in range(20)])
    for path in (root / "train" / "fake").iterdir():
        path.write_bytes(path.read_bytes() + b" " * 5000)
    dataset = load_dataset("toy")
    (found,) = find_shortcuts(dataset, scan_items(dataset))
    assert (found.name, found.auc) == ("the size in bytes", 1.0)


LIVE = [f"train/{c}/{i}.png" for c in ("live", "spoof") for i in range(6)]


@pytest.mark.parametrize(("files", "texts", "polarity", "names"), [
    (LIVE, {}, "0 -> live, 1 -> spoof", ("live", "spoof")),
    ([f"train/{i}.png" for i in range(12)],
     {"train.csv": "id,label\n" + "".join(f"{i},{'ai' if i % 2 else 'photo'}\n" for i in range(12)),
      "dataset.yaml": "labels: {photo: 0, ai: 1}\n"}, "0 -> photo, 1 -> ai", ("photo", "ai")),
    ([f"train/{i}.png" for i in range(12)],
     {"train.csv": "id,label\n" + "".join(f"{i},{i % 2}\n" for i in range(12)),
      "dataset.yaml": "labels: {1: 0, 0: 1}\n"}, "0 -> real (1), 1 -> fake (0)",
     ("real", "fake")),
])  # fmt: skip
def test_polarity_is_printed_and_classes_have_their_own_names(
    make_dataset, capsys, files, texts, polarity, names
):
    make_dataset(files, texts)
    assert data_command.main(["--data", "toy"]) == 0
    out = capsys.readouterr().out
    assert f"labels: {polarity}\n" in out
    assert all(re.search(rf"train +{name} +image +6 ", out) for name in names)
    for _ in range(2):  # made, and there already
        assert folds_command.main(["--data", "toy", "--n-folds", "3"]) == 0
        out = capsys.readouterr().out
        assert f"labels: {polarity}\n" in out
        assert re.search(rf"items +{names[0]} +{names[1]} +{names[1]} %", out)
    assert read_label_names("toy").names == names
