"""Every shipped model. Oracles: timm's table of weights, and the papers' sizes."""

from copy import deepcopy
from functools import cache

import pytest
import timm
import torch

from src.config import TOKEN_POOLS, ModelConfig, model_names, read_model
from src.errors import UserError
from src.models.backbones import BACKBONES, Native, build_backbone
from src.models.classifier import build_classifier, count_parameters, input_spec, measure
from src.models.strategies import STRATEGIES, make_stages
from src.training.setup import check_names
from tests.conftest import REPO

config_of = cache(read_model)  # YAML takes its time, and each test wants some of the same
NAMES = sorted(path.stem for path in (REPO / "configs" / "models").glob("*.yaml"))
LICENCES = {
    **{"apache-2.0": "Apache-2.0", "mit": "MIT", "cc-by-nc-4.0": "CC BY-NC 4.0"},
    "dinov3-license": "DINOv3 License",
}
# width, patch, blocks, tokens with a place of their own, weights in millions (to 1 %)
TOWERS = {
    "clip_vit_b16": (768, 16, 12, 197, 85.8),
    "clip_vit_b32": (768, 32, 12, 50, 87.5),
    "clip_vit_l14": (1024, 14, 24, 257, 303.2),
    "fsfm_vit_b16": (768, 16, 12, 197, 85.8),
    "siglip_vit_b16": (768, 16, 12, 196, 92.9),
    "dinov2_vit_s14": (384, 14, 12, 256, 21.6),
    "dinov2_vit_b14": (768, 14, 12, 256, 85.7),
    "dinov3_vit_s16": (384, 16, 12, None, 21.6),
    "dinov3_vit_b16": (768, 16, 12, None, 85.6),
    "eva02_vit_s14": (384, 14, 12, 257, 21.6),
    "fake_or_real_vit_b16": (768, 16, 12, 197, 85.8),
    "commfor_vit_s16_384": (384, 16, 12, 577, 21.8),
    "dinov3_vit_l16": (1024, 16, 24, None, 303.1),
    "dinov3_vit_l16_lora": (1024, 16, 24, None, 304.7),
    "dinov2_vit_l14_reg": (1024, 14, 24, 256, 305.8),
    "pe_core_vit_l14": (1024, 14, 24, 577, 303.5),
    "siglip_vit_l16": (1024, 16, 24, 256, 316.0),
    "eva02_vit_l14": (1024, 14, 24, 257, 303.3),
    "clip_vit_l14_layers": (1024, 14, 24, 257, 303.7),
    "vit_small": (384, 16, 12, 197, 21.7),
    "vit_tiny": (192, 16, 12, 197, 5.5),
}
DEEP = {"flip_it_vit_b16", "flip_v_vit_b16", "fsfm_transfer"}  # towers under another recipe
# Wider or deeper than another net of the same layers, which is tried.
TWINS = {
    *("clip_vit_b16", "clip_vit_l14", "dinov2_vit_b14", "dinov3_vit_b16", "vit_small"),
    *("convnext_tiny", "compact64", "effnet_b1", "effnet_b2", "effnet_b3", "effnet_b4"),
    *("effnet_lite1", "effnet_lite2"),
    *("forensics_adapter_b16", "forensics_adapter_l14"),  # tried small in test_forensics_adapter
    *("dinov3_vit_l16", "siglip_vit_l16", "commfor_vit_s16_384", "clip_vit_l14_layers"),
    *("dinov3_vit_l16_lora", "dinov2_vit_l14_reg"),  # their heads in test_token_heads
}


@cache
def _built(key: str, name: str) -> tuple[torch.nn.Module, Native]:
    settings = config_of(name)
    with torch.device("meta"):
        return build_backbone(settings.backbone, settings.input.image_size, settings.head)


def key_of(settings: ModelConfig) -> str:
    return f"{settings.backbone.name} {settings.backbone.kwargs} {settings.head}"


# One name for each net that configs share.
NETS = {key_of(config_of(name)): name for name in reversed(NAMES)}


def built(name: str) -> tuple[torch.nn.Module, Native]:
    """A config's net, without values; built once for all configs that share it."""
    key = key_of(config_of(name))
    return _built(key, NETS[key])


def test_names_are_those_that_the_command_takes():
    assert set(NAMES) == set(model_names())


@pytest.mark.parametrize("name", sorted(set(NETS.values()) - TWINS))
def test_every_kind_of_net_learns(name):
    own = config_of(name).backbone.name in BACKBONES.names()
    sizes = {} if own else {"input.image_size": 56 if "14" in name else 64}
    shallow = {"backbone.kwargs.depth": 2} if name in TOWERS or name in DEEP else {}
    settings = read_model(name, {"input.crop_pct": 1.0, **sizes, **shallow})
    torch.manual_seed(0)
    model, native = build_classifier(settings)
    model.train()
    size = model.spec.image_size
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, size, size, 3), generator=generator, dtype=torch.uint8)
    logit = model({"pixels": pixels})["logit"]
    assert (logit.shape, logit.dtype) == ((2,), torch.float32)
    torch.nn.functional.softplus(logit).sum().backward()
    gradients = {key: p.grad for key, p in model.net.named_parameters()}
    assert [key for key, grad in gradients.items() if grad is None] == []
    assert all(bool(grad.isfinite().all()) for grad in gradients.values())  # type: ignore[union-attr]
    moved = {key for key, grad in gradients.items() if bool((grad != 0).any())}  # type: ignore[union-attr]
    head = {k for k in gradients if k.startswith(tuple(f"{layer}." for layer in native.head))}
    assert head
    assert head < moved


