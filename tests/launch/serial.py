"""What a launch must leave: the same commands, typed one by one."""

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
def serial(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Train two models on three folds, one after the other; returns the artefacts."""
    root = write_world(tmp_path_factory.mktemp("serial"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RVF_ROOT", str(root))
        for model in ("a", "b"):
            assert parsers.main("train", ["--model", model, *PLAIN]) == 0
        assert parsers.main("tune", ["--data", "tiny", "--scheme", SCHEME]) == 0
    return artefacts(root)


@pytest.fixture
def tiny_root(tmp_path: Path) -> Path:
    """Return the same world, in which nothing is trained."""
    return write_world(tmp_path / "root")
