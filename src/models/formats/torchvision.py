"""Nets in torchvision's names: MobileNetV2 and V3, EfficientNet, ConvNeXt, Swin, ViT.

Its ResNets and DenseNets have timm's names and are plain.
"""

import re
from pathlib import Path

from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from src.errors import UserError
from src.models.formats import (
    FORMATS,
    Foreign,
    WeightsFile,
    classifier_of,
    new_name,
    prefix_of,
    under,
)
from src.models.formats.self_supervised import IMAGENET

HEADS = ("classifier", "heads", "head", "fc")
# Nets of convolutions alone, by their modules with weights before the head and their last width.
TIMM = {
    (104, 1280): "mobilenetv2_100", (109, 1280): "mobilenetv3_large_100",
    (87, 1024): "mobilenetv3_small_100", (130, 1280): "efficientnet_b0",
    (184, 1280): "efficientnet_b1", (184, 1408): "efficientnet_b2",
    (208, 1536): "efficientnet_b3", (256, 1792): "efficientnet_b4",
    (310, 2048): "efficientnet_b5", (358, 2304): "efficientnet_b6",
    (436, 2560): "efficientnet_b7", (280, 1280): "efficientnetv2_s",
    (402, 1280): "efficientnetv2_m", (556, 1280): "efficientnetv2_l",
}  # fmt: skip
# Of these, torchvision builds BatchNorm with eps = 1e-3, timm with 1e-5.
LARGE_EPS = ("mobilenetv3_large_100", "mobilenetv3_small_100", "efficientnet_b5",
             "efficientnet_b6", "efficientnet_b7", "efficientnetv2_s", "efficientnetv2_m",
             "efficientnetv2_l")  # fmt: skip
