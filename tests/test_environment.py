"""Traps of the installed packages, each met once before."""

import os
import subprocess
import sys
from importlib import metadata

import cv2
import numpy as np
import pytest

from tests.conftest import REPO
from tests.shared import NO_NETWORK


def run_without_network(code: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    return subprocess.run(
        [sys.executable, "-c", NO_NETWORK + code],
        cwd=REPO,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_one_cv2_distribution():
    owners = metadata.packages_distributions()["cv2"]
    assert set(owners) == {"opencv-python"}


@pytest.mark.parametrize(
    "name",
    ["opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"],
)
def test_no_second_cv2(name):
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.version(name)


def test_cv2_is_the_installed_one_and_works():
    assert int(cv2.__version__.split(".")[0]) < 5
    assert metadata.version("opencv-python").startswith(cv2.__version__)
    pixels = np.full((8, 8, 3), 127, dtype=np.uint8)
    done, encoded = cv2.imencode(".png", pixels)
    assert done
    assert np.array_equal(cv2.imdecode(encoded, cv2.IMREAD_COLOR), pixels)


def test_import_src_keeps_albumentations_offline():
    done = run_without_network(
        "import src, albumentations; assert os.environ['NO_ALBUMENTATIONS_UPDATE'] == '1'"
    )
    assert done.returncode == 0, done.stderr


def test_the_guard_above_notices_albumentations():
    assert run_without_network("import albumentations").returncode == 77


def test_albumentations_is_the_mit_one():
    assert metadata.version("albumentations") == "2.0.8"
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.version("albumentationsx")


def test_torch_and_torchvision_belong_together():
    import torch
    import torchvision

    assert torch.__version__.split("+")[0] == "2.12.0"
    assert torchvision.__version__.split("+")[0] == "0.27.0"
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    assert torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5).tolist() == [0]


def test_src_alone_imports_neither_torch_nor_cv2():
    done = run_without_network(
        "import src; assert not {'torch', 'timm', 'cv2', 'albumentations'} & set(sys.modules)"
    )
    assert done.returncode == 0, done.stderr
