"""CLIP towers. Oracles: timm's own loader of OpenAI's files; transformers."""

import re
from copy import deepcopy

import pytest
import timm
import torch
from timm.models.eva import checkpoint_filter_fn as timm_eva
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import nn

from src.config import BackboneConfig, HeadConfig
from src.errors import UserError
from src.models.backbones import build_backbone
from src.models.weights import load_weights
from tests.models.small import HEAD, clip_vit, features, images, save, stir, tensors_of, vit

NEW = ["head.bias", "head.weight"]


# From timm's names to OpenAI's.
RENAMES = (
    ("^blocks", "transformer.resblocks"), (r"attn\.qkv\.", "attn.in_proj_"),
    ("attn.proj", "attn.out_proj"), (r"mlp\.fc1", "mlp.c_fc"), (r"mlp\.fc2", "mlp.c_proj"),
    ("norm_pre", "ln_pre"), (r"norm(\d)", r"ln_\1"), ("^norm", "ln_post"),
    ("^patch_embed.proj", "conv1"), ("^cls_token", "class_embedding"),
    ("^pos_embed", "positional_embedding"),
)  # fmt: skip


def openais(net: nn.Module) -> dict[str, torch.Tensor]:
    """A tower as OpenAI publishes it, with its projection."""
    found = {"proj": torch.ones(32, 16)}
    for key, value in tensors_of(net).items():
        for old, new in RENAMES:
            key = re.sub(old, new, key)
        if not key.startswith("head."):
            found[key] = value[0] if key == "positional_embedding" else value
    found["class_embedding"] = found["class_embedding"].flatten()
    return found


TEXT = {
    **{"transformer.resblocks.0.attn.in_proj_weight": torch.ones(24, 8)},
    **{"token_embedding.weight": torch.ones(5, 8), "positional_embedding": torch.ones(7, 8)},
    **{"ln_final.weight": torch.ones(8), "text_projection": torch.ones(8, 16)},
    "logit_scale": torch.ones(()),
}


@pytest.fixture(scope="module")
def tower() -> nn.Module:
    return clip_vit(seed=5)


@pytest.fixture
def whole(tower) -> dict[str, torch.Tensor]:
    return {f"visual.{key}": value for key, value in openais(tower).items()} | TEXT


def adapter_file(tensors: dict) -> dict:
    """ForensicsAdapter keeps the tower twice, the second time as a part of another module."""
    tower = {k.removeprefix("visual."): v for k, v in tensors.items() if k.startswith("visual.")}
    return {
        **{f"module.clip_model.{k}": v for k, v in tensors.items()},
        **{f"module.rec_attn_clip.vit.{k}": v for k, v in tower.items()},
        "module.adapter.query": torch.ones(1, 4, 8),
    }


LAYOUTS = {
    "": lambda t: t,
    "module.": lambda t: {"state_dict": {f"module.{k}": v for k, v in t.items()}, "epoch": 1},
    "clip_model.": adapter_file,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_whole_clip_in_its_wrappers(whole, tower, tmp_path, layout):
    path = save(LAYOUTS[layout](whole), tmp_path)
    net = clip_vit(seed=1)
    start = load_weights(net, path, HEAD)
    assert (start.format, start.missing, start.unexpected) == ("clip", NEW, [])
    text = {key for key in whole if not key.startswith("visual.")} | {"visual.proj"}
    if layout == "clip_model.":
        text = {f"clip_model.{key}" for key in text} | {"adapter.query"}
        text |= {f"rec_attn_clip.vit.{k.removeprefix('visual.')}" for k in whole if "visual." in k}
    assert set(start.dropped) == text
    assert torch.equal(features(net, images()), features(tower, images()))


def test_the_tower_alone_in_half_precision(tower, tmp_path):
    half = {key: value.half() for key, value in openais(tower).items()}
    net, reference = clip_vit(seed=1), deepcopy(tower).half().float()
    start = load_weights(net, save(half, tmp_path), HEAD)
    assert (start.format, start.missing, start.dropped) == ("clip", NEW, ["proj"])
    assert torch.equal(features(net, images()), features(reference, images()))
    assert all(p.dtype == torch.float32 for p in net.parameters())


def test_equals_timms_own_loader_at_another_size(whole, tmp_path):
    net, theirs = clip_vit(img_size=48), clip_vit(img_size=48, num_classes=16)
    load_weights(net, save(whole, tmp_path), HEAD)
    theirs.load_state_dict(checkpoint_filter_fn(dict(whole), theirs))  # type: ignore[arg-type]
    pixels = images(48)
    assert torch.equal(features(net, pixels), features(theirs, pixels))
    assert net.pos_embed.shape == (1, 37, 32)  # type: ignore[union-attr]


def test_openais_archive_into_another_activation_is_noted(whole, tmp_path, caplog):
    marks = ("input_resolution", "context_length", "vocab_size")
    path = save(whole | {mark: torch.tensor(7) for mark in marks}, tmp_path)
    caplog.set_level("INFO", "rvf")
    load_weights(clip_vit(), path, HEAD)
    assert "QuickGELU" not in caplog.text
    plain = timm.create_model("vit_base_patch32_clip_224", num_classes=1, embed_dim=32, depth=2,
                              num_heads=2, img_size=32, patch_size=8)  # fmt: skip
    start = load_weights(plain, path, HEAD)
    assert set(marks) < set(start.dropped)
    assert "QuickGELU" in caplog.text


def test_a_torchscript_archive_is_refused_with_the_way_out(tmp_path):
    path = tmp_path / "ViT-B-32.pt"
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(path))
    with pytest.raises(UserError, match="TorchScript archive is a program") as caught:
        load_weights(clip_vit(), path, HEAD)
    assert "torch.jit.load" in str(caught.value)
    assert "ViT-B-32.weights.pth" in str(caught.value)


