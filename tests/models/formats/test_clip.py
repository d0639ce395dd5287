"""CLIP towers. Oracles: OpenAI's architecture in torch's own layers; transformers."""

from collections import OrderedDict

import pytest
import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import nn

from src.errors import UserError
from src.models.weights import load_weights
from tests.models.small import HEAD, clip_vit, features, images, save, stir, tensors_of, vit

NEW = ["head.bias", "head.weight"]


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        layers = [("c_fc", nn.Linear(width, 4 * width)), ("gelu", QuickGELU())]
        self.mlp = nn.Sequential(OrderedDict([*layers, ("c_proj", nn.Linear(4 * width, width))]))
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Tower(nn.Module):
    """As in OpenAI's model.py: tokens first, then the batch."""

    def __init__(self, width: int = 32, patch: int = 8, size: int = 32, out: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros((size // patch) ** 2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.Sequential(*(Block(width, 2) for _ in range(2)))
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, out))

    def forward(self, x):
        x = self.conv1(x).flatten(2).transpose(1, 2)
        start = self.class_embedding.expand(len(x), 1, -1)
        x = self.ln_pre(torch.cat([start, x], 1) + self.positional_embedding)
        x = self.transformer.resblocks(x.transpose(0, 1)).transpose(0, 1)
        return self.ln_post(x[:, 0])


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visual = Tower()
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.Sequential(Block(8, 2))
        self.token_embedding = nn.Embedding(5, 8)
        self.positional_embedding = nn.Parameter(torch.zeros(7, 8))
        self.ln_final = nn.LayerNorm(8)
        self.text_projection = nn.Parameter(torch.zeros(8, 16))
        self.logit_scale = nn.Parameter(torch.ones(()))


@pytest.fixture(scope="module")
def whole() -> Text:
    torch.manual_seed(5)
    net = Text()
    stir(net)
    return net.eval()


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
def test_the_whole_clip_in_its_wrappers(whole, tmp_path, layout):
    path = save(LAYOUTS[layout](tensors_of(whole)), tmp_path)
    net = clip_vit(seed=1)
    start = load_weights(net, path, HEAD)
    assert (start.format, start.missing, start.unexpected) == ("clip", NEW, [])
    text = {key for key in whole.state_dict() if not key.startswith("visual.")} | {"visual.proj"}
    if layout == "clip_model.":
        text = {f"clip_model.{key}" for key in text} | {"adapter.query"}
        vit_keys = [k.removeprefix("visual.") for k in whole.state_dict() if "visual." in k]
        text |= {f"rec_attn_clip.vit.{key}" for key in vit_keys}
    assert set(start.dropped) == text
    with torch.no_grad():
        wanted = whole.visual(images())
    torch.testing.assert_close(features(net, images()), wanted, atol=1e-5, rtol=1e-5)


def test_the_tower_alone_in_half_precision(whole, tmp_path):
    half = {key: value.half() for key, value in whole.visual.state_dict().items()}
    net = clip_vit(seed=1)
    start = load_weights(net, save(half, tmp_path), HEAD)
    assert (start.format, start.missing, start.dropped) == ("clip", NEW, ["proj"])
    reference = Tower()
    reference.load_state_dict(half)
    with torch.no_grad():
        wanted = reference.eval()(images())
    torch.testing.assert_close(features(net, images()), wanted, atol=1e-5, rtol=1e-5)
    assert all(p.dtype == torch.float32 for p in net.parameters())


def test_equals_timms_own_loader_at_another_size(whole, tmp_path):
    net, theirs = clip_vit(img_size=48), clip_vit(img_size=48, num_classes=16)
    load_weights(net, save(tensors_of(whole), tmp_path), HEAD)
    theirs.load_state_dict(checkpoint_filter_fn(tensors_of(whole), theirs))  # type: ignore[arg-type]
    pixels = images(48)
    assert torch.equal(features(net, pixels), features(theirs, pixels))
    assert net.pos_embed.shape == (1, 37, 32)  # type: ignore[union-attr]


def test_openais_archive_into_another_activation_is_noted(whole, tmp_path, caplog):
    marks = ("input_resolution", "context_length", "vocab_size")
    path = save(tensors_of(whole) | {mark: torch.tensor(7) for mark in marks}, tmp_path)
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
    path = save(tensors_of(whole), tmp_path)
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


def test_deepfakebenchs_clip_detector_keeps_its_head(hugging, tmp_path):
    torch.manual_seed(7)
    classifier = nn.Linear(32, 2)  # real, fake
    detector = {f"module.backbone.{k}": v for k, v in tensors_of(hugging.vision_model).items()}
    detector |= {f"module.head.{k}": v for k, v in tensors_of(classifier).items()}
    net = clip_vit(seed=1)
    start = load_weights(net, save(detector, tmp_path), HEAD)
    assert (start.format, start.missing, start.unexpected) == ("hf_clip", [], [])
    assert start.dropped == []
    assert start.mean == start.std == [0.5, 0.5, 0.5]
    with torch.no_grad():
        scores = classifier(hugging.vision_model(images()).pooler_output)
        prob = torch.sigmoid(net(images())[:, 0])
    torch.testing.assert_close(prob, scores.softmax(1)[:, 1], atol=1e-5, rtol=1e-5)


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


def test_efforts_weights_in_parts_are_put_together(hugging, tmp_path, caplog):
    caplog.set_level("INFO", "rvf")
    torch.manual_seed(7)
    classifier = nn.Linear(32, 2)  # real, fake
    tower = in_parts(tensors_of(hugging.vision_model))
    detector = {f"module.backbone.{key}": value for key, value in tower.items()}
    detector |= {f"module.head.{k}": v for k, v in tensors_of(classifier).items()}
    net = clip_vit(seed=1)
    start = load_weights(net, save(detector, tmp_path), HEAD)
    assert (start.format, start.missing, start.unexpected) == ("hf_clip", [], [])
    assert start.dropped == []
    assert start.mean == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    assert "8 weights lie in parts of a singular value decomposition, as Effort" in caplog.text
    with torch.no_grad():
        scores = classifier(hugging.vision_model(images()).pooler_output)
        prob = torch.sigmoid(net(images())[:, 0])
    torch.testing.assert_close(prob, scores.softmax(1)[:, 1], atol=1e-5, rtol=1e-4)


def test_a_lost_projection_is_named(hugging, tmp_path):
    tensors = tensors_of(hugging.vision_model)
    del tensors["encoder.layers.1.self_attn.k_proj.weight"]
    with pytest.raises(UserError, match=r"blocks\.1\.attn\.qkv\.weight lacks its k projection"):
        load_weights(clip_vit(), save(tensors, tmp_path), HEAD)
