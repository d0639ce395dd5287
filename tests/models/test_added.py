"""A loss with a setting, a backbone and a format of weights: one place each, no line elsewhere."""

import shutil
import subprocess
import sys

from tests.conftest import REPO

LOSS = """

@LOSSES.register("power")
def power(items: Items, *, exponent: Positive = 2.0) -> Tensor:
    return (items.logit.sigmoid() - items.label).abs().pow(exponent).mean()
"""
BACKBONE = """
from torch import nn
from src.models.backbones import BACKBONES

@BACKBONES.register("brightness")
class Brightness(nn.Module):
    def __init__(self, num_classes=1, drop_rate=0.0):
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def forward(self, x):
        return self.head(x.mean((2, 3)))
"""
FORMAT = """
from src.models.formats import FORMATS, Foreign

@FORMATS.register("upside_down")
def read(source, net):
    if not all(key.endswith("_") for key in source.tensors):
        return None
    return Foreign({key[:-1]: value for key, value in source.tensors.items()})
"""
USED = """
from pathlib import Path
import torch
from src.config import parse_model
from src.losses import total_loss
from src.models.classifier import build_classifier
from src.models.weights import load_weights

content = {"backbone": {"name": "brightness"}, "loss": {"name": "power"}}
model, native = build_classifier(parse_model(content, "x"))
torch.save({f"{k}_": 2 * torch.ones_like(v) for k, v in model.net.state_dict().items()}, "w.pth")
print(load_weights(model.net, Path("w.pth"), native.head).format)
batch = {"label": torch.tensor([1]), "pixels": torch.full((1, 8, 8, 3), 255, dtype=torch.uint8)}
print(float(model(batch)["logit"]))
for exponent in (2.0, 3.0):
    config = parse_model(content | {"loss": {"name": "power", "exponent": exponent}}, "x")
    print(float(total_loss(batch, {"logit": torch.zeros(1)}, config.loss, torch.ones(2))))
parse_model(content | {"loss": {"exponent": -1.0}}, "x")
"""


def test_each_is_found_where_it_lies(tmp_path):
    src = tmp_path / "src"
    shutil.copytree(REPO / "src", src, ignore=shutil.ignore_patterns("__pycache__"))
    with (src / "losses.py").open("a") as file:
        file.write(LOSS)
    (src / "models" / "backbones" / "brightness.py").write_text(BACKBONE)
    (src / "models" / "formats" / "upside_down.py").write_text(FORMAT)
    done = subprocess.run(
        [sys.executable, "-c", USED], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["upside_down", "8.0", "0.25", "0.125"], done.stderr
    assert "loss.exponent must be > 0 (found -1.0)" in done.stderr
