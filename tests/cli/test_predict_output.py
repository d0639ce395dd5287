"""A recipe's submission is replaced by the same recipe's alone, and only as it was written."""

import json

import cv2
import numpy as np
import pytest

from src import paths
from src.artifacts.submissions import write_answers
from src.cli import predict, tune
from src.data.layouts.load import load_dataset
from tests.ensemble.synthetic import DATA, SCHEME, make_folds


@pytest.fixture
def submission(artefact_root, tmp_path):
    """Tune on a member from elsewhere, which needs no model; yields where the answers go."""
    home = artefact_root / "input" / DATA
    for place in ("train/real", "train/fake", "test"):
        (home / place).mkdir(parents=True)
        for number in range(3):
            cv2.imwrite(str(home / place / f"{number}.png"), np.full((8, 8, 3), 9 * number))
    folds = make_folds()
    logits = np.random.default_rng(0).normal(size=len(folds)) + folds["label"]
    folds[["item_id", "fold"]].assign(logit=logits).to_csv(tmp_path / "oof", index=False)
    items = load_dataset(DATA).test["item_id"]
    items.to_frame().assign(prob=[0.1, 0.6, 0.9]).to_csv(tmp_path / "test", index=False)
    paths.oof_dir(DATA, SCHEME, "one").parent.mkdir(parents=True)
    words = ["--data", DATA, "--strategies", "mean@0.5"]
    words += ["--extra", f"one={tmp_path / 'oof'},{tmp_path / 'test'}"]
    assert tune.main(words) == 0
    return paths.submission_csv(DATA, "tuned")


def predict_it():
    return predict.main(["--data", DATA])


def test_the_same_recipe_replaces_what_it_wrote(submission):
    assert predict_it() == 0
    first = submission.read_bytes()
    assert predict_it() == 0
    assert submission.read_bytes() == first
    submission.unlink()  # as a kill between the two files leaves it
    assert predict_it() == 0
    assert submission.read_bytes() == first


@pytest.mark.parametrize("way", ["edited", "foreign", "voted", "sidecar"])
def test_nothing_else_is_replaced(submission, capsys, way):
    submission.parent.mkdir(parents=True)
    if way == "edited":
        assert predict_it() == 0
        submission.write_text(submission.read_text().replace("0\n", "1\n"))
    elif way == "foreign":
        submission.write_text("my notes")
    elif way == "voted":
        table = load_dataset(DATA).test[["item_id"]]
        write_answers(submission, table, {"voted": []})
    else:
        submission.with_suffix(".json").write_text(json.dumps({"mine": True}))
    before = {file: file.read_bytes() for file in submission.parent.iterdir()}
    assert predict_it() == 2
    assert "is there, and not as this command wrote it" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in submission.parent.iterdir()} == before
