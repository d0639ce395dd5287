"""One net of each timm family that names its blocks in an odd way has an anatomy."""

import pytest
import timm
import torch

from src.models.anatomy import anatomy_of

NAMES = [
    "cait_xxs24_224", "inception_v3", "inception_resnet_v2", "rdnet_tiny", "nasnetalarge",
    "volo_d1_224", "xception41", "levit_128s", "coat_tiny", "tnt_s_patch16_224", "vgg11",
    "densenet121", "swinv2_tiny_window8_256", "maxvit_nano_rw_256", "hrnet_w18_small",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_has_one_place(name):
    with torch.device("meta"):
        net = timm.create_model(name, num_classes=1)
    head = net.get_classifier()
    classifier = [path for path, layer in net.named_modules() if layer is head]
    parts = anatomy_of(net, tuple(classifier))
    pieces = [parts.stem, *parts.blocks, parts.tail, parts.head]
    assert sum(map(len, pieces)) == len(frozenset().union(*pieces))
    assert frozenset().union(*pieces) == {path for path, _ in net.named_parameters()}
    body = [path for path, _ in net.named_parameters() if path not in parts.head]
    assert len(parts.blocks) > 1
    assert parts.tail <= set(body[len(body) // 2 :])
