"""Depths by names. Oracle: the order in which nets call their modules."""

import warnings

import pytest
import timm
import torch

from src.errors import UserError
from src.merging.depth import DepthByName
from src.merging.merger import merge_tensors
from src.merging.recipe import Choice, Ingredient, MergeRecipe, is_gradient

FAMILIES = (
    *("resnet18", "regnety_002", "densenet121", "legacy_xception", "xception41", "dpn68"),
    *("inception_v3", "inception_v4", "dla34", "coat_lite_tiny", "visformer_tiny", "hrnet_w18"),
    *("nasnetalarge", "crossvit_9_240", "cspdarknet53", "pit_ti_224", "twins_svt_small"),
    *("vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto", "mobilenetv2_100"),
    *("mobilenetv3_small_100", "efficientnet_b0", "vgg11_bn", "mixer_s16_224", "levit_128s"),
    *("maxvit_tiny_tf_224", "cait_xxs24_224", "volo_d1_224", "repvgg_a0", "nest_tiny", "tresnet_m"),
)


def _called(net: torch.nn.Module) -> list[str]:
    """Return the names of the modules with weights in the order in which they are called."""
    seen: list[str] = []
    for name, module in net.named_modules():
        # Tensors of the net itself (class tokens) are used anywhere.
        if name and next(module.parameters(recurse=False), None) is not None:
            module.register_forward_pre_hook(lambda _, __, name=name: seen.append(name))
    with torch.no_grad():
        net(torch.zeros(2, *net.default_cfg["input_size"], device="meta"))
    return list(dict.fromkeys(seen))


@pytest.mark.parametrize("family", FAMILIES)
def test_depth_rises_in_the_order_of_the_calls(family: str) -> None:
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = timm.create_model(family, num_classes=1).eval()
        order = _called(net)
    names = [name for name, tensor in net.state_dict().items() if tensor.is_floating_point()]
    depth = DepthByName(names)
    assert depth.blocks >= 4
    found = [depth(name) for module in order for name in names
             if name.rpartition(".")[0] == module]  # fmt: skip
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0, 1)
    assert len(set(found)) == depth.blocks


@pytest.mark.parametrize("family", ["legacy_xception", "vit_tiny_patch16_224", "densenet121"])
def test_the_order_of_the_names_changes_nothing(family: str) -> None:
    with torch.device("meta"):
        names = list(timm.create_model(family, num_classes=1).state_dict())
    one, other = DepthByName(names), DepthByName(sorted(names, reverse=True))
    assert [one(name) for name in names] == [other(name) for name in names]


def test_names_of_other_libraries() -> None:
    names = ["_conv_stem.weight", "_bn0.weight", *(f"_blocks.{i}._bn{j}.weight" for i in range(12)
             for j in range(3)), "_conv_head.weight", "_bn1.weight", "_fc.bias"]  # fmt: skip
    depth = DepthByName(names)
    found = [depth(name) for name in names]
    assert found == sorted(found)
    assert depth.blocks == 12
    assert depth("_blocks.10._bn1.weight") == 10 / 11
    for text in ("vit.encoder.layer.{}.attention.query.weight", "module.h.{}.x",
                 "encoder.layers.encoder_layer_{}.ln.bias",
                 "visual.transformer.resblocks.{}.ln_1.weight"):  # fmt: skip
        depth = DepthByName([*(text.format(i) for i in range(11)), "head.weight"])
        assert [depth(text.format(i)) for i in (0, 2, 10)] == [0, 0.2, 1]


@pytest.mark.parametrize(
    ("names", "depths"),
    [
        (["patch_embed.proj.weight", "cls_token", "blocks.0.norm1.weight", "blocks.1.mlp.fc1.bias",
          "blocks.2.attn.qkv.weight", "norm.weight", "head.bias"], [0, 0, 0, 0.5, 1, 1, 1]),
        (["conv_stem.weight", "bn1.weight", "blocks.0.0.conv_pw.weight", "blocks.0.1.bn1.weight",
          "blocks.1.0.conv_dw.weight", "conv_head.weight", "classifier.bias"],
         [0, 0, 0, 0.5, 1, 1, 1]),
        (["stem.0.weight", "stages.0.blocks.0.conv_dw.weight", "stages.0.blocks.1.norm.weight",
          "stages.1.blocks.0.mlp.fc1.weight", "head.fc.weight"], [0, 0, 0.5, 1, 1]),
        (["conv1.weight", "layer1.0.conv1.weight", "layer1.1.bn1.weight", "layer2.0.conv1.weight",
          "fc.weight"], [0, 0, 0.5, 1, 1]),
        (["net.features.0.weight", "net.features.3.weight", "net.classifier.weight"], [0, 1, 1]),
    ],
)  # fmt: skip
def test_depths_by_name(names, depths):
    depth = DepthByName(names)
    assert [depth(name) for name in names] == depths


NO_BLOCKS = {n: {"enc.weight": torch.ones(2) * i, "dec.weight": torch.ones(2)}
             for i, n in enumerate("ab")}  # fmt: skip


def test_a_gradient_without_blocks_is_refused() -> None:
    models = (Ingredient("a", {"weight": (0.0, 1.0)}), Ingredient("b", {"weight": 1.0}))
    with pytest.raises(UserError, match=r"parameter 'weight' has a gradient .* no numbered blocks"):
        merge_tensors(MergeRecipe("linear", models), NO_BLOCKS)
    flat = (Ingredient("a", {"weight": (1.0, 1.0)}), Ingredient("b", {"weight": 1.0}))
    merged = merge_tensors(MergeRecipe("linear", flat), NO_BLOCKS)
    assert merged["enc.weight"].tolist() == [0.5, 0.5]
    given = merge_tensors(MergeRecipe("linear", models), NO_BLOCKS, depth=lambda _: 0.5)
    assert given["enc.weight"].tolist() == pytest.approx([2 / 3, 2 / 3])


def test_what_a_gradient_is() -> None:
    assert is_gradient((0.0, 1.0))
    assert is_gradient((Choice("x", 1.0), Choice("", (0.0, 1.0))))
    assert not any(map(is_gradient, (1.0, (1.0, 1.0), (0.5,), (Choice("", (1.0, 1.0)),))))
