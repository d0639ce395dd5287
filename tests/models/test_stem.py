"""Stem stride. Oracle: timm's nets, whose first convolution is set by hand."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from src.config import BackboneConfig, parse_model, read_model
from src.errors import UserError
from src.models.backbones import build_backbone
from src.models.classifier import build_classifier, measure
from src.models.intermediates import check_intermediates
from src.models.weights import load_weights
from tests.models.small import images, save, stir, tensors_of


def net_of(name: str, stride: int | None, **kwargs: object) -> nn.Module:
    torch.manual_seed(0)
    net, _ = build_backbone(BackboneConfig(name, stem_stride=stride, kwargs=kwargs), 32)  # type: ignore[arg-type]
    return net.eval()


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "first", "own"),
    [
        ("test_efficientnet", "conv_stem", 2),
        ("tf_mobilenetv3_small_minimal_100", "conv_stem", 2),  # pads by size and stride
        ("resnet10t", "conv1.0", 2),
        ("regnety_002", "stem.conv", 2),
        ("test_convnext", "stem.0", 4),
    ],
)
def test_weights_load_unchanged_and_the_logit_is_that_of_a_net_set_by_hand(
    name: str, first: str, own: int, tmp_path: Path
):
    plain = timm.create_model(name, num_classes=1)
    path = save(tensors_of(plain), tmp_path)
    made = net_of(name, 1)
    start = load_weights(made, path, (str(plain.pretrained_cfg["classifier"]),))
    assert start.missing == start.unexpected == []
    assert plain.get_submodule(first).stride == (own, own)
    plain.get_submodule(first).stride = (1, 1)
    wanted = plain.eval()(images())
    torch.testing.assert_close(made(images()), wanted)
    assert not torch.allclose(made(images()), net_of(name, None)(images()))


@pytest.mark.parametrize("name", ["test_efficientnet", "resnet10t", "test_convnext", "repvgg_a0"])
@pytest.mark.parametrize("stride", [1, 2])
def test_feature_info_says_the_sizes_of_the_maps(name: str, stride: int):
    net, size = net_of(name, stride), 64
    info = net.feature_info if isinstance(net.feature_info, list) else net.feature_info.info  # type: ignore[union-attr]
    maps = check_intermediates(net, ["stages"], size, name)["stages"]
    reductions = sorted({one["reduction"] for one in info if one["module"]})
    assert reductions[0] == stride
    sides = [one.shape[2] for one in maps]
    assert len(sides) == len(reductions)
    assert all(abs(side - size / r) <= 3 for side, r in zip(sides, reductions, strict=True))


def test_it_costs_four_times_the_work_and_no_weight():
    plain, fine = (measure(read_model(name)) for name in ("effnet_b0", "effnet_b0_stem1"))
    assert fine[0] == plain[0]
    assert fine[1] == pytest.approx(4 * plain[1], rel=0.02)


def test_it_travels_in_a_config_and_a_stride_of_the_nets_own_changes_nothing():
    content = {"backbone": {"name": "test_efficientnet", "pretrained": "none", "stem_stride": 2}}
    model, _ = build_classifier(parse_model(content | {"input": {"image_size": 32}}, "test"))
    stir(model.net)
    plain = net_of("test_efficientnet", None)
    plain.load_state_dict(model.net.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(model.eval().net(images()), plain(images()))
    with pytest.raises(UserError, match=r"stem_stride.*3"):
        parse_model({"backbone": {"name": "resnet10t", "stem_stride": 3}}, "test")


@pytest.mark.parametrize(
    ("name", "stride", "words"),
    [
        ("vit_tiny_patch16_224", 1, "vit_tiny_patch16_224 has none: .* larger input.image_size"),
        ("swin_tiny_patch4_window7_224", 2, "swin_tiny_.* has none: .* smaller patches"),
        ("compact_net", 1, "compact_net has none"),
        ("vgg11", 2, "the first convolution of vgg11 has stride 1 already"),
        ("vgg11", 1, "the first convolution of vgg11 has stride 1 already"),
    ],
)
def test_a_net_without_a_strided_stem_is_refused_with_what_helps(
    name: str, stride: int, words: str
):
    with torch.device("meta"), pytest.raises(UserError, match=f"stem_stride: {stride}.*{words}"):
        build_backbone(BackboneConfig(name, stem_stride=stride), None)  # type: ignore[arg-type]


def test_a_net_that_attends_on_a_fixed_grid_says_what_is_at_fault():
    content = {
        "backbone": {"name": "coatnet_pico_rw_224", "pretrained": "none", "stem_stride": 1},
        "input": {"image_size": 64},
    }
    with pytest.raises(UserError, match="stem_stride: 1 makes its maps larger"):
        build_classifier(parse_model(content, "test"))
