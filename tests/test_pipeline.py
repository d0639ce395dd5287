"""The three commands as a user types them, on a tiny data set in a zip."""

import json
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from src import paths
from tests.shared import tiny_model

REPO = Path(__file__).resolve().parent.parent
Run = Callable[..., subprocess.CompletedProcess[str]]
OTHER = "extends: tiny\ninput: {image_size: 12, crop_pct: 0.75}\ntta: flip\n"
# Fails as soon as one of them is imported: what runs with it makes no forward pass.
WITHOUT_TORCH = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "timm", "torchvision", "albumentations", "av"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
"""


def picture(rng: np.random.Generator, *, fake: bool) -> bytes:
    """Return a JPEG with structure; fakes are brighter."""
    low = 90 if fake else 0
    small = rng.integers(low, low + 160, (8, 8, 3), dtype=np.uint8)
    pixels = cv2.resize(small, (20, 20), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


@pytest.fixture
def tiny(artefact_root: Path) -> Path:
    """Write input/tiny (train in a zip, test in a folder) and two model configs."""
    home = artefact_root / "input" / "tiny"
    home.mkdir(parents=True)
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(home / "train.zip", "w") as archive:
        for index in range(60):
            folder = "fake_images" if index % 2 else "real_images"
            archive.writestr(f"train/{folder}/{index:03d}.jpg", picture(rng, fake=bool(index % 2)))
    (home / "test").mkdir()
    ids = [f"{index:04d}.jpg" for index in range(12)]
    for index, name in enumerate(ids):
        (home / "test" / name).write_bytes(picture(rng, fake=bool(index % 2)))
    (home / "test" / ids[3]).write_bytes(b"not an image")
    sample = pd.DataFrame({"filename": ids[::-1], "label": 0})
    sample.to_csv(home / "sample_submission.csv", index=False)
    configs = artefact_root / "configs" / "models"
    configs.mkdir(parents=True)
    (configs / "tiny.yaml").write_text(tiny_model("crop_flip"))
    (configs / "other.yaml").write_text(OTHER)
    return artefact_root


def done(result: subprocess.CompletedProcess[str]) -> str:
    """Return what a command printed, having checked that it succeeded."""
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout


def test_the_three_commands_make_a_checked_submission(tiny: Path, run_cli: Run) -> None:
    """One fold of one model is enough; more models, another recipe and a folder come after."""
    train = done(run_cli("train_folds.py", "--model", "tiny", "--fold", "0"))
    assert "epoch 4/4 loss" in train
    assert "f1_real" in train
    done(run_cli("tune.py"))
    done(run_cli("predict_ensemble.py", cwd=tiny))
    submission = pd.read_csv(paths.submission_csv("tiny", "tuned"), dtype=str)
    sample = pd.read_csv(tiny / "input/tiny/sample_submission.csv", dtype=str)
    assert submission["filename"].tolist() == sample["filename"].tolist()
    assert list(submission.columns) == ["filename", "label"]
    assert set(submission["label"]) <= {"0", "1"}
    sidecar = json.loads(paths.submission_csv("tiny", "tuned").with_suffix(".json").read_text())
    assert sidecar["fallback"]["items"] == ["0003.jpg"]

    done(run_cli("train_folds.py", "--model", "tiny"))
    again = done(run_cli("train_folds.py", "--model", "tiny"))
    assert again.count("skipped") == 5
    done(run_cli("train_folds.py", "--model", "other"))
    done(run_cli("tune.py", "--trials", "20"))
    first = done(run_cli("predict_ensemble.py"))
    assert "0003.jpg" in first
    truth = np.array([int(name[:4]) % 2 for name in sample["filename"]])
    answers = pd.read_csv(paths.submission_csv("tiny", "tuned"))["label"].to_numpy()
    readable = (sample["filename"] != "0003.jpg").to_numpy()
    assert (answers == truth)[readable].mean() > 0.7  # bright against dark is easy


def test_a_second_recipe_votes_without_torch(tiny: Path, run_cli: Run, tmp_path: Path) -> None:
    for model in ("tiny", "other"):
        done(run_cli("train_folds.py", "--model", model, "--fold", "1"))
    done(run_cli("tune.py", "--trials", "10"))
    done(run_cli("predict_ensemble.py"))
    stamps = {path: path.stat().st_mtime_ns for path in (tiny / "oof").rglob("test_fold_*")}
    (tmp_path / "block").mkdir()
    (tmp_path / "block" / "sitecustomize.py").write_text(WITHOUT_TORCH)
    blocked = {"PYTHONPATH": str(tmp_path / "block")}
    done(run_cli("tune.py", "--voting", "hard", "--recipe", "hard", "--trials", "10", env=blocked))
    out = done(run_cli("predict_ensemble.py", "--recipe", "hard", env=blocked))
    assert "0 of them to predict with" in out
    assert paths.submission_csv("tiny", "hard").exists()
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    assert len(stamps) >= 1


def test_any_folder_is_predicted_from_a_checkpoint_alone(tiny: Path, run_cli: Run) -> None:
    done(run_cli("train_folds.py", "--model", "other", "--fold", "0"))
    out = tiny / "out.csv"
    weights = paths.checkpoint("tiny", "sgkf5_s42", "other", 0)
    done(
        run_cli(
            "predict_ensemble.py", "--checkpoint", weights, "--input-dir", tiny / "input/tiny/test",
            "--output", out, "--prob",
        )
    )  # fmt: skip
    answers = pd.read_csv(out).set_index("filename")
    assert len(answers) == 12
    assert answers.loc["0003.jpg"].isna().all()
    rest = answers.drop("0003.jpg")
    assert ((rest["prob"] >= 0.5) == (rest["label"] == 1)).all()


def test_kill_9_in_mid_epoch_and_the_same_command_gives_equal_bytes(
    tiny: Path, run_cli: Run
) -> None:
    (tiny / "configs/models/long.yaml").write_text("extends: tiny\noptim: {epochs: 40}\n")
    (tiny / "configs/models/whole.yaml").write_text("extends: tiny\noptim: {epochs: 40}\n")
    done(run_cli("train_folds.py", "--model", "whole", "--fold", "0"))
    state = paths.run_state("tiny", "sgkf5_s42", "long", 0)
    command = [sys.executable, str(REPO / "train_folds.py"), "--model", "long", "--fold", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not paths.run_record("tiny", "sgkf5_s42", "long", 0).exists()
    resumed = done(run_cli("train_folds.py", "--model", "long", "--fold", "0"))
    assert "resumed after epoch" in resumed
    oof = [paths.oof_csv("tiny", "sgkf5_s42", name, 0).read_bytes() for name in ("whole", "long")]
    assert oof[0] == oof[1]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["train_folds.py", "--model", "tinny"], ["unknown model 'tinny'", "'tiny'"]),
        (["train_folds.py", "--modle", "tiny"], ["--model"]),
        (["train_folds.py", "--model", "tiny", "--fold", "7"], ["no fold 7", "0, 1, 2, 3, 4"]),
        (["train_folds.py", "--model", "tiny", "--data", "tyni"], ["unknown data set", "'tiny'"]),
        (["train_folds.py", "--model", "tiny", "--set", "optim.lr=1"], ["--as"]),
        (
            ["train_folds.py", "--model", "tiny", "--set", "optim.lrr=1", "--as", "x"],
            ["'optim.lrr'", "'optim.lr'"],
        ),
        (["train_folds.py", "--model", "tiny", "--scheme", "sgkf1_s4"], ["scheme 'sgkf1_s4'"]),
        (["train_folds.py", "--model", "effnet_b0", "--fold", "0"], ["--weights", "--no-pretrain"]),
        (["train_folds.py", "--model", "mobilenetv2_100", "--fold", "0"], ["--weights FILE"]),
        (["predict_ensemble.py"], ["no recipe", "tune.py"]),
        (["predict_ensemble.py", "--checkpoint", "x"], ["--input-dir", "--output"]),
        (["tune.py"], ["train_folds.py"]),
    ],
)  # fmt: skip
def test_a_users_mistake_gets_one_message_and_exit_code_2(
    tiny: Path, run_cli: Run, arguments: list[str], wanted: list[str]
) -> None:
    result = run_cli(*arguments)
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("error: ")
    for text in wanted:
        assert text in result.stderr


def test_a_variant_gets_its_own_name_and_config_file(tiny: Path, run_cli: Run) -> None:
    change = ["--set", "optim.epochs=1", "--as", "tiny_short"]
    done(run_cli("train_folds.py", "--model", "tiny", "--fold", "0", *change))
    record = json.loads(paths.run_record("tiny", "sgkf5_s42", "tiny_short", 0).read_text())
    assert record["config"]["optim"]["epochs"] == 1
    assert (tiny / "configs/models/tiny_short.yaml").exists()
    assert not paths.run_record("tiny", "sgkf5_s42", "tiny", 0).exists()
