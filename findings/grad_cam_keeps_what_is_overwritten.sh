#!/bin/bash
# grad-cam's kept activation is overwritten on a CPU by an in-place layer behind the target.
#
# Guess: GradCAM(net, [layer]) weighs what left `layer`, as the paper's A^k, on every device alike.
# Behaviour: its hook keeps `output.cpu().detach()`, on a CPU no copy but the same memory. What works
#   in place behind the layer (ReLU(inplace=True) behind a BatchNorm, `x += shortcut`) writes over it
#   before the map is made; the gradient stays that of what left the layer. So the activation is of
#   one place and the gradient of another. By the code, `.cpu()` copies what lies on a GPU, so that
#   one map differs by device (not run here: this needs no GPU). Whole blocks, and layers before a
#   BatchNorm, are kept as they left.
# Versions: grad-cam 1.5.7, timm 1.0.31, torch 2.12.0, Python 3.11.
# Why it matters here: BatchNorm with an activation behind it is what most nets for this task are
#   made of, and it is a common target. Our maps hand the library a `reshape_transform` that copies.
#
# Seen: targets behind which something works in place: not what left the layer, other maps. Prints a
#   line a target: whether it is kept, correlation of the map with that of a copy; exits with 1 if
#   that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet grad-cam==1.5.7 timm==1.0.31 torch==2.12.0 torchvision==0.27.0
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'EOF'
import sys
import warnings

warnings.simplefilter("ignore")
import numpy as np
import timm
import torch
from pytorch_grad_cam import GradCAM

# net, target, is what left it kept
CASES = (
    ("vgg11_bn", "features.26", False),  # BatchNorm, then ReLU(inplace=True)
    ("resnet18", "layer4.1.bn2", False),  # BatchNorm, then `x += shortcut`, ReLU(inplace=True)
    ("resnet18", "layer4.1", True),  # a whole block
    ("mobilenetv2_100", "conv_head", True),  # a convolution before its BatchNorm
)
as_seen = True
for name, path, whole in CASES:
    torch.manual_seed(0)
    more = {"zero_init_last": False} if name == "resnet18" else {}
    net = timm.create_model(name, num_classes=2, **more).eval()
    layer, pixels, left = net.get_submodule(path), torch.randn(1, 3, 224, 224), []
    hook = layer.register_forward_hook(lambda _, __, out: left.append(out.detach().clone()))
    maps, kept = [], []
    for copying in (None, torch.clone):
        with GradCAM(net, [layer], copying) as cam:
            maps.append(cam(pixels, [lambda out: out[0]])[0].ravel())
            kept.append(torch.equal(cam.activations_and_grads.activations[0], left[-1]))
    alike = float(np.corrcoef(*maps)[0, 1])
    print(f"{name} {path}: kept {kept[0]} (copied: {kept[1]}), maps correlate {alike:.2f}")
    as_seen &= kept == [whole, True] and (alike > 0.999) == whole
    hook.remove()
sys.exit(not as_seen)
EOF
