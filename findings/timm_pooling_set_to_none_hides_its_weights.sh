#!/bin/sh
# Guess: load_state_dict(strict=True) refuses weights that the net has no place for, and with
# strict=False names them in `unexpected_keys`.
#
# Behaviour: not where timm's way of leaving a pooling out is taken, `net.attn_pool = None`. The name
# stays among the net's modules, so that everything below it counts as known: a SigLIP ViT without
# its attention pooling takes a file that holds one strictly, 13 tensors of it go nowhere, and the
# list of unexpected keys is empty. With nn.Identity() in its place all 13 are named, and strict
# loading refuses them. Seen: the lines that this prints.
#
# Versions: timm 1.0.31, torch 2.12.0, Python 3.11.
#
# Why it matters here: a head of one's own on SigLIP or PE-Core (mean of the patches, registers, a
# query) starts by taking the pretrained pooling out. A loader that trusts torch's answer then says
# that everything was loaded, of a net that lost a trained part.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    timm==1.0.31 torch==2.12.0 torchvision==0.27.0 numpy
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PY'
import sys

import timm
from torch import nn


def siglip():
    return timm.create_model(
        "vit_base_patch16_siglip_224", embed_dim=32, depth=1, num_heads=2, num_classes=0
    )


def strictly(net, weights):
    try:
        net.load_state_dict(weights, strict=True)
    except RuntimeError:
        return "refused"
    return "taken"


weights = siglip().state_dict()
pooling = sum(key.startswith("attn_pool.") for key in weights)
seen = []
for name, instead in (("None", None), ("nn.Identity()", nn.Identity())):
    net = siglip()
    net.attn_pool = instead
    unexpected = len(net.load_state_dict(weights, strict=False).unexpected_keys)
    seen.append((unexpected, strictly(net, weights)))
    print(
        f"attn_pool = {name}: of {pooling} tensors of the pooling {unexpected} are called "
        f"unexpected; strict loading: {seen[-1][1]}"
    )
sys.exit(seen != [(0, "taken"), (pooling, "refused")] or pooling == 0)
PY
