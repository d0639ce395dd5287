"""Adding one of each is one file: no list elsewhere knows of it.

In a copy of the code, since registries are filled when modules are imported.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import REPO

# What a newcomer writes: a function at the end of a file, or a file of his own.
ADDED = {
    "losses.py": '''

@LOSSES.register("power")
def power(items: Items, *, exponent: Positive = 2.0) -> "Tensor":
    """Return the mean power of the errors of the probabilities."""
    return (items.logit.sigmoid() - items.label).abs().pow(exponent).mean()
''',
    "metrics.py": '''

@metric("youden", DECISIONS)
def youden(counts: Counts) -> FloatArray:
    """Return Youden's J."""
    return ratio(counts.tp, counts.tp + counts.fn) - ratio(counts.fp, counts.fp + counts.tn)
''',
    "merging/methods/middle.py": '''
import torch

from src.merging.methods.base import Parameter, Tensors, method


@method("middle", Parameter("shift", 0.0))
def middle(models: Tensors, base: None, *, shift: float) -> torch.Tensor:
    """Return the median element, shifted."""
    return torch.stack(list(models)).median(0).values + shift
''',
    "models/backbones/mean_color.py": '''
from torch import Tensor, nn

from src.models.backbones import BACKBONES


@BACKBONES.register("mean_color")
class MeanColor(nn.Module):
    """One linear layer on the mean color."""

    def __init__(self, num_classes: int = 1, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)))

    def get_classifier(self) -> nn.Linear:
        return self.head
''',
    "models/formats/upside_down.py": '''
from torch import nn

from src.models.formats import FORMATS, Foreign, WeightsFile


@FORMATS.register("upside_down")
def read(source: WeightsFile, net: nn.Module) -> Foreign | None:
    """Read weights whose names end with an underscore."""
    if not all(key.endswith("_") for key in source.tensors):
        return None
    return Foreign({key[:-1]: value for key, value in source.tensors.items()})
''',
    "data/published/numbered.py": '''
from src.data.items.folder import Folder
from src.data.published.reading import Reading, Video, reader


@reader("numbered")
def read(folder: Folder) -> Reading | None:
    """Read `numbered.txt` beside pictures of which the odd ones are fakes."""
    if not any(entry.logical == "numbered.txt" for entry in folder.listing.texts):
        return None
    paths = sorted(entry.logical for entry in folder.listing.media)
    videos = [Video("", path, int(path[0]) % 2, "all", paths=[path]) for path in paths]
    return Reading(videos, ["odd numbers are fakes"])
''',
}
USED = """
import sys
from pathlib import Path

import numpy as np
import torch

from src.config import parse_model
from src.data.layouts.load import load_dataset
from src.losses import total_loss
from src.merging.merger import merge_tensors
from src.merging.recipe import parse_recipes
from src.metrics import METRICS, counts
from src.models.classifier import build_classifier
from src.models.weights import load_weights

config = parse_model({
    "backbone": {"name": "mean_color"}, "loss": {"name": "power", "exponent": 3.0},
    "input": {"image_size": 8, "mean": [0, 0, 0], "std": [1, 1, 1]},
}, "x")
outputs = {"logit": torch.zeros(1)}
print(float(total_loss({"label": torch.tensor([1])}, outputs, config.loss, torch.ones(2))))

print(float(METRICS.get("youden").compute(counts([0, 0, 1, 1], [0, 1, 1, 1]))))

text = "merge_method: middle\\nmodels: [a, b, c]\\nparameters: {shift: 0.5}"
states = {name: {"w": torch.full((2,), float(k))} for k, name in enumerate("abc")}
print(merge_tensors(parse_recipes(text, "x")[0], states)["w"].tolist())

model, native = build_classifier(config)
torch.save({f"{k}_": 2 * torch.ones_like(v) for k, v in model.net.state_dict().items()}, "w.pth")
pixels = torch.full((1, 8, 8, 3), 255, dtype=torch.uint8)
form = load_weights(model.net, Path("w.pth"), native.head).format
print(form, float(model({"pixels": pixels})["logit"]))

table = load_dataset("numbers", Path(sys.argv[1])).train
print(dict(zip(table["item_id"], table["label"].tolist())))
try:
    parse_model({"backbone": {"name": "n"}, "loss": {"name": "power", "exponent": -1.0}}, "x")
except Exception as error:
    print(error)
"""


def test_a_loss_a_metric_a_merge_method_a_backbone_a_format_and_a_layout_are_one_file_each(
    tmp_path: Path,
) -> None:
    shutil.copytree(REPO / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in ADDED.items():
        with (tmp_path / "src" / name).open("a") as file:
            file.write(text)
    data = tmp_path / "input" / "numbers"
    data.mkdir(parents=True)
    (data / "numbered.txt").write_text("odd ones are fakes\n")
    for number in range(4):
        pixels = np.full((9, 9, 3), 40 * number, np.uint8)
        cv2.imwrite(str(data / f"{number}.png"), pixels)
    command = [sys.executable, "-c", USED, str(data.parent)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0] == "0.125"
    assert float(said[1]) == pytest.approx(0.5)
    assert said[2:5] == [
        "[1.5, 1.5]",
        "upside_down 8.0",
        "{'0.png': 0, '1.png': 1, '2.png': 0, '3.png': 1}",
    ]
    assert "exponent must be > 0 (found -1.0)" in said[5]
