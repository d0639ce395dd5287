"""EfficientNets in the names of the package efficientnet_pytorch (DeepfakeBench, SBI)."""

import re

from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from src.errors import UserError
from src.models.formats.base import FORMATS, Foreign, Source, one_logit, prefix_of, under

OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
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


@FORMATS.register("efficientnet_pytorch")
def efficientnet_pytorch(source: Source, net: nn.Module) -> Foreign | None:
    """Read an EfficientNet of that package; timm's `tf_efficientnet_*` compute the same.

    DeepfakeBench's detector is one under `backbone.efficientnet.`, with a head (2, d), real first.
    """
    anchors = ("_conv_stem.weight", "_blocks.0._depthwise_conv.weight", "_conv_head.weight")
    prefix = prefix_of(source.tensors, anchors, source.path)
    places = _places(net)
    if prefix is None or not places:
        return None
    _refuse_other_arithmetic(net, source)
    tower = under(source.tensors, prefix)
    dropped = {key for key in source.tensors if not key.startswith(prefix)}
    tensors, classifier = {}, {}
    for key, value in tower.items():
        if key.startswith("_fc."):
            classifier[key.replace("_fc", "classifier")] = value
        else:
            tensors[_renamed(key, tower, places)] = value
    weight = source.tensors.get(f"{BENCH_HEAD}.weight")
    if prefix == BENCH_PREFIX and weight is not None and weight.shape[0] == 2:
        keys = (f"{BENCH_HEAD}.weight", f"{BENCH_HEAD}.bias")
        logit = one_logit(weight, source.tensors.get(keys[1]), fake=1)
        half = (0.5, 0.5, 0.5)
        note = (
            "DeepfakeBench's stem pads nothing where timm's tf_efficientnet pads one pixel: its "
            "outputs will differ a little"
        )
        return Foreign(tensors, sorted(dropped - set(keys)), logit, half, half, note, fake=1)
    return Foreign(tensors | classifier, sorted(dropped))


def _refuse_other_arithmetic(net: nn.Module, source: Source) -> None:
    """Raise for a net of the same keys that pads and normalises otherwise (timm's own ones)."""
    stem, norm = net.get_submodule("conv_stem"), net.get_submodule("bn1")
    if not isinstance(stem, Conv2dSame) or abs(getattr(norm, "eps", 1e-3) - 1e-3) > 1e-6:
        raise UserError(
            f"{source.path}: weights of the package efficientnet_pytorch pad and normalise as "
            "TensorFlow does; this backbone has their names but other arithmetic, and would "
            "compute something else: take timm's tf_efficientnet_* (model effnet_b4_tf, or "
            "--model timm:tf_efficientnet_b0)"
        )


def _places(net: nn.Module) -> list[str]:
    """Return the prefixes of a timm EfficientNet's blocks in the order of depth."""
    stages = getattr(net, "blocks", None)
    if not hasattr(net, "conv_stem") or not isinstance(stages, nn.Sequential):
        return []
    sizes = [len(list(stage.children())) for stage in stages.children()]
    return [f"blocks.{i}.{j}" for i, size in enumerate(sizes) for j in range(size)]


def _renamed(key: str, tower: dict[str, Tensor], places: list[str]) -> str:
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
