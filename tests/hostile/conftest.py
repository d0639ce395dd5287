"""A tiny data set and model, the commands in this process, and children without rights."""

import multiprocessing
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from src import paths
from tests.data.conftest import make_dataset, picture

__all__ = ["make_dataset"]
MODEL = """
backbone: {name: compact_net, pretrained: none, kwargs: {widths: [4, 4, 8]}}
input: {image_size: 16}
augment: crop_flip
optim: {lr: 1e-2, epochs: 1, batch_size: 4}
"""
COMPUTE = ["--precision", "fp32", "--device", "cpu", "--workers", "0"]
Main = Callable[..., int]


@pytest.fixture
def toy(make_dataset, artefact_root: Path) -> Path:
    """Write input/toy: 12 train and 4 test pictures in class folders, 2 folds; and a model."""
    names = [f"train/{kind}/{i}.png" for kind in ("real", "fake") for i in range(6)]
    names += [f"test/{i}.png" for i in range(4)]
    root = make_dataset(names, {"dataset.yaml": "n_folds: 2\n"})
    write_model(artefact_root)
    return root


@pytest.fixture
def open_root(toy: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Copy the artefact root with input/toy to a place that every user may read."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        root = Path(name)
        shutil.copytree(toy.parents[1], root, dirs_exist_ok=True)
        for path in (root, *root.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        monkeypatch.setenv("RVF_ROOT", str(root))
        yield root


def write_model(root: Path) -> None:
    """Write the config `small`."""
    folder = root / "configs" / "models"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "small.yaml").write_text(MODEL)


def train(*more: str, report: bool = False) -> int:
    """Type train_folds.py in this process; returns the exit code.

    Without a `report`, whose picture takes three quarters of so small a training.
    """
    from src.cli.train import main

    end = [] if report else ["--no-report"]
    return main(["--data", "toy", "--model", "small", *COMPUTE, *end, *more])


def tune(*more: str) -> int:
    """Type tune.py in this process."""
    from src.cli.tune import main

    return main(["--data", "toy", "--trials", "5", *more])


def predict(*more: str) -> int:
    """Type predict_ensemble.py in this process."""
    from src.cli.predict import main

    return main(["--data", "toy", *COMPUTE, *more])


def leftovers(root: Path) -> list[str]:
    """Return files that a command may have forgotten."""
    return [str(path) for mark in ("*.tmp", "*.partial") for path in root.rglob(mark)]


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of change of everything below a folder."""
    return {
        str(path.relative_to(root)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
    }


def in_child(work: Callable[[], object], before: Callable[[], object] = lambda: None) -> str:
    """Run something in a fork; returns repr of its result, or what it raised with its message."""
    context = multiprocessing.get_context("fork")
    parent, child = context.Pipe()

    def run() -> None:
        try:
            before()
            child.send(repr(work()))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the answer
            child.send(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")

    process = context.Process(target=run)
    process.start()
    child.close()  # else its end would not be noticed
    try:
        answer = parent.recv() if parent.poll(60) else "hung"
    except EOFError:
        answer = "died"
    process.join(5)
    process.kill()
    return answer


def become_nobody() -> None:
    """Give up root's rights, under which every file can be read and written."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


__all__ += ["leftovers", "paths", "picture", "predict", "train", "tree", "tune", "write_model"]
__all__ += ["become_nobody", "in_child"]
