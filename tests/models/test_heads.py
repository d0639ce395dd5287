"""Pooling and the last layer. Oracles: timm's own pools, and the formulas in torch."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from src.config import BackboneConfig, HeadConfig, parse_model
from src.errors import UserError
from src.inference.engines import fused
from src.models.backbones import build_backbone
from src.models.checkpoint import load_checkpoint, save_checkpoint
from src.models.classifier import build_classifier
from src.models.heads import NormalizedLinear, Pool, classifier_of

NETS = ["test_vit", "test_efficientnet", "test_convnext", "test_resnet", "compact_net"]
SIZES = {"test_vit": 160, "compact_net": 16}  # else 64 px are enough


def net_of(name: str, pool: str = "native", *, normalize: bool = False) -> nn.Module:
    torch.manual_seed(0)
    size = SIZES.get(name, 64)
    net, _ = build_backbone(BackboneConfig(name), size, HeadConfig(pool, normalize))  # type: ignore[arg-type]
    return net.eval()


def images_of(name: str) -> torch.Tensor:
    size = SIZES.get(name, 64)
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def logits_of(net: nn.Module, name: str) -> torch.Tensor:
    with torch.inference_mode():
        return net(images_of(name))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("pool", ["avg", "max", "gem"])
def test_a_head_adds_no_weights_and_pools_otherwise(name: str, pool: str):
    plain, made = net_of(name), net_of(name, pool, normalize=True)
    assert {k: v.shape for k, v in made.state_dict().items()} == {
        k: v.shape for k, v in plain.state_dict().items()
    }
    made.load_state_dict(plain.state_dict())
    got = logits_of(made, name)
    assert got.shape == (2, 1)
    path, layer = classifier_of(made)
    assert isinstance(layer, NormalizedLinear)
    seen = []
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    torch.testing.assert_close(logits_of(made, name), got)
    length = seen[0].norm(dim=1, keepdim=True)
    torch.testing.assert_close(got, seen[0] / length @ layer.weight.T + layer.bias)
    assert path == classifier_of(plain)[0]


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext", "test_resnet"])
@pytest.mark.parametrize("pool", ["avg", "max"])
def test_pools_of_convnets_are_timms(name: str, pool: str):
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=1, global_pool=pool).eval()
    ours = net_of(name, pool)
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(logits_of(ours, name), logits_of(theirs, name))


@pytest.mark.parametrize("pool", ["avg", "max", "cls"])
def test_pools_of_transformers_are_timms(pool: str):
    theirs = timm.create_model("test_vit", num_classes=1)
    theirs.reset_classifier(1, "token" if pool == "cls" else pool)
    ours = net_of("test_vit", pool)
    ours.load_state_dict(theirs.state_dict())
    wanted = logits_of(theirs.eval(), "test_vit")
    torch.testing.assert_close(logits_of(ours, "test_vit"), wanted)


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3", "vit_base_patch16_siglip_224"]
)
def test_gem_of_transformers_sees_patches_alone(name: str):
    """Class and register tokens are left out, of ViT as of Eva; attention pooling is replaced."""
    kwargs = {"depth": 1, "embed_dim": 12, "num_heads": 3}
    config = BackboneConfig(name, kwargs=kwargs)
    net, _ = build_backbone(config, 32, HeadConfig("gem"))
    net.eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        tokens = net.forward_features(images)[:, net.num_prefix_tokens :]
        assert tokens.shape[1] == 4
        pooled = tokens.clamp(min=1e-6).pow(3).mean(1).pow(1 / 3)
        wanted = net.get_classifier()(net.fc_norm(pooled))
        torch.testing.assert_close(net(images), wanted)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3"])
def test_class_token_and_mean_side_by_side(name: str):
    config = BackboneConfig(name, kwargs={"depth": 1, "embed_dim": 12, "num_heads": 3})
    net, _ = build_backbone(config, 32, HeadConfig("cls_avg"))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    if name.endswith("dinov3"):
        assert net.num_prefix_tokens == 5
    with torch.inference_mode():
        tokens = net.eval().forward_features(images)
        both = torch.cat([tokens[:, 0], tokens[:, net.num_prefix_tokens :].mean(1)], 1)
        assert both.shape == (2, 24)
        torch.testing.assert_close(net(images), net.get_classifier()(both))


def test_gem_lies_between_mean_and_max():
    x = torch.rand(3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    mean, gem, largest = (Pool(kind)(x) for kind in ("avg", "gem", "max"))
    assert (mean < gem).all()
    assert (gem < largest).all()
    torch.testing.assert_close(gem, functional.lp_pool2d(x, 3, (5, 6))[..., 0, 0] / 30 ** (1 / 3))
    assert Pool("gem")(-x.bfloat16()).dtype == torch.bfloat16
    signed = (x - 0.5).requires_grad_()
    Pool("gem")(signed).sum().backward()
    assert torch.isfinite(signed.grad).all()


@pytest.mark.parametrize(
    "name", ["test_efficientnet", "compact_net", "vit_base_patch16_siglip_224"]
)
def test_a_class_token_that_is_not_there_is_refused(name: str):
    kwargs = {"depth": 1, "embed_dim": 12, "num_heads": 3} if "siglip" in name else {}
    for pool in ("cls", "cls_avg"):
        match = rf"{pool} wants a class token, and {name} has none; avg"
        with pytest.raises(UserError, match=match):
            build_backbone(BackboneConfig(name, kwargs=kwargs), 32, HeadConfig(pool))


def test_a_net_with_two_classifiers_is_refused_where_one_is_meant():
    name = "deit_tiny_distilled_patch16_224"
    config = BackboneConfig(name, kwargs={"depth": 1})
    with pytest.raises(UserError, match="has 2 classifiers"):
        build_backbone(config, 32, HeadConfig(normalize=True))


def test_a_pool_that_cannot_be_exchanged_is_refused():
    with pytest.raises(UserError, match=r"pooling of test_mambaout .* leave it native"):
        build_backbone(BackboneConfig("test_mambaout"), 64, HeadConfig("gem"))


def config_of(name: str, **head: object):
    content = {"backbone": {"name": name, "pretrained": "none"}, "head": head}
    return parse_model(content | {"input": {"image_size": SIZES.get(name, 64)}}, "test")


@pytest.mark.parametrize("name", NETS)
def test_features_are_what_enters_the_last_layer(name: str):
    model, _ = build_classifier(config_of(name))
    size = SIZES.get(name, 64)
    batch = {"pixels": torch.randint(256, (2, size, size, 3), dtype=torch.uint8)}
    with torch.inference_mode():
        plain, asked = model(batch), model(batch, also=("features",))
        path, head = classifier_of(model.net)
        torch.testing.assert_close(head(asked["features"]).squeeze(1), plain["logit"])
    assert set(plain) == {"logit"}
    assert asked["features"].shape == (2, head.in_features)
    assert path in dict(model.net.named_modules())
    assert torch.equal(asked["logit"], plain["logit"])
    assert not head._forward_pre_hooks


@pytest.mark.parametrize(
    ("name", "pool"), [*((name, "gem") for name in NETS), ("test_vit", "cls_avg")]
)
def test_a_head_survives_its_checkpoint_and_the_fused_net(name: str, pool: str, tmp_path):
    config = config_of(name, pool=pool, normalize=True)
    model, _ = build_classifier(config)
    path = tmp_path / "fold_0.safetensors"
    save_checkpoint(path, model, config.as_dict(), ["full"])
    loaded, _ = load_checkpoint(path, torch.device("cpu"))
    wanted = logits_of(model.net, name)
    assert torch.equal(logits_of(loaded.net, name), wanted)
    if pool == "gem":
        plain = net_of(name)
        plain.load_state_dict(model.net.state_dict())
        assert not torch.allclose(logits_of(plain, name), wanted, rtol=1e-3, atol=1e-6)
    quick = fused(loaded.net, SIZES.get(name, 64), plain_attention=True)
    torch.testing.assert_close(logits_of(quick, name), wanted, rtol=1e-4, atol=1e-5)