VIT = (
    ("^conv_proj", "patch_embed.proj"),
    ("^class_token", "cls_token"),
    (r"^encoder\.pos_embedding", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_", "blocks."),
    (r"^encoder\.ln", "norm"),
    (r"\.ln_", ".norm"),
    (r"self_attention\.in_proj_", "attn.qkv."),
    (r"self_attention\.out_proj", "attn.proj"),
    (r"mlp\.(0|linear_1)\.", "mlp.fc1."),
    (r"mlp\.(3|linear_2)\.", "mlp.fc2."),
)
CONVNEXT = (
    (r"^features\.0\.", "stem."),
    (r"\.layer_scale$", ".gamma"),
    (r"\.block\.0\.", ".conv_dw."),
    (r"\.block\.2\.", ".norm."),
    (r"\.block\.3\.", ".mlp.fc1."),
    (r"\.block\.5\.", ".mlp.fc2."),
    (r"^classifier\.0\.", "head.norm."),
)
SWIN = (
    (r"^features\.0\.0", "patch_embed.proj"),
    (r"^features\.0\.2", "patch_embed.norm"),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
)
COMPUTED = ("relative_position_index", "relative_coords_table")


@FORMATS.register("torchvision")
def torchvision(source: WeightsFile, net: nn.Module) -> Foreign | None:
    """Read one of torchvision's nets; timm's net of the same shape computes the same.

    A UserError says which one to take where the backbone is another net of convolutions, or pads
    otherwise.
    """
    for anchors in (("features.0.0.weight",), ("conv_proj.weight", "encoder.pos_embedding")):
        prefix = prefix_of(source.tensors, anchors, source.path)
        if prefix is not None:
            break
    else:
        return None
    tower = {k: v for k, v in under(source.tensors, prefix).items() if not k.endswith(COMPUTED)}
    names = _names(tower, net, source.path)
    if names is None:
        return None
    own, classifier = net.state_dict(), classifier_of(net)
    names = {old: new for old, new in names.items() if new.split(".")[0] not in HEADS
             or new.startswith("head.norm.")}  # fmt: skip
    heads = [
        k for k, v in tower.items() if k not in names and k.endswith(".weight") and v.ndim == 2
    ]
    if len(heads) == 1 and classifier:
        layer = heads[0].removesuffix("weight")
        names |= {f"{layer}{part}": f"{classifier}.{part}" for part in ("weight", "bias")
                  if f"{layer}{part}" in tower}  # fmt: skip
    # In timm's shape where only sides of one pixel differ.
    tensors = {
        new: value.reshape(own[new].shape)
        if new in own and _bare(value) == _bare(own[new])
        else value
        for new, value in ((new, tower[old]) for old, new in names.items())
    }
    used = {f"{prefix}{key}" for key in names}
    dropped = sorted(k for k in source.tensors if k not in used and not k.endswith(COMPUTED))
    return Foreign(tensors, dropped, mean=IMAGENET[0], std=IMAGENET[1])


def _names(tower: dict[str, Tensor], net: nn.Module, path: Path) -> dict[str, str] | None:
    """Return timm's name of each key, by the family of the net."""
    if "conv_proj.weight" in tower:
        return {key: new_name(key, VIT) for key in tower}
    if any(key.endswith(".layer_scale") for key in tower):
        return {key: new_name(_stage(key, "stages"), CONVNEXT) for key in tower}
    if any(key.endswith("attn.qkv.weight") for key in tower):
        return {key: new_name(_stage(key, "layers"), SWIN) for key in tower}
    return _convolutions(tower, net, path)


def _convolutions(tower: dict[str, Tensor], net: nn.Module, path: Path) -> dict[str, str] | None:
    """Return timm's names of the modules of a net of convolutions, one after the other.

    The running variances in `tower` become those of timm's eps.
    """
    # MobileNetV3 has a layer between its last convolution and its classifier.
    body = ("features.", "classifier.0.") if "classifier.3.weight" in tower else "features."
    found = sorted({k.rpartition(".")[0] for k in tower if k.startswith(body)}, key=_depth)
    last = tower[f"{found[-1]}.weight"].shape[0]
    wanted = TIMM.get((len(found), last))
    if wanted is None:
        return None
    classifier = classifier_of(net)
    own = {k: v for k, v in net.state_dict().items() if not k.startswith(f"{classifier}.")}
    places = list(dict.fromkeys(key.rpartition(".")[0] for key in own))
    names = {
        f"{old}.{part}": f"{new}.{part}"
        for old, new in zip(found, places, strict=False)
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        if f"{old}.{part}" in tower
    }
    other = len(places) != len(found) or any(
        new not in own or _bare(own[new]) != _bare(tower[old]) for old, new in names.items()
    )
    if other or any(isinstance(module, Conv2dSame) for module in net.modules()):
        why = "is another net" if other else "pads as TensorFlow does, torchvision's evenly"
        raise UserError(
            f"{path}: weights of a net of torchvision, which is timm's {wanted}; this "
            f"backbone {why}: take --model timm:{wanted}"
        )
    if wanted in LARGE_EPS:
        eps = next(float(m.eps) for m in net.modules() if isinstance(m, nn.BatchNorm2d))
        for key in tower:
            if key.endswith(".running_var"):  # what is divided by is the root of variance plus eps
                tower[key] = tower[key] + (1e-3 - eps)
    return names


def _depth(module: str) -> tuple[bool, list[tuple[bool, int, str]]]:
    """Sort modules by number, the classifier's last."""
    parts = module.split(".")
    return parts[0] != "features", [(p.isdigit(), int(p) if p.isdigit() else 0, p) for p in parts]


def _bare(value: Tensor) -> list[int]:
    return [size for size in value.shape if size != 1]


def _stage(key: str, word: str) -> str:
    """Name what torchvision counts through, blocks and what lies between stages, by stages."""
    found = re.match(r"features\.([1-9]\d*)\.(.*)", key)
    if found is None:
        return key
    index, rest = int(found[1]), found[2]
    return f"{word}.{index // 2}.{'blocks' if index % 2 else 'downsample'}.{rest}"
