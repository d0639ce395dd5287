"""A bundle of models that crop faces predicts where neither package nor detector's file is."""

import json
import logging
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from src.artifacts.files import sha256_file
from src.cli import bundle, train, tune
from src.data.items.dataset_yaml import says_cropped
from src.inference import bundle as module
from tests.shared import NO_NETWORK, tiny_model

# No network, no `requests`, and an installed facenet-pytorch is not found.
WITHOUT = f"""{NO_NETWORK}
import importlib.machinery
class Hiding(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "requests":
            raise ImportError("No module named 'requests'")
        if name == "facenet_pytorch":
            path = [place for place in sys.path if "site-packages" not in place]
        return super().find_spec(name, path, target)
real = importlib.machinery.PathFinder
sys.meta_path = [Hiding if finder is real else finder for finder in sys.meta_path]
"""
pytestmark = pytest.mark.slow
FACES = "{{input: {{image_size: 16, crop: face}}, extends: plain, face: {face}}}\n"


def write_data(home: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(28):
        fake, is_test = number % 2, number >= 24
        small = rng.integers(90 * fake, 90 * fake + 160, (8, 8, 3), dtype=np.uint8)
        folder = home / ("test" if is_test else f"train/{'fake' if fake else 'real'}")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = cv2.resize(small, (40, 40), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number:02d}.png"), pixels)


@pytest.fixture
def trained(artefact_root: Path):
    """Return `trained(face, cropped=False)`: trains a model with this face, tunes."""
    says_cropped.cache_clear()
    home = artefact_root / "input" / "tiny"
    write_data(home)

    def run(face: str, *, cropped: bool = False) -> Path:
        # Beside the data's folder, as where that cannot be written: a bundle brings it.
        (home.parent / "tiny.yaml").write_text(
            "n_folds: 2\n" + ("faces: cropped\n" if cropped else "")
        )
        models = artefact_root / "configs" / "models"
        models.mkdir(parents=True)
        (models / "plain.yaml").write_text(tiny_model().replace("epochs: 4", "epochs: 1"))
        (models / "face.yaml").write_text(FACES.format(face=face))
        quiet = ["--device", "cpu", "--workers", "0"]
        assert train.main(["--model", "face", "--data", "tiny", *quiet]) == 0
        assert tune.main(["--data", "tiny", "--strategies", "mean@0.5"]) == 0
        logging.getLogger("rvf").handlers.clear()
        return artefact_root

    yield run
    says_cropped.cache_clear()


def unpacked(root: Path, where: Path) -> Path:
    """Bundle the recipe and unpack it elsewhere; returns the folder."""
    assert bundle.main(["--data", "tiny"]) == 0
    with zipfile.ZipFile(root / "bundles" / "tiny" / "tuned.zip") as archive:
        archive.extractall(where)
    return where / "rvf"


def predict_there(top: Path, base: Path) -> "subprocess.CompletedProcess[str]":
    """Predict from an unpacked bundle, far from the clone and from what is installed."""
    guard, data = base / "guard", base / "data"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(WITHOUT)
    write_data(data / "tiny")
    env = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ}
    env |= {"HOME": str(base), "PYTHONPATH": str(guard), "PYTHONDONTWRITEBYTECODE": "1"}
    env |= {"RVF_ROOT": str(base / "made"), "OMP_NUM_THREADS": "1"}
    words = [top / "predict_ensemble.py", "--data", "tiny", "--input-root", data, "--workers", "0"]
    return subprocess.run(
        [sys.executable, *map(str, words), "--device", "cpu"], cwd=base, env=env,
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


def answers_of(done: "subprocess.CompletedProcess[str]", base: Path) -> dict[str, object]:
    assert done.returncode == 0, done.stdout + done.stderr
    home = base / "made" / "submissions" / "tiny"
    assert len(pd.read_csv(home / "tuned.csv")) == 4
    return json.loads((home / "tuned.json").read_text())


def test_mtcnn_travels_in_the_bundle(trained, tmp_path, capsys):
    package = pytest.importorskip("facenet_pytorch")
    installed = Path(package.__file__).parent
    root = trained("{detector: mtcnn}")
    top = unpacked(root, tmp_path / "there")
    assert "facenet-pytorch 2.6.0 (MIT) and its weights are packed" in capsys.readouterr().out
    brought = top / "packages" / "facenet_pytorch"
    for net in ("pnet", "rnet", "onet"):
        assert sha256_file(brought / f"data/{net}.pt") == sha256_file(installed / f"data/{net}.pt")
    assert "Permission is hereby granted" in (brought / "LICENSE.md").read_text()
    assert "facenet-pytorch" in (top / "README.md").read_text()
    listed = json.loads((top / "bundle.json").read_text())["files"]
    there = {p.relative_to(top).as_posix(): p.stat().st_size for p in top.rglob("*") if p.is_file()}
    assert listed == {n: s for n, s in there.items() if n not in ("bundle.json", "README.md")}
    done = predict_there(top, tmp_path)
    assert "4 show no face" in done.stdout
    assert len(answers_of(done, tmp_path)["no_face"]) == 4


def test_without_its_packages_folder_the_same_bundle_cannot(trained, tmp_path):
    pytest.importorskip("facenet_pytorch")
    top = unpacked(trained("{detector: mtcnn}"), tmp_path / "there")
    shutil.rmtree(top / "packages")
    done = predict_there(top, tmp_path)
    assert done.returncode == 2
    assert "mtcnn wants facenet-pytorch" in done.stderr


def test_a_detectors_file_travels_and_comes_before_another_of_its_name(trained, tmp_path):
    file = tmp_path / "yn.onnx"
    file.write_bytes(b"no net, but never run")
    root = trained(f"{{detector: yunet, detector_file: {file}}}", cropped=True)
    top = unpacked(root, tmp_path / "there")
    (packed,) = (top / "detectors").rglob("*.onnx")
    assert packed == top / "detectors" / sha256_file(file) / "yn.onnx"
    assert packed.read_bytes() == file.read_bytes()
    file.write_bytes(b"another file")
    assert answers_of(predict_there(top, tmp_path), tmp_path)["no_face"] == []


def test_a_detectors_file_is_run_where_faces_are_looked_for(trained, tmp_path):
    file = tmp_path / "yn.onnx"
    file.write_bytes(b"no net")
    top = unpacked(trained(f"{{detector: yunet, detector_file: {file}}}", cropped=True), tmp_path)
    (top / "input" / "tiny.yaml").write_text("n_folds: 2\n")
    file.unlink()
    done = predict_there(top, tmp_path)
    assert done.returncode == 2
    assert f"{top / 'detectors'}" in done.stderr
    assert "not a YuNet that OpenCV can run" in done.stderr


def test_a_file_that_is_not_needed_is_not_asked_for(trained, tmp_path, capsys):
    file = tmp_path / "yn.onnx"
    file.write_bytes(b"no net")
    root = trained(f"{{detector: yunet, detector_file: {file}}}", cropped=True)
    file.unlink()
    top = unpacked(root, tmp_path / "there")
    assert "yn.onnx is not there, nor needed" in capsys.readouterr().out
    assert not (top / "detectors").exists()
    answers_of(predict_there(top, tmp_path), tmp_path)


def test_a_file_that_is_needed_and_gone_stops_the_bundle(trained, tmp_path, capsys):
    file = tmp_path / "yn.onnx"
    file.write_bytes(b"no net")
    root = trained(f"{{detector: yunet, detector_file: {file}}}", cropped=True)
    (root / "input" / "tiny.yaml").write_text("n_folds: 2\n")
    says_cropped.cache_clear()
    file.write_bytes(b"another")
    assert bundle.main(["--data", "tiny"]) == 2
    assert "is not the detector that face was trained with" in capsys.readouterr().err
    file.unlink()
    assert bundle.main(["--data", "tiny"]) == 2
    assert "yn.onnx is not there, and face finds faces with it" in capsys.readouterr().err
    assert not (root / "bundles").exists()


def test_a_package_that_is_needed_and_not_installed_stops_the_bundle(trained, monkeypatch, capsys):
    pytest.importorskip("facenet_pytorch")
    root = trained("{detector: mtcnn}", cropped=True)
    monkeypatch.setattr(module, "_package_home", lambda: None)
    assert bundle.main(["--data", "tiny"]) == 0
    assert "not installed, nor needed" in capsys.readouterr().out
    (root / "input" / "tiny.yaml").write_text("n_folds: 2\n")
    says_cropped.cache_clear()
    assert bundle.main(["--data", "tiny"]) == 2
    assert "pip install --no-deps facenet-pytorch==2.6.0" in capsys.readouterr().err


def test_a_bundle_is_bundled_again_from_what_it_brought(trained, tmp_path):
    pytest.importorskip("facenet_pytorch")
    root = trained("{detector: mtcnn}")
    top = unpacked(root, tmp_path / "there")
    env = {key: value for key, value in os.environ.items() if key != "RVF_ROOT"}
    guard = tmp_path / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(WITHOUT)
    done = subprocess.run(
        [sys.executable, "-m", "src", "bundle", "--data", "tiny", "--output", tmp_path / "b.zip"],
        cwd=top, env=env | {"PYTHONPATH": str(guard)}, capture_output=True, text=True,
        timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with (
        zipfile.ZipFile(root / "bundles/tiny/tuned.zip") as one,
        zipfile.ZipFile(tmp_path / "b.zip") as two,
    ):
        names = [n for n in one.namelist() if n.startswith("rvf/packages/")]
        assert len(names) == 7
        assert {n: one.read(n) for n in names} == {
            n: two.read(n) for n in two.namelist() if n.startswith("rvf/packages/")
        }