def test_another_backbone_is_told_what_the_file_is(whole, tmp_path):
    path = save(whole, tmp_path)
    with pytest.raises(UserError) as caught:
        load_weights(timm.create_model("test_efficientnet", num_classes=1), path, ("classifier",))
    assert "a vision transformer of width 32, patch 8, 2 blocks (clip)" in str(caught.value)
    net = vit(seed=1)  # no norm before its blocks, a bias in its patches
    before = tensors_of(net)
    with pytest.raises(UserError, match=r"patch_embed\.proj\.bias"):
        load_weights(net, path, HEAD)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


# --- Hugging Face ---


@pytest.fixture(scope="module")
def hugging():
    transformers = pytest.importorskip("transformers", reason="comes with the extra `peft`")
    vision = {
        **{"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2},
        **{"num_attention_heads": 2, "image_size": 32, "patch_size": 8},
    }
    text = {
        **{"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1},
        **{"num_attention_heads": 2, "vocab_size": 9, "max_position_embeddings": 7},
    }
    torch.manual_seed(6)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    net = transformers.CLIPModel(config)
    stir(net)
    return net.eval()


@pytest.mark.parametrize("prefix", ["whole", "vision_model.", "", "model.backbone."])
def test_hugging_faces_clip(hugging, tmp_path, prefix):
    tower = tensors_of(hugging.vision_model)
    # Files of before transformers 5 hold this buffer.
    tower["embeddings.position_ids"] = torch.arange(17)[None]
    tensors = {f"{prefix}{key}": value for key, value in tower.items()}
    if prefix == "whole":
        tensors = tensors_of(hugging)
    net = clip_vit(seed=1)
    start = load_weights(net, save(tensors, tmp_path), HEAD)
    assert (start.format, start.missing, start.unexpected) == ("hf_clip", NEW, [])
    if prefix == "whole":
        assert set(start.dropped) == {k for k in tensors if not k.startswith("vision_model.")}
        assert any(key.startswith("text_model.") for key in start.dropped)
    else:
        assert start.dropped == [f"{prefix}embeddings.position_ids"]
    with torch.no_grad():
        pooled = hugging.vision_model(images()).pooler_output
    torch.testing.assert_close(features(net, images()), pooled, atol=1e-5, rtol=1e-5)


def in_parts(tensors: dict) -> dict:
    """As Effort saves its attention layers: the last singular value apart, all factors beside."""
    result = {}
    for key, value in tensors.items():
        if not (".self_attn." in key and key.endswith(".weight")):
            result[key] = value
            continue
        stem, rank = key.removesuffix("weight"), len(value) - 1
        left, values, right = torch.linalg.svd(value, full_matrices=False)
        result[f"{stem}weight_main"] = left[:, :rank] @ values[:rank].diag() @ right[:rank]
        for name, part in (("U", left.T), ("S", values), ("V", right)):
            kept, rest = (p.T if name == "U" else p for p in (part[:rank], part[rank:]))
            result |= {f"{stem}{name}_r": kept.clone(), f"{stem}{name}_residual": rest.clone()}
    return result


@pytest.mark.parametrize(
    ("effort", "mean"), [(False, [0.5] * 3), (True, [0.48145466, 0.4578275, 0.40821073])]
)
def test_a_detectors_head_is_kept_and_its_weights_in_parts_are_put_together(
    hugging, tmp_path, caplog, effort, mean
):
    """DeepfakeBench's, and Effort's of the same names."""
    caplog.set_level("INFO", "rvf")
    torch.manual_seed(7)
    classifier = nn.Linear(32, 2)  # real, fake
    tensors = tensors_of(hugging.vision_model)
    tensors = in_parts(tensors) if effort else tensors
    detector = {f"module.backbone.{key}": value for key, value in tensors.items()}
    detector |= {f"module.head.{k}": v for k, v in tensors_of(classifier).items()}
    net = clip_vit(seed=1)
    start = load_weights(net, save(detector, tmp_path), HEAD)
    assert (start.format, start.missing, start.unexpected) == ("hf_clip", [], [])
    assert start.dropped == []
    assert start.mean == pytest.approx(mean)
    said = "8 weights lie in parts of a singular value decomposition, as Effort" in caplog.text
    assert said == effort
    with torch.no_grad():
        scores = classifier(hugging.vision_model(images()).pooler_output)
        prob = torch.sigmoid(net(images())[:, 0])
    torch.testing.assert_close(prob, scores.softmax(1)[:, 1], atol=1e-5, rtol=1e-4)


def test_a_lost_projection_is_named(hugging, tmp_path):
    tensors = tensors_of(hugging.vision_model)
    del tensors["encoder.layers.1.self_attn.k_proj.weight"]
    with pytest.raises(UserError, match=r"blocks\.1\.attn\.qkv\.weight lacks its k projection"):
        load_weights(clip_vit(), save(tensors, tmp_path), HEAD)


# From timm's names to those of Meta's perception_models.
PERCEPTION = (
    (r"^attn_pool\.latent", "attn_pool.probe"), (r"^attn_pool\.norm", "attn_pool.layernorm"),
    (r"^attn_pool\.proj", "attn_pool.attn.out_proj"), (r"mlp\.fc1", "mlp.c_fc"),
    (r"mlp\.fc2", "mlp.c_proj"), *RENAMES,
)  # fmt: skip


@pytest.mark.parametrize("pool", ["native", "cls"])
def test_perception_encoder_with_its_pooling(tmp_path, pool):
    name, small = "vit_pe_core_base_patch16_224", {"embed_dim": 32, "depth": 2, "num_heads": 2}
    config = BackboneConfig(name, kwargs=small | {"patch_size": 8})
    donor, net = build_backbone(config, 32)[0], build_backbone(config, 32, HeadConfig(pool))[0]
    stir(donor)
    found = {"proj": torch.ones(32, 16)}
    for key, value in tensors_of(donor).items():
        for old, new in PERCEPTION:
            key = re.sub(old, new, key)
        if not key.startswith("head."):
            found[key] = value[0] if key == "positional_embedding" else value
    found["class_embedding"] = found["class_embedding"].flatten()
    for part in ("weight", "bias"):
        halves = found.pop(f"attn_pool.q.{part}"), found.pop(f"attn_pool.kv.{part}")
        found[f"attn_pool.attn.in_proj_{part}"] = torch.cat(halves)
    path = save({f"visual.{key}": value for key, value in found.items()} | TEXT, tmp_path)
    wanted = timm_eva({f"visual.{key}": value for key, value in found.items()}, donor)
    assert {k: v.shape for k, v in wanted.items() if "head" not in k} == {
        k: v.shape for k, v in donor.state_dict().items() if "head" not in k
    }  # the file is as timm knows Meta's
    start = load_weights(net, path, HEAD)
    assert (start.format, start.missing) == ("clip", NEW)
    own = net.state_dict()
    assert all(torch.equal(own[key], wanted[key]) for key in own if key not in NEW)
    assert bool(start.unexpected) == (pool == "cls")
