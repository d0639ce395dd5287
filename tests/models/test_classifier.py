"""Backbones and classifiers. Oracles: NumPy, SciPy, timm's own tables."""

import dataclasses

import numpy as np
import pytest
import timm
import torch
from scipy import ndimage

from src.config import BackboneConfig, InputConfig, ModelConfig, read_model
from src.errors import UserError
from src.models.backbones import BACKBONES, build_backbone, check_backbone
from src.models.backbones.compact import CompactNet, HighPass
from src.models.classifier import build_classifier, input_spec

SMALL = ["compact32", "compact64_highpass", "effnet_b0"]


def model_of(name: str, **inputs: object) -> ModelConfig:
    return ModelConfig(BackboneConfig(name, pretrained="none"), InputConfig(**inputs))  # type: ignore[arg-type]


def random_pixels(count: int, size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, size, size, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("name", SMALL)
def test_the_logit_of_an_item_does_not_depend_on_its_batch(name):
    model, _ = build_classifier(read_model(name))
    model.eval()
    pixels = random_pixels(3, model.spec.image_size)
    with torch.inference_mode():
        together = model({"pixels": pixels})["logit"]
        alone = torch.cat([model({"pixels": pixels[k : k + 1]})["logit"] for k in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


# --- names ---


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet81", ["unknown backbone 'resnet81'", "'resnet18'", "compact_net"]),
        ("compactnet", ["'compact_net'"]),
        ("resnet18.a1_in1kk", ["unknown pretrained tag", *timm.list_pretrained("resnet18.*")]),
        *(
            (odd, ["unknown"])
            for odd in ("", ".", "resnet18.", "../x", "compact_net.x", "RESNET18")
        ),
    ],
)
def test_an_unknown_name_offers_near_ones(name, words):
    with pytest.raises(UserError) as caught:
        check_backbone(name)
    for word in words:
        assert word in str(caught.value)
    if "unknown pretrained tag" in words:
        assert "resnet34" not in str(caught.value)
    for known in ("compact_net", "resnet18", "resnet18.a1_in1k", "test_vit"):
        check_backbone(known)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        # those that would go behind our back
        *(({key: 1}, key) for key in ("num_classes", "pretrained", "drop_rate", "features_only")),
        ({"bogus": 3}, "refuses.*bogus"),
    ],
)
@pytest.mark.parametrize("name", ["test_efficientnet", "compact_net"])
def test_kwargs_that_are_refused(name, kwargs, words):
    with pytest.raises(UserError, match=words):
        build_backbone(BackboneConfig(name, kwargs=kwargs), 32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda **_: CompactNet(num_classes=2), "does not give one logit"),
        (lambda **_: torch.nn.Identity(), "does not give one logit"),
        (lambda **_: torch.nn.LSTM(32, 1), "refuses images of 32 px"),
    ],
)
def test_a_net_that_gives_no_single_logit_is_refused(monkeypatch, make, message):
    monkeypatch.setattr(BACKBONES, "_things", {**BACKBONES._things, "odd": make})
    with pytest.raises(UserError, match=message):
        build_classifier(ModelConfig(BackboneConfig("odd")))


@pytest.mark.parametrize(
    ("name", "kwargs", "words"),
    [
        ("test_efficientnet", {"global_pool": ""}, "refuses images of 160 px"),
        ("compact_net", {"widths": "wide"}, "'compact_net' refuses"),
    ],
)
def test_a_constructors_argument_that_breaks_the_net_is_a_user_error(name, kwargs, words):
    with pytest.raises(UserError, match=words):
        build_classifier(ModelConfig(BackboneConfig(name, kwargs=kwargs)))


def test_drop_rates_reach_the_backbone():
    rates = BackboneConfig("test_efficientnet", drop_rate=0.3, drop_path_rate=0.2)
    net, _ = build_backbone(rates, 32)
    plain, _ = build_backbone(BackboneConfig("test_efficientnet"), 32)
    assert net.drop_rate == 0.3  # type: ignore[comparison-overlap]
    assert plain.drop_rate == 0.0  # type: ignore[comparison-overlap]
    paths = [m.drop_prob for m in net.modules() if type(m).__name__ == "DropPath"]
    assert paths
    assert max(paths) > 0


# --- image size ---


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("test_vit", 64),
        ("test_efficientnet", 50),
        ("compact_net", 64),
        ("compact_net", 36),
        ("compact_net", 8),
    ],
)
def test_other_image_sizes(name, size):
    model, _ = build_classifier(model_of(name, image_size=size))
    assert model.spec.image_size == size
    model.eval()
    assert model({"pixels": random_pixels(2, size)})["logit"].shape == (2,)


# --- preprocessing ---


