"""Any folder by a recipe: answers as of test items, and which of them are unsure, and why."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from src import paths
from src.artifacts.recipes import read_recipe
from src.ensemble.shift.risk import find_band
from src.evidence.verdicts import count_verdicts, verdicts_of
from src.reporting.evaluated import honest_rows, subject_of_recipe

DEVICE = ("--data", "tiny", "--device", "cpu", "--workers", "0")


def test_every_reason_is_named_and_a_file_that_cannot_be_read_has_no_verdict():
    names = ["a", "b", "c", "d"]
    reasons = {"band": {"b", "d"}, "flips": {"b"}, "no_face": set()}
    found = verdicts_of(names, np.array([0, 1, 1, 0]), np.array([True] * 3 + [False]), reasons)
    assert found["verdict"].tolist() == ["real", "unsure", "fake", ""]
    assert found["reason"].tolist() == ["", "band; flips", "", "unreadable"]
    assert count_verdicts(found) == (
        "2 of 3 verdicts are sure (1 real, 1 fake); unsure: 1 band, 1 flips"
    )


@pytest.fixture
def tuned(tiny, command):
    """Train two folds of a tiny net, tune, predict; returns a call on the test folder.

    One test picture cannot be read. The call returns what was printed, the table and the JSON.
    """
    folder, out = tiny / "input" / "tiny" / "test", tiny / "out.csv"
    (folder / "47.png").write_bytes(b"\x89PNG no picture")
    for fold in "01":
        command("train", "--model", "tiny", "--fold", fold)
    command("tune", "--strategies", "mean")
    command("predict")

    def ask(*words, code=0):
        words = ["--recipe", "tuned", "--input-dir", folder, "--output", out, *words, *DEVICE]
        said = command("predict", *map(str, words), code=code)
        if code:
            return said, None, None
        table = pd.read_csv(out, keep_default_na=False, dtype=str).set_index("filename")
        return said, table, json.loads(out.with_suffix(".json").read_text())

    return ask


def test_files_are_answered_as_test_items_are(tuned):
    said, table, record = tuned("--risk", "0", "--deliveries", "2")
    submitted = pd.read_csv(paths.submission_csv("tiny", "tuned"), dtype=str, index_col=0)
    read = table[table["label"] != ""]
    assert list(table.columns) == ["label", "verdict", "reason"]
    assert (len(table), len(read)) == (16, 15)
    assert read["label"].tolist() == submitted.loc[read.index, "label"].tolist()
    assert table.loc["47.png"].tolist() == ["", "", "unreadable"]
    moved = record["deliveries"]["flipped"]
    assert (
        set(read.index[read["reason"] == "flips"])
        == set(moved)
        == set(read.index[read["verdict"] == "unsure"])
    )
    steady = read[read["reason"] == ""]
    assert (steady["verdict"] == steady["label"].map({"0": "real", "1": "fake"})).all()
    assert record["risk"] is None
    assert sum(record["verdicts"].values()) == 15
    assert f"{15 - len(moved)} of 15 verdicts are sure" in said

    # A risk that cannot be met is refused before anything is predicted.
    said = tuned(code=2)[0]
    assert "predicting" not in said
    lowest = re.search(
        r"--risk 0\.05 cannot be met: .* the lowest that can is (0\.\d+)\. --risk 0", said
    )
    assert lowest is not None
    said, table, record = tuned("--risk", lowest[1], "--prob")
    assert f"risk {lowest[1]} with 90% confidence; sure, by P(fake): " in said
    assert "of 32 out-of-fold rows" in said
    subject = subject_of_recipe("tuned", read_recipe(paths.recipe_json("tiny", "tuned")))
    band = find_band(honest_rows(subject), float(lowest[1]))
    low, high = band.ends(record["threshold"])
    read = table[table["label"] != ""]
    prob = read["prob"].astype(float)
    sure = (prob <= low * (1 + 1e-9)) | (prob >= high * (1 - 1e-9))
    assert (read["reason"] == "").tolist() == sure.tolist()
    assert record["risk"]["check"]["rows"] == 32


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--risk", "0.1"], "--risk says which of a recipe's verdicts on any folder"),
        (["--recipe", "a", "--input-dir", "x"], "--input-dir want --output too"),
        (["--input-dir", "x", "--output", "y.csv"], "want --checkpoint too, or --recipe NAME"),
        (["--checkpoint", "c", "--input-dir", "x", "--output", "y.csv", "--deliveries", "4"],
         "it wants --recipe NAME"),
        (["--recipe", "a", "--input-dir", "x", "--output", "y.csv", "--threshold", "0.4"],
         "--threshold and --recipe do not go together"),
        (["--vote", "a.csv", "b.csv", "--risk", "0.1"], "--vote and --risk do not go together"),
    ],
)  # fmt: skip
def test_flags_that_say_nothing_together_are_refused(command, words, why):
    assert re.search(
        why, command("predict", *words, *([] if "--output" not in words else DEVICE), code=2)
    )
