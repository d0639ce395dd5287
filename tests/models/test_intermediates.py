"""What a net shows on its way: attention maps against softmax(q k^T) by hand, stages, features."""

import pytest
import timm
import torch

from src.config import BackboneConfig
from src.errors import UserError
from src.models.backbones import build_backbone
from src.models.intermediates import attention_layers, check_intermediates, watching

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3}


def tiny_vit(name: str = "vit_tiny_patch16_224", **changes: object) -> torch.nn.Module:
    return timm.create_model(name, num_classes=1, **(VIT | changes)).eval()


def by_hand(net: torch.nn.Module, pixels: torch.Tensor) -> list[torch.Tensor]:
    """Softmax of scaled products of queries and keys, from what enters each block."""
    x, maps = net._pos_embed(net.patch_embed(pixels)), []
    for block in net.blocks:
        attn, entered = block.attn, block.norm1(x)
        n, t, d = entered.shape
        qkv = attn.qkv(entered).reshape(n, t, 3, attn.num_heads, d // attn.num_heads)
        q, k, _ = qkv.permute(2, 0, 3, 1, 4)
        maps.append(torch.softmax(q.double() @ k.double().mT * (d // attn.num_heads) ** -0.5, -1))
        x = block(x)
    return maps


def test_attention_maps_equal_an_eager_softmax() -> None:
    torch.manual_seed(0)
    net, pixels = tiny_vit(), torch.randn(2, 3, 32, 32)
    want = by_hand(net, pixels)
    plain = net(pixels)
    with watching(net, ("attention", "mean_attention")) as seen:
        logit = net(pixels)
    assert len(seen["attention"]) == 3
    for maps, means, right in zip(seen["attention"], seen["mean_attention"], want, strict=True):
        torch.testing.assert_close(maps.double(), right, atol=1e-5, rtol=0)
        torch.testing.assert_close(means.double(), right.mean(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(logit, plain, atol=1e-5, rtol=0)
    assert all(layer.fused_attn for layer in attention_layers(net)), "fused again afterwards"
    assert not any(layer.attn_drop._forward_pre_hooks for layer in attention_layers(net))


def test_gradients_flow_through_what_is_watched() -> None:
    net = tiny_vit().train()
    with watching(net, ("attention", "features")) as seen:
        net(torch.randn(2, 3, 32, 32))
    (seen["attention"][1].square().sum() + seen["features"].sum()).backward()
    assert net.blocks[1].attn.qkv.weight.grad.abs().sum() > 0
    assert net.blocks[2].attn.qkv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "maxvit_tiny_tf_224", "resnet18"])
def test_a_net_without_attention_over_all_tokens_is_refused(name: str) -> None:
    with torch.device("meta"):
        net = timm.create_model(name, num_classes=1)
    with pytest.raises(UserError, match=f"{name} has no self-attention over all tokens"):
        check_intermediates(net, ["attention"], 224, name)


@pytest.mark.parametrize(
    ("name", "size", "want"),
    [
        ("compact_net", 32, [(20, 32), (40, 16), (80, 8), (160, 4)]),
        ("mobilenetv2_100", 64, [(16, 32), (24, 16), (32, 8), (96, 4), (320, 2)]),
        ("convnext_atto", 64, [(40, 16), (80, 8), (160, 4), (320, 2)]),
    ],
)
def test_stages_are_the_last_feature_map_of_each_resolution(
    name: str, size: int, want: list[tuple[int, int]]
) -> None:
    net, _ = build_backbone(BackboneConfig(name=name, pretrained="none"), None)
    seen = check_intermediates(net, ["stages"], size, name)["stages"]
    assert [(one.shape[1], one.shape[2]) for one in seen] == want


def test_a_transformer_has_no_stages() -> None:
    with pytest.raises(UserError, match="no feature maps of several resolutions"):
        check_intermediates(tiny_vit(), ["stages"], 32, "vit")