@pytest.mark.parametrize(
    "name", ["test_vit.r160_in1k", "efficientnet_b0.ra_in1k", "resnet18", "vit_tiny_patch16_224"]
)
def test_what_a_config_leaves_open_comes_from_timm(name):
    published = timm.get_pretrained_cfg(name)
    assert published is not None
    with torch.device("meta"):
        _, native = build_backbone(BackboneConfig(name), None)
    assert native.image_size == published.input_size[-1]
    assert native.mean == tuple(published.mean)
    assert native.std == tuple(published.std)
    assert native.head == (published.classifier,)
    spec = input_spec(read_model(f"timm:{name}"), native)
    assert (spec.image_size, spec.mean, spec.std) == (
        native.image_size,
        native.mean,
        native.std,
    )


def test_what_a_config_says_wins():
    settings = model_of("resnet18", image_size=96, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))
    _, native = build_backbone(settings.backbone, 96)
    spec = input_spec(settings, native)
    assert (spec.image_size, spec.mean, spec.std) == (96, (0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    half = dataclasses.replace(settings.input, mean=None, crop_pct=0.875, geometry="short_side")
    spec = input_spec(dataclasses.replace(settings, input=half), native)
    assert spec.mean == native.mean
    assert spec.std == (1.0, 2.0, 3.0)
    assert (spec.canvas, spec.geometry) == (round(96 / 0.875), "short_side")


@pytest.mark.parametrize(
    ("size", "crop_pct", "canvas"), [(224, 0.875, 256), (224, 1.0, 224), (160, 0.95, 168)]
)
def test_canvas_before_the_crop(size, crop_pct, canvas):
    settings = model_of("compact_net", image_size=size, crop_pct=crop_pct)
    _, native = build_backbone(settings.backbone, size)
    assert input_spec(settings, native).canvas == canvas


def test_both_heads_of_a_distilled_net_are_heads():
    _, native = build_backbone(BackboneConfig("deit_tiny_distilled_patch16_224"), None)
    assert native.head == ("head", "head_dist")


def test_normalisation_equals_numpy():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    model, _ = build_classifier(model_of("compact_net", image_size=32, mean=mean, std=std))
    seen = []
    model.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    pixels = random_pixels(2, 32)
    model({"pixels": pixels})
    wanted = (pixels.numpy().astype(np.float64) / 255 - np.array(mean)) / np.array(std)
    assert seen[0].shape == (2, 3, 32, 32)
    np.testing.assert_allclose(seen[0].numpy(), wanted.transpose(0, 3, 1, 2), atol=2e-6)


def test_a_blanked_box_is_the_mean_colour_and_nothing_else_changes():
    model, _ = build_classifier(model_of("compact_net", image_size=32))
    seen = []
    model.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    pixels = random_pixels(3, 32)
    blank = torch.tensor([[2, 9, 30, 32], [0, 0, 0, 0], [0, 32, 0, 32]])
    model({"pixels": pixels})
    model({"pixels": pixels, "blank": blank})
    wanted = seen[0].clone()
    wanted[0, :, 2:9, 30:32] = 0
    wanted[2] = 0
    assert torch.equal(seen[1], wanted)


def test_a_checkpoint_holds_the_net_alone():
    model, _ = build_classifier(model_of("compact_net", image_size=32))
    assert not {"mean", "std"} & set(model.state_dict())
    assert all(key.startswith("net.") for key in model.state_dict())


# --- compact net ---

KB = np.array([[-1.0, 2, -1], [2, -4, 2], [-1, 2, -1]]) / 4


def test_high_pass_equals_scipy():
    image = np.random.default_rng(0).normal(size=(2, 3, 11, 13))
    out = HighPass()(torch.tensor(image)).numpy()
    assert out.shape == (2, 6, 11, 13)
    np.testing.assert_array_equal(out[:, :3], image)
    for item in range(2):
        for channel in range(3):
            wanted = ndimage.convolve(image[item, channel], KB, mode="constant")
            np.testing.assert_allclose(out[item, 3 + channel], wanted, atol=1e-6)


@pytest.mark.parametrize("high_pass", [False, True])
def test_compact_net_has_a_stage_for_each_width_and_stores_no_kernel(high_pass):
    net = CompactNet(num_classes=3, widths=(4, 4, 8), high_pass=high_pass).eval()
    assert net(torch.zeros(2, 3, 20, 20)).shape == (2, 3)
    first, second = (stage.conv1.stride for stage in net.stages)  # type: ignore[union-attr]
    assert (first, second) == ((1, 1), (2, 2))
    stored = {*net.state_dict(), *dict(net.named_parameters())}
    assert not any("kernel" in key for key in stored)


@pytest.mark.parametrize("name", ["mobilenetv2_100", "efficientnet_b0", "vit_tiny_patch16_224"])
def test_a_new_head_starts_near_zero(name):
    """timm draws the one-output head of the first two from U(-1, 1): first logits of +-20."""
    net, native = build_backbone(BackboneConfig(name), None)
    state = net.state_dict()
    head = [state[key] for key in state if key.startswith(tuple(f"{h}." for h in native.head))]
    assert len(head) == 2
    assert all(tensor.abs().max() < 0.1 for tensor in head)
