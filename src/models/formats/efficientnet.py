"""EfficientNets in the names of the package efficientnet_pytorch (DeepfakeBench, SBI)."""

import re
from collections.abc import Mapping

from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from src.config import model_names
from src.errors import UserError
from src.models.formats import FORMATS, Foreign, WeightsFile, logit_of_two, prefix_of, under

OUTSIDE = {
    **{"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"},
    "_fc": "classifier",
}
SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
WITH_EXPANSION = {
    **{"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"},
    **{"_project_conv": "conv_pwl", "_bn2": "bn3"},
    **SQUEEZE,
}
WITHOUT_EXPANSION = {
    **{"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"},
    **SQUEEZE,
}
BENCH_PREFIX, BENCH_HEAD = "backbone.efficientnet.", "backbone.last_layer"
BENCH_SCALE = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


@FORMATS.register("efficientnet_pytorch")
def efficientnet_pytorch(source: WeightsFile, net: nn.Module) -> Foreign | None:
    """Read an EfficientNet of that package; timm's `tf_efficientnet_*` compute the same.

    timm's others have the same keys, but pad and normalise otherwise: a UserError. DeepfakeBench's
    detector is one under `backbone.efficientnet.`, with a head (2, d), real first.
    """
    anchors = ("_conv_stem.weight", "_blocks.0._depthwise_conv.weight", "_conv_head.weight")
    prefix = prefix_of(source.tensors, anchors, source.path)
    places = _places(net)
    if prefix is None or not places:
        return None
    stem, norm = net.get_submodule("conv_stem"), net.get_submodule("bn1")
    if not isinstance(stem, Conv2dSame) or abs(getattr(norm, "eps", 1e-3) - 1e-3) > 1e-6:
        raise UserError(
            f"{source.path}: weights of the package efficientnet_pytorch pad and normalise as "
            "TensorFlow does; this backbone has their names but other arithmetic, and would "
            f"compute something else: take {_way_out(net, source.tensors)}"
        )
    tower = under(source.tensors, prefix)
    tensors = {_new_name(key, tower, places): value for key, value in tower.items()}
    dropped = {key for key in source.tensors if not key.startswith(prefix)}
    logit = logit_of_two(source.tensors, BENCH_HEAD, fake=1) if prefix == BENCH_PREFIX else {}
    if not logit:
        return Foreign(tensors, sorted(dropped))
    tensors = {k: v for k, v in tensors.items() if not k.startswith("classifier.")}
    dropped -= {f"{BENCH_HEAD}.weight", f"{BENCH_HEAD}.bias"}
    note = (
        "DeepfakeBench's stem pads nothing where timm's tf_efficientnet pads one pixel: its "
        "outputs will differ a little"
    )
    return Foreign(tensors, sorted(dropped), logit, *BENCH_SCALE, note, fake=1)


def _way_out(net: nn.Module, tensors: Mapping[str, Tensor]) -> str:
    """Name the net that pads as the weights do: without squeezing they are EfficientNet-Lite's."""
    lite = not any(key.endswith("_se_reduce.weight") for key in tensors)
    name = str((getattr(net, "pretrained_cfg", None) or {}).get("architecture", ""))
    if name.startswith("efficientnet_lite" if lite else "efficientnet_b"):
        config = f"effnet_{name.removeprefix('efficientnet_')}{'' if lite else '_tf'}"
        known = f"--model {config}, or " if config in model_names() else ""
        return f"{known}--model timm:tf_{name}"
    if lite:
        return "timm's tf_efficientnet_lite* (models effnet_lite0, effnet_lite1, effnet_lite2)"
    return "timm's tf_efficientnet_* (model effnet_b4_tf, or --model timm:tf_efficientnet_b0)"


def _places(net: nn.Module) -> list[str]:
    """Return the prefixes of a timm EfficientNet's blocks in the order of depth."""
    stages = getattr(net, "blocks", None)
    if not hasattr(net, "conv_stem") or not isinstance(stages, nn.Sequential):
        return []
    sizes = [len(list(stage.children())) for stage in stages.children()]
    return [f"blocks.{i}.{j}" for i, size in enumerate(sizes) for j in range(size)]


def _new_name(key: str, tower: Mapping[str, Tensor], places: list[str]) -> str:
    found = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
    if not found:
        layer, _, rest = key.partition(".")
        return f"{OUTSIDE.get(layer, layer)}.{rest}"
    index, layer, rest = int(found[1]), found[2], found[3]
    wide = f"_blocks.{index}._expand_conv.weight" in tower
    names = WITH_EXPANSION if wide else WITHOUT_EXPANSION
    # A deeper net than ours keeps its own names, which are then shown as having no place.
    place = places[index] if index < len(places) else f"_blocks.{index}"
    return f"{place}.{names.get(layer, layer)}.{rest}"
