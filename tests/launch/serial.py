"""What a launch must leave: the same commands, typed one by one."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from src.cli import parsers
from tests.cli.conftest import write_pictures
from tests.shared import tiny_model

SCHEME = "sgkf3_s0"
PLAIN = (
    "--data", "tiny", "--scheme", SCHEME, "--device", "cpu", "--workers", "0", "--no-report",
    "--precision", "fp32", "--track", "none",
)  # fmt: skip
Launched = Callable[..., subprocess.CompletedProcess[str]]
FLAGS = ("--models", "a", "b", *PLAIN)


def write_world(root: Path) -> Path:
    """Write a data set and two models into a folder, and return it."""
    write_pictures(root / "input" / "tiny", 36, 12, np.random.default_rng(0))
    configs = root / "configs" / "models"
    configs.mkdir(parents=True)
    (configs / "a.yaml").write_text(tiny_model())
    (configs / "b.yaml").write_text("extends: a\nseed: 7\n")
    return root


def artefacts(root: Path) -> dict[str, bytes]:
    """Return checkpoints, out-of-fold predictions and recipes, by path; records hold times."""
    kinds = ("checkpoints/**/*.safetensors", "oof/**/*.csv", "oof/**/*.parquet", "recipes/**/*")
    found = [path for kind in kinds for path in root.glob(kind) if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(found)}


@pytest.fixture(scope="session")
def serial_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train two models on three folds, one after the other, and tune; returns the folder."""
    root = write_world(tmp_path_factory.mktemp("serial"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RVF_ROOT", str(root))
        for model in ("a", "b"):
            assert parsers.main("train", ["--model", model, *PLAIN]) == 0
        assert parsers.main("tune", ["--data", "tiny", "--scheme", SCHEME]) == 0
    return root


@pytest.fixture
def tiny_root(tmp_path: Path) -> Path:
    """Return the same world, in which nothing is trained."""
    return write_world(tmp_path / "root")


@pytest.fixture
def trained_root(tmp_path: Path, serial_root: Path) -> Path:
    """Return the same world, trained and not tuned."""
    root = tmp_path / "trained"
    shutil.copytree(serial_root, root, ignore=shutil.ignore_patterns("recipes"))
    return root


def folds_of(root: Path) -> dict[str, bytes]:
    """Return the artefacts of training alone."""
    return {path: text for path, text in artefacts(root).items() if "recipes" not in path}


def check_tuned(root: Path, serial_root: Path, launched: Launched) -> None:
    """Launch tune.py, then two workers of one study, and hold what they leave against one by one.

    `launched` types `launch` with these words and returns its process.
    """
    study = f"tune.py --recipe shared --study {root / 's.journal'} --strategies tpe --trials 8"
    words = ["--run", "tune.py", "--then", study, "--times", "2"]
    said = launched(*words)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "3 done" in said.stdout
    left = artefacts(root)
    assert left.pop("recipes/tiny/shared.json")
    assert left == artefacts(serial_root)
    trials = (root / "s.journal").read_text().count('"op_code": 4')
    trials += (root / "s.journal").read_text().count('"op_code":4')
    assert trials >= 8
    again = launched(*words)
    assert again.returncode == 0
    assert "nothing is left to do" in again.stdout
