"""What a training shows when a fold ends, through the command."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, log_loss

from src import paths
from src.metrics import sigmoid
from src.reporting import charts
from tests.cli.conftest import SCHEME, Command, write_pictures
from tests.cli.test_train import names
from tests.shared import tiny_model


@pytest.fixture
def tiny(artefact_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write input/tiny and the config `tiny`; figures have few pixels."""
    write_pictures(artefact_root / "input" / "tiny", 32, 0, np.random.default_rng(0))
    configs = artefact_root / "configs" / "models"
    configs.mkdir(parents=True)
    (configs / "tiny.yaml").write_text(tiny_model())
    monkeypatch.setattr(charts, "DPI", 25)
    return artefact_root


@pytest.mark.usefixtures("drawn")
def test_a_picture_and_a_summary_are_there_when_a_fold_ends(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = paths.report_dir("tiny", SCHEME, "tiny")
    command("train", "--model", "tiny", "--fold", "0")  # with --no-report
    assert not home.exists()
    said = command("train", "--model", "tiny", "--fold", "1", report=True)
    assert f"look: {home / 'fold_1.png'}" in said
    picture = cv2.imread(str(home / "fold_1.png"))
    assert picture is not None
    assert picture.std() > 5
    text = (home / "fold_1.txt").read_text()
    oof = pd.read_csv(paths.oof_csv(*names("tiny", 1)))
    prob = sigmoid(oof["logit"])
    assert f"log loss {log_loss(oof['label'], prob):.4f} (one answer for all items: 0.6931)" in text
    score = f1_score(oof["label"], prob >= 0.5, average="macro", zero_division=0)
    assert (
        f"at 0.5: accuracy {np.mean(oof['label'] == (prob >= 0.5)):.4f}, macro-F1 {score:.4f}"
        in text
    )
    assert "kept: epoch 4 (no held-out item had a say)" in text
    assert sum(line.split()[:1] in (["1"], ["2"], ["3"], ["*4"]) for line in text.splitlines()) == 4
    command("train", "--model", "tiny", "--fold", "all", report=True)
    assert "train_accuracy" in (home / "fold_all.txt").read_text()


def test_a_picture_that_fails_costs_no_run(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # cannot be imported
    said = command("train", "--model", "tiny", "--fold", "0", report=True)
    assert "fold 0 is finished, but not drawn: " in said
    assert "python -m src report tiny --data tiny" in said
    assert paths.run_record(*names("tiny")).is_file()
    assert "finished already" in command("train", "--model", "tiny", "--fold", "0")