@pytest.mark.parametrize("name", NAMES)
def test_a_config_is_complete_and_its_strategy_finds_its_parts(name):
    settings = config_of(name)
    assert settings.licence
    assert settings.about
    assert (REPO / "configs" / "models" / f"{name}.yaml").read_text().startswith("# ")
    assert settings.strategy in STRATEGIES.names()
    check_names(settings)
    net, native = built(name)
    if settings.strategy == "lora":
        pytest.importorskip("peft", reason="the extra `peft`")
        net = deepcopy(net)
    stages = make_stages(net, native.head, settings)
    assert stages
    every = {key for key, _ in net.named_parameters()}
    head = {k for k in every if k.startswith(tuple(f"{layer}." for layer in native.head))}
    assert all(head <= stage.train <= every for stage in stages)
    whole = settings.strategy in ("fine_tuning", "lp_ft") and not settings.transfer.freeze
    assert (stages[-1].train == every) == whole


@pytest.mark.parametrize("name", [n for n in NAMES if config_of(n).backbone.pretrained == "hub"])
def test_preprocessing_and_licence_are_those_of_the_weights(name):
    settings = config_of(name)
    net, native = built(name)
    own = settings.backbone.name in BACKBONES.names()  # with a tower of timm's
    weights = net.keys.tower if own else settings.backbone.name  # type: ignore[union-attr]
    assert "." in weights  # a tag: which weights is no matter of timm's default
    published = timm.get_pretrained_cfg(weights)
    assert published is not None
    assert LICENCES[str(published.license)] in settings.licence
    spec = input_spec(settings, native)
    assert (spec.mean, spec.std) == (tuple(published.mean), tuple(published.std))
    assert settings.input.interpolation == published.interpolation
    # at 518 px DINOv2 costs six times as much; the winner's DINOv3 saw 448
    if "dinov2" not in name and name != "dinov3_vit_l16_lora" and not own:
        assert spec.image_size == published.input_size[-1]


@pytest.mark.parametrize("name", TOWERS)
def test_a_towers_shapes_are_its_papers(name):
    width, patch, blocks, places, millions = TOWERS[name]
    net, _ = built(name)
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert shapes["patch_embed.proj.weight"] == (width, 3, patch, patch)
    assert len({key.split(".")[1] for key in shapes if key.startswith("blocks.")}) == blocks
    if places is not None:
        assert shapes["pos_embed"] == (1, places, width)
    head = config_of(name).head
    last = ("head.last", head.hidden) if head.pool in TOKEN_POOLS else ("head", width)
    assert shapes[f"{last[0]}.weight"] == (1, last[1])
    assert count_parameters(net) == pytest.approx(1e6 * millions, rel=0.01)
    pooled = "fc_norm.weight" in shapes
    assert pooled == (name in ("fsfm_vit_b16", "eva02_vit_s14", "eva02_vit_l14"))
    assert ("norm_pre.weight" in shapes) == name.startswith(("clip_", "pe_core"))
    kinds = {type(module).__name__ for module in net.modules()}
    assert ("QuickGELU" in kinds) == name.startswith("clip_")
    assert not {"QuickGELU", "GELU"} <= kinds


@pytest.mark.parametrize(
    ("name", "gmacs"),
    [("effnet_b0", 0.39), ("resnet50", 4.1), ("vit_small", 4.6), ("swin_tiny", 4.5)],
)
def test_work_is_what_the_papers_count(name, gmacs):
    parameters, macs, spec = measure(config_of(name))
    assert macs / 1e9 == pytest.approx(gmacs, rel=0.03)
    net, native = built(name)
    assert (parameters, spec) == (count_parameters(net), input_spec(config_of(name), native))


def test_work_of_one_layer_by_hand():
    compact = read_model("compact32", {"backbone.kwargs.widths": [4, 4]})
    # stem 3 -> 4, two convolutions 4 -> 4, at 32 x 32; the head has one weight a channel
    assert measure(compact)[1] == 32 * 32 * 9 * (3 * 4 + 2 * 4 * 4) + 4


# --- gradient checkpointing ---


def gradients_of(*, checkpointed: bool) -> dict[str, torch.Tensor]:
    changes = {"backbone.grad_checkpointing": checkpointed, "input.image_size": 32}
    torch.manual_seed(0)
    model, _ = build_classifier(read_model("timm:test_vit", changes))
    model.train()
    model({"pixels": torch.full((2, 32, 32, 3), 7, dtype=torch.uint8)})["logit"].sum().backward()
    return {key: p.grad for key, p in model.net.named_parameters()}  # type: ignore[misc]


def test_gradient_checkpointing_changes_no_gradient(monkeypatch):
    plain = gradients_of(checkpointed=False)
    calls = []
    real = torch.utils.checkpoint.checkpoint
    monkeypatch.setattr(
        torch.utils.checkpoint, "checkpoint", lambda *a, **k: calls.append(1) or real(*a, **k)
    )
    saved = gradients_of(checkpointed=True)
    assert calls
    assert plain.keys() == saved.keys()
    for key, gradient in plain.items():
        torch.testing.assert_close(saved[key], gradient)


def test_a_net_that_offers_no_checkpointing_is_refused():
    with pytest.raises(UserError, match="grad_checkpointing: compact_net does not offer it"):
        build_classifier(read_model("compact32", {"backbone.grad_checkpointing": True}))


@pytest.mark.parametrize(("size", "fitting"), [(50, "48 or 64"), (8, "16")])
def test_a_size_that_a_net_of_patches_refuses_names_what_fits(size, fitting):
    with pytest.raises(UserError, match=f"multiples of 16 fit, such as {fitting}"):
        build_classifier(read_model("timm:test_vit", {"input.image_size": size}))
