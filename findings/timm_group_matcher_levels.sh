#!/bin/bash
# timm's finest groups of layers are whole stages for some families, and fall back once in CaiT.
#
# Guess: `group_parameters(net, net.group_matcher(coarse=False))`, which layer decay counts by, gives
#   one level a residual or attention block in every family, rising in the order of the forward
#   pass.
# Behaviour: true for ViT, ResNet, EfficientNet and Swin. For MaxViT and CoAtNet the "fine" groups
#   are the four stages with stem and head, 6 levels in all, though the nets have 11 and 14 blocks,
#   while DenseNet-121 has 60, one a dense layer. In CaiT the class-attention blocks, which run
#   after all others, begin one level below the last block of the trunk.
# Versions: timm 1.0.31, torch 2.12.0, Python 3.11.
# Why it matters here: one `layer_decay` (or one gradient of merge weights over depth) means another
#   thing in each of these: 0.75 a level leaves the stem of a 60-level net 4e-8 of the head's rate,
#   and that of a MaxViT 0.24 of it. Compare such settings within a family alone.
#
# Seen: as in the table WANTED. Prints family, levels, how often the level falls from one called layer
#   to the next; exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet timm==1.0.31 torch==2.12.0 torchvision==0.27.0 numpy
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'EOF'
import sys
import warnings

warnings.simplefilter("ignore")
import timm
import torch
from timm.models import group_parameters

WANTED = {
    "vit_tiny_patch16_224": (14, 0),
    "resnet18": (10, 0),
    "swin_tiny_patch4_window7_224": (14, 0),
    "maxvit_tiny_tf_224": (6, 0),
    "coatnet_0_rw_224": (6, 0),
    "densenet121": (60, 0),
    "cait_xxs24_224": (26, 1),
}
seen = {}
for name in WANTED:
    called = []
    with torch.device("meta"), torch.no_grad():
        net = timm.create_model(name, num_classes=1).eval()
        for path, module in net.named_modules():
            if path and next(module.parameters(recurse=False), None) is not None:
                module.register_forward_pre_hook(lambda *_, path=path: called.append(path))
        net(torch.zeros(2, *net.default_cfg["input_size"]))
    levels = group_parameters(net, net.group_matcher(coarse=False), reverse=True)
    order = [
        next(levels[f"{path}.{own}"] for own, _ in net.get_submodule(path).named_parameters(recurse=False))
        for path in dict.fromkeys(called)
    ]
    falls = sum(after < before for before, after in zip(order, order[1:]))
    seen[name] = len(set(levels.values())), falls
    print(f"{name}: {seen[name][0]} levels, falls {falls} times")
sys.exit(seen != WANTED)
EOF
