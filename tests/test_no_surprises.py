"""No network, no file outside RVF_ROOT, no secret in a file; and a bundle that predicts on Kaggle.

One round of commands with everything blocked that must not be used; each test looks at its traces.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from tests.conftest import REPO
from tests.shared import NO_NETWORK, tiny_model

SECRETS = {
    "KAGGLE_KEY": "s3cret-kaggle-0123456789abcdef",
    "KAGGLE_USERNAME": "s3cret-kaggle-user",
    "HF_TOKEN": "hf_s3cretHuggingFaceToken0123456789",
    "WANDB_API_KEY": "s3cret-wandb-0123456789",
    "AWS_SECRET_ACCESS_KEY": "s3cret/aws+0123456789",
    "HTTPS_PROXY": "http://somebody:s3cretPassword@proxy.invalid:3128",
    "DATABASE_URL": "postgres://somebody:s3cretPassword@db.invalid/x",
}
IMPORT_ALL = """
import importlib, pkgutil, sys, src
for module in pkgutil.walk_packages(src.__path__, "src."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from src.cli.train import main
sys.exit(main(sys.argv[1:]))
"""
ARTEFACTS = {
    ".cache", "bundles", "checkpoints", "configs", "folds", "input", "oof", "recipes", "reports",
    "submissions",
}  # fmt: skip

Snapshot = dict[str, tuple[int, int]]


def snapshot(folder: Path) -> Snapshot:
    """Return size and time of every file, and every folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        stat = path.lstat()
        found[str(path)] = (-1, 0) if path.is_dir() else (stat.st_size, stat.st_mtime_ns)
    return found


@dataclass
class World:
    """Folders of a machine on which the commands were run, and what happened there."""

    base: Path
    results: dict[str, subprocess.CompletedProcess[str]] = field(default_factory=dict)
    before: dict[str, Snapshot] = field(default_factory=dict)

    def folder(self, name: str) -> Path:
        return self.base / name

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ}
        return kept | SECRETS | {
            "HOME": str(self.folder("home")),
            "TMPDIR": str(self.folder("tmp")),
            "PYTHONPATH": str(self.folder("guard")),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip

    def run(self, name: str, *words: str, **env: str) -> None:
        self.results[name] = subprocess.run(
            [sys.executable, *words], cwd=self.folder("cwd"), env=self.environment | env,
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip


def write_data(home: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(50):
        fake, test = index % 2, index >= 40
        small = rng.integers(90 * fake, 90 * fake + 160, (8, 8, 3), dtype=np.uint8)
        pixels = cv2.resize(small, (20, 20), interpolation=cv2.INTER_CUBIC)
        folder = home / ("test" if test else f"train/{'fake' if fake else 'real'}")
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{index:03d}.jpg"), pixels)


def notebook(kaggle: Path, competition: str) -> str:
    """Return the notebook's code cells as a script, with this folder for /kaggle."""
    cells = json.loads((REPO / "docs" / "kaggle.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) == 3
    text = "\n".join(code)
    assert text.count('"/kaggle/') == 2
    assert text.count('COMPETITION = ""') == 1
    text = text.replace('"/kaggle/', f'"{kaggle}/')
    return text.replace('COMPETITION = ""', f'COMPETITION = "{competition}"')


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Train, tune and bundle in a clone; then take the clone away and predict with the notebook."""
    world = World(tmp_path_factory.mktemp("world"))
    for name in ("home", "tmp", "cwd", "guard", "kaggle/input", "kaggle/working"):
        world.folder(name).mkdir(parents=True)
    (world.folder("guard") / "sitecustomize.py").write_text(NO_NETWORK)
    clone, root = world.folder("clone"), world.folder("root")
    leave = shutil.ignore_patterns("__pycache__")
    for name in ("src", "configs", "docs"):
        shutil.copytree(REPO / name, clone / name, ignore=leave)
    for name in ("train_folds.py", "tune.py", "predict_ensemble.py", "requirements.txt", "LICENSE"):
        shutil.copy(REPO / name, clone / name)
    write_data(root / "input" / "tiny")
    (root / "input" / "tiny" / "dataset.yaml").write_text("n_folds: 2\n")
    (root / "configs" / "models").mkdir(parents=True)
    (root / "configs" / "models" / "tiny.yaml").write_text(tiny_model("standard"))
    world.before = {name: snapshot(world.folder(name)) for name in ("clone", "home", "tmp", "cwd")}
    world.before["input"] = snapshot(root / "input")
    env = {"RVF_ROOT": str(root), "PYTHONPATH": f"{world.folder('guard')}:{clone}"}
    world.run("train", "-c", IMPORT_ALL, "--model", "tiny", **env)
    world.run("tune", str(clone / "tune.py"), **env)
    world.run("bundle", "-m", "src", "bundle", **env)
    world.before["clone after"] = snapshot(clone)
    shutil.rmtree(clone)
    if world.results["bundle"].returncode == 0:
        _on_kaggle(world, root)
    return world


def _on_kaggle(world: World, root: Path) -> None:
    kaggle = world.folder("kaggle")
    with zipfile.ZipFile(root / "bundles" / "tiny" / "tuned.zip") as archive:
        archive.extractall(kaggle / "input" / "my-bundle")
    data = kaggle / "input" / "the-competition"
    data.mkdir()
    with zipfile.ZipFile(data / "train.zip", "w") as archive:  # as some competitions come
        for path in sorted((root / "input" / "tiny" / "train").rglob("*.jpg")):
            archive.write(path, path.relative_to(root / "input" / "tiny"))
    shutil.copytree(root / "input" / "tiny" / "test", data / "test")
    world.before["kaggle"] = snapshot(kaggle / "input")
    script = world.folder("guard") / "notebook.py"
    script.write_text(notebook(kaggle, "the-competition"))
    world.run("notebook", str(script))


def output_of(world: World, name: str) -> str:
    result = world.results[name]
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout


@pytest.mark.parametrize("name", ["train", "tune", "bundle", "notebook"])
def test_every_module_and_command_runs_with_the_network_blocked(world: World, name: str) -> None:
    said = {"train": "fold 1", "tune": "wrote", "bundle": "tuned.zip", "notebook": "submission"}
    assert said[name] in output_of(world, name)
    assert "network:" not in world.results[name].stderr


def test_the_guard_ends_a_process_that_looks_for_the_network(world: World) -> None:
    for code in (
        "import socket; socket.getaddrinfo('example.com', 80)",
        "import socket; socket.socket().connect(('127.0.0.1', 9))",
    ):
        world.run("guard", "-c", code)
        assert world.results["guard"].returncode == 77


def test_the_notebook_hands_in_what_the_recipe_says(world: World) -> None:
    assert "10 items/s" not in output_of(world, "notebook")
    handed_in = pd.read_csv(world.folder("kaggle/working/submission.csv"), dtype=str)
    assert list(handed_in.columns) == ["filename", "label"]
    assert handed_in["filename"].tolist() == [f"{index:03d}.jpg" for index in range(40, 50)]
    assert set(handed_in["label"]) <= {"0", "1"}
    sidecar = world.folder("kaggle/working/rvf/submissions/tiny/tuned.json")
    checkpoints = json.loads(sidecar.read_text())["checkpoints"]
    assert sorted(checkpoints) == ["tiny fold 0", "tiny fold 1"]


def test_nothing_is_written_outside_the_artefact_folders(world: World) -> None:
    assert world.before["clone"] == world.before["clone after"]
    for name in ("home", "tmp", "cwd"):
        assert snapshot(world.folder(name)) == world.before[name]
    assert snapshot(world.folder("root") / "input") == world.before["input"]
    assert snapshot(world.folder("kaggle") / "input") == world.before["kaggle"]
    for root in (world.folder("root"), world.folder("kaggle/working/rvf")):
        assert {path.name for path in root.iterdir()} <= ARTEFACTS
    assert {p.name for p in world.folder("kaggle/working").iterdir()} == {"rvf", "submission.csv"}


def test_no_secret_of_the_environment_is_in_any_file(world: World) -> None:
    secrets = [value.encode() for value in SECRETS.values()] + [b"s3cretPassword"]
    files = [path for path in world.base.rglob("*") if path.is_file()]
    assert len(files) > 150  # records, CSVs, logs, caches, the unpacked bundle
    guilty = [(path, secret) for path in files for secret in secrets if secret in path.read_bytes()]
    assert guilty == []


def test_the_bundle_holds_what_is_needed_and_lists_it(world: World) -> None:
    top = world.folder("kaggle/input/my-bundle/rvf")
    table = json.loads((top / "bundle.json").read_text())
    assert (table["dataset"], table["recipe"]) == ("tiny", "tuned")
    there = {str(p.relative_to(top)): p.stat().st_size for p in top.rglob("*") if p.is_file()}
    assert table["files"] | {"bundle.json": 0, "README.md": 0} == there | {
        "bundle.json": 0, "README.md": 0,
    }  # fmt: skip
    for name in ("input/tiny.yaml", "configs/models/tiny.yaml", "folds/tiny/sgkf2_s42.csv"):
        assert name in there
    assert not [name for name in there if name.startswith(("input/tiny/", "tests/", "configs/m/"))]
    assert "checkpoints" in output_of(world, "bundle")
