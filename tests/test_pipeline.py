"""The three commands as a user types them, on a tiny data set in a zip."""

import contextlib
import io
import json
import logging
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
from src.cli import predict, train, tune
from tests.conftest import REPO, run_command
from tests.shared import tiny_model

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


def write_tiny(root: Path) -> None:
    """Write input/tiny (train in a zip, test in a folder) and two model configs."""
    home = root / "input" / "tiny"
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
    configs = root / "configs" / "models"
    configs.mkdir(parents=True)
    (configs / "tiny.yaml").write_text(tiny_model("crop_flip"))
    (configs / "other.yaml").write_text(OTHER)


@pytest.fixture
def tiny(artefact_root: Path) -> Path:
    """Return an artefact root in which nothing was done yet."""
    write_tiny(artefact_root)
    return artefact_root


def typed(main: Callable[[list[str]], int], *words: str) -> str:
    """Return what a command that succeeds prints and logs in this process."""
    out, log = io.StringIO(), logging.getLogger("rvf")
    handler = logging.StreamHandler(out)  # the command's own may be of an earlier test's stream
    log.addHandler(handler)
    level = log.level
    log.setLevel(logging.INFO)
    try:
        with contextlib.redirect_stdout(out):
            assert main(list(words)) == 0
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
    return out.getvalue()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Type the commands once; returns the artefact root and what each of them printed."""
    root = tmp_path_factory.mktemp("world")
    write_tiny(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RVF_ROOT", str(root))
        said = {
            name: done(run_command(*words, cwd=root))
            for name, *words in (
                # With a worker, for which a Python that exits must not wait.
                ("train", "train_folds.py", "--model", "tiny", "--fold", "0", "--workers", "1"),
                ("tune", "tune.py"),
                ("predict", "predict_ensemble.py"),
            )
        }
        # In this process from here on: starting one costs more than the work.
        said |= {
            name: typed(main, *words)
            for name, main, *words in (
                ("train all", train.main, "--model", "tiny", "--no-report"),
                ("again", train.main, "--model", "tiny"),
                ("other", train.main, "--model", "other", "--fold", "0", "--no-report"),
                ("tune two", tune.main, "--trials", "10", "--recipe", "two"),
                ("predict two", predict.main, "--recipe", "two"),
            )
        }
    return root, said


@pytest.fixture
def trained(world: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the artefact root in which everything was done; nothing in it is changed."""
    monkeypatch.setenv("RVF_ROOT", str(world[0]))
    return world[0]


def done(result: subprocess.CompletedProcess[str]) -> str:
    """Return what a command printed, having checked that it succeeded."""
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout


def test_the_three_commands_make_a_checked_submission(
    trained: Path, world: tuple[Path, dict[str, str]]
) -> None:
    """One fold of one model is enough; the other folds, another model and recipe come after."""
    said = world[1]
    assert "epoch 4/4: loss" in said["train"]
    assert "f1_real" in said["train"]
    sample = pd.read_csv(trained / "input/tiny/sample_submission.csv", dtype=str)
    for recipe in ("tuned", "two"):
        submission = pd.read_csv(paths.submission_csv("tiny", recipe), dtype=str)
        assert submission["filename"].tolist() == sample["filename"].tolist()
        assert list(submission.columns) == ["filename", "label"]
        assert set(submission["label"]) <= {"0", "1"}
        sidecar = paths.submission_csv("tiny", recipe).with_suffix(".json").read_text()
        assert json.loads(sidecar)["fallback"]["items"] == ["0003.jpg"]
    assert said["again"].count("skipped") == 5
    assert "0003.jpg" in said["predict two"]
    truth = np.array([int(name[:4]) % 2 for name in sample["filename"]])
    readable = (sample["filename"] != "0003.jpg").to_numpy()
    right = submission["label"].astype(int).to_numpy() == truth
    assert right[readable].mean() > 0.7  # bright against dark is easy


def test_a_second_recipe_votes_without_torch(trained: Path, tmp_path: Path) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in (trained / "oof").rglob("test_fold_*")}
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_TORCH)
    blocked = {"PYTHONPATH": str(tmp_path)}
    tune = ["tune.py", "--voting", "hard", "--recipe", "hard", "--trials", "10"]
    done(run_command(*tune, env=blocked))
    out = done(run_command("predict_ensemble.py", "--recipe", "hard", env=blocked))
    assert "0 of them to predict with" in out
    assert paths.submission_csv("tiny", "hard").exists()
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    assert len(stamps) >= 1


def test_any_folder_is_predicted_from_a_checkpoint_alone(trained: Path, tmp_path: Path) -> None:
    weights = paths.checkpoint("tiny", "sgkf5_s42", "other", 0)
    folder, out = trained / "input/tiny/test", tmp_path / "out.csv"
    to = ["--checkpoint", weights, "--input-dir", folder, "--output", out, "--prob"]
    typed(predict.main, *map(str, to))
    answers = pd.read_csv(out).set_index("filename")
    assert len(answers) == 12
    assert answers.loc["0003.jpg"].isna().all()
    rest = answers.drop("0003.jpg")
    assert ((rest["prob"] >= 0.5) == (rest["label"] == 1)).all()


@pytest.mark.nightly
def test_kill_9_in_mid_epoch_and_the_same_command_gives_equal_bytes(tiny: Path) -> None:
    for name in ("whole", "long"):
        text = "extends: tiny\noptim: {epochs: 12}\n"
        (tiny / f"configs/models/{name}.yaml").write_text(text)
    typed(train.main, "--model", "whole", "--fold", "0")
    state = paths.run_state("tiny", "sgkf5_s42", "long", 0)
    command = [sys.executable, str(REPO / "train_folds.py"), "--model", "long", "--fold", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not paths.run_record("tiny", "sgkf5_s42", "long", 0).exists()
    assert "resumed after epoch" in typed(train.main, "--model", "long", "--fold", "0")
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
        (
            ["train_folds.py", "--model", "effnet_b0", "--fold", "0"],
            ["--model effnet_lite0", "--weights", "--no-pretrain"],
        ),
        (["train_folds.py", "--model", "mobilenetv2_100", "--fold", "0"], ["--weights FILE"]),
        (["predict_ensemble.py"], ["no recipe", "tune.py"]),
        (["predict_ensemble.py", "--checkpoint", "x"], ["--input-dir", "--output"]),
        (["tune.py"], ["train_folds.py"]),
    ],
)  # fmt: skip
def test_a_users_mistake_gets_one_message_and_exit_code_2(
    tiny: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], wanted: list[str]
) -> None:
    script, *words = arguments
    main = {"train_folds.py": train, "tune.py": tune, "predict_ensemble.py": predict}[script].main
    assert main(words) == 2
    error = capfd.readouterr().err
    assert "Traceback" not in error
    assert error.startswith("error: ")
    for text in wanted:
        assert text in error


@pytest.mark.parametrize("script", ["train_folds.py", "tune.py", "predict_ensemble.py"])
def test_a_script_hands_its_exit_code_on(tiny: Path, script: str) -> None:
    result = run_command(script, "--modle", "tiny")
    assert (result.returncode, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr
