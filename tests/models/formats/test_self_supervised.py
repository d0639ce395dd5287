"""FSFM, MAE, DINO. Oracles: their forward passes written down; timm's own converters."""

import json
import re
from argparse import Namespace
from functools import partial

import pytest
import timm
import torch
from timm.models import eva, vision_transformer
from torch import nn

from src.errors import UserError
from src.models.detector import turn_head
from src.models.formats.self_supervised import FSFM_SIDECAR, IMAGENET, VGGFACE2
from src.models.weights import load_weights
from tests.models.small import (
    HEAD,
    features,
    images,
    save,
    stirred,
    tensors_of,
    vit,
)

NEW_HEAD = ["head.bias", "head.weight"]
NEW_POOL = ["fc_norm.bias", "fc_norm.weight", *NEW_HEAD]


def pooling_vit(seed: int = 0, num_classes: int = 1, **kwargs: object) -> nn.Module:
    return vit(num_classes, seed, global_pool="avg", **kwargs)


def decoder(width: int = 16) -> dict[str, torch.Tensor]:
    """The keys of a masked autoencoder's decoder, scaled down."""
    keys = {"decoder_embed.weight": (width, 32), "decoder_embed.bias": (width,)}
    keys |= {"decoder_pos_embed": (1, 17, width), "mask_token": (1, 1, width)}
    keys |= {"decoder_blocks.0.attn.qkv.weight": (3 * width, width)}
    keys |= {"decoder_norm.weight": (width,), "decoder_pred.weight": (192, width)}
    return {key: torch.ones(shape) for key, shape in keys.items()}


def pretraining() -> dict[str, torch.Tensor]:
    """What FSFM's pretraining saves beside the encoder."""
    extra = {"rep_decoder_embed.weight": (16, 32), "rep_decoder_pos_embed": (1, 17, 16)}
    extra |= {"rep_decoder_blocks.0.norm1.weight": (16,), "projector.0.weight": (8, 16)}
    extra |= {"predictor.3.bias": (8,)}
    return decoder() | {key: torch.ones(shape) for key, shape in extra.items()}


def wrapped(tensors: dict, **arguments: object) -> dict:
    return {
        **{"model": tensors, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
        **{"epoch": 400, "scaler": {"scale": 65536.0}},
        "args": Namespace(model="x", lr=1e-4, **arguments),
    }


@torch.no_grad()
def encoded(net: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """The tokens after the last block, as models_vit.py of MAE and FSFM computes them."""
    x = net.patch_embed.proj(pixels).flatten(2).transpose(1, 2)
    x = torch.cat([net.cls_token.expand(len(x), -1, -1), x], 1) + net.pos_embed
    return net.blocks(x)


def normed(tokens: torch.Tensor, state: dict[str, torch.Tensor], norm: str) -> torch.Tensor:
    weights = (state[f"{norm}.{part}"] for part in ("weight", "bias"))
    return nn.functional.layer_norm(tokens, (32,), *weights, 1e-6)


# --- FSFM ---


def test_fsfms_pretraining_file(tmp_path):
    reference = vit(num_classes=0, seed=1)
    tensors = tensors_of(reference) | pretraining()
    net = pooling_vit()
    before = tensors_of(net)
    start = load_weights(net, save(wrapped(tensors), tmp_path), HEAD)
    assert (start.format, start.missing, start.unexpected) == ("fsfm", NEW_POOL, [])
    assert set(start.dropped) == {*pretraining(), "norm.weight", "norm.bias"}
    assert (tuple(start.mean or ()), tuple(start.std or ())) == VGGFACE2
    wanted = normed(encoded(reference, images())[:, 1:].mean(1), before, "fc_norm")
    torch.testing.assert_close(features(net, images()), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("beside", [True, False])
def test_fsfms_fine_tuned_file_says_fake_first(tmp_path, beside):
    reference = pooling_vit(seed=1, num_classes=2)
    path = save(wrapped(tensors_of(reference), normalize_from_IMN=False), tmp_path)
    if beside:
        lines = [{"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}, {"mean": [9], "std": [9]}]
        (tmp_path / FSFM_SIDECAR).write_text("\n".join(map(json.dumps, lines)))
    net = pooling_vit()
    start = load_weights(net, path, HEAD)
    assert (start.format, start.missing, start.unexpected) == ("fsfm", [], [])
    assert start.dropped == []
    wanted = (lines[0]["mean"], lines[0]["std"]) if beside else tuple(map(list, VGGFACE2))
    assert (start.mean, start.std) == wanted
    state = reference.state_dict()
    mean = normed(encoded(reference, images())[:, 1:].mean(1), state, "fc_norm")
    prob = (mean @ state["head.weight"].T + state["head.bias"]).softmax(1)
    with torch.no_grad():
        ours = torch.sigmoid(net(images())[:, 0])
    torch.testing.assert_close(ours, prob[:, 0], atol=1e-5, rtol=1e-5)  # class 1 is REAL
    assert (ours - prob[:, 1]).abs().max() > 0.01


def test_fsfm_on_imagenets_scale(tmp_path):
    tensors = tensors_of(pooling_vit(num_classes=2))
    (tmp_path / FSFM_SIDECAR).write_text('{"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.3]}')
    path = save(wrapped(tensors, normalize_from_IMN=True), tmp_path)
    start = load_weights(pooling_vit(), path, HEAD)
    assert (tuple(start.mean or ()), tuple(start.std or ())) == IMAGENET


@pytest.mark.parametrize("classes", [2, 4])
def test_fsfm_classes_of_unknown_order_leave_a_new_head(tmp_path, classes, caplog):
    tensors = tensors_of(pooling_vit(num_classes=classes))
    path = save(wrapped(tensors, normalize_from_IMN=False, train_split="train.txt"), tmp_path)
    net = pooling_vit(seed=3)
    before = tensors_of(net)
    caplog.set_level("INFO", "rvf")
    start = load_weights(net, path, HEAD)
    assert start.missing == start.unexpected == NEW_HEAD
    assert torch.equal(net.state_dict()["head.weight"], before["head.weight"])
    assert f"left out a head of {classes} classes" in caplog.text


def test_a_head_of_the_class_token_is_not_put_on_the_mean(tmp_path, caplog):
    tensors = tensors_of(vit(num_classes=2))  # --cls_token: `norm`, no `fc_norm`
    path = save(wrapped(tensors, normalize_from_IMN=False), tmp_path)
    net = pooling_vit(seed=3)
    before = tensors_of(net)
    caplog.set_level("INFO", "rvf")
    start = load_weights(net, path, HEAD)
    assert (start.missing, start.dropped) == (NEW_POOL, ["norm.bias", "norm.weight"])
    assert torch.equal(net.state_dict()["head.weight"], before["head.weight"])
    assert "trained on the class token" in caplog.text
    assert load_weights(vit(seed=4), path, HEAD).missing == []


def test_a_pooled_file_in_a_net_of_class_tokens_says_what_would_fit(tmp_path):
    tensors = tensors_of(pooling_vit(num_classes=2))
    path = save(wrapped(tensors, normalize_from_IMN=False), tmp_path)
    with pytest.raises(UserError, match="global_pool: avg"):
        load_weights(vit(), path, HEAD)


@pytest.mark.parametrize("text", ["", "hello", "{}", '{"mean": [1, 2], "std": [1, 2]}', "[]"])
def test_a_damaged_file_of_mean_and_std(tmp_path, text):
    (tmp_path / FSFM_SIDECAR).write_text(text)
    path = save(wrapped(tensors_of(pooling_vit(num_classes=2))), tmp_path)
    with pytest.raises(UserError, match=FSFM_SIDECAR):
        load_weights(pooling_vit(), path, HEAD)


# --- MAE ---


def test_mae_with_its_decoder(tmp_path):
    reference = vit(num_classes=0, seed=1)
    net = vit()
    start = load_weights(net, save({"model": tensors_of(reference) | decoder()}, tmp_path), HEAD)
    assert (start.format, start.missing, start.unexpected) == ("mae", NEW_HEAD, [])
    assert set(start.dropped) == set(decoder())
    wanted = normed(encoded(reference, images())[:, 0], reference.state_dict(), "norm")
    torch.testing.assert_close(features(net, images()), wanted, atol=1e-5, rtol=1e-5)


def test_maes_published_encoder_in_a_net_that_pools(tmp_path):
    reference = vit(num_classes=0, seed=1)
    net = pooling_vit()
    start = load_weights(net, save({"model": tensors_of(reference)}, tmp_path), HEAD)
    assert (start.format, start.missing) == ("", NEW_POOL)
    assert (start.unexpected, start.dropped) == ([], ["norm.bias", "norm.weight"])
    torch.testing.assert_close(encoded(net, images()), encoded(reference, images()))


# --- DINO ---


def dino_file(teacher: dict, student: dict) -> dict:
    heads = {"head.mlp.0.weight": torch.ones(4, 32), "head.last_layer.weight_g": torch.ones(4, 1)}
    student, teacher = (
        {f"backbone.{k}": v for k, v in tensors.items()} | heads for tensors in (student, teacher)
    )
    return {
        "student": {f"module.{k}": v for k, v in student.items()},
        "teacher": teacher,
        **{"optimizer": {"lr": 0.1}, "epoch": 100, "args": Namespace(arch="vit_small")},
        "dino_loss": {"center": torch.zeros(1, 4)},
    }


def test_dinos_teacher_is_taken(tmp_path):
    teacher, student = vit(num_classes=0, seed=1), vit(num_classes=0, seed=2)
    net = vit()
    path = save(dino_file(tensors_of(teacher), tensors_of(student)), tmp_path)
    start = load_weights(net, path, HEAD)
    assert (start.format, start.missing, start.unexpected) == ("dino", NEW_HEAD, [])
    assert start.dropped == ["head.last_layer.weight_g", "head.mlp.0.weight"]
    with torch.no_grad():
        torch.testing.assert_close(features(net, images()), teacher(images()), atol=0, rtol=0)


def test_dinos_resnet(tmp_path):
    torch.manual_seed(1)
    teacher = timm.create_model("test_resnet", num_classes=0)
    net = timm.create_model("test_resnet", num_classes=1)
    tensors = tensors_of(teacher)
    start = load_weights(net, save(dino_file(tensors, tensors), tmp_path), ("fc",))
    assert (start.format, start.missing) == ("dino", ["fc.bias", "fc.weight"])
    assert torch.equal(features(net.eval(), images(64)), features(teacher.eval(), images(64)))


def dinov2_net(seed: int, *, registers: bool, size: int = 32) -> nn.Module:
    name = "vit_small_patch14_reg4_dinov2" if registers else "vit_small_patch14_dinov2"
    return stirred(name, 1, seed, img_size=size, init_values=1e-5)


def as_dinov2(net: nn.Module) -> dict[str, torch.Tensor]:
    """The names of Meta's files, in which the class token's place is apart."""
    tensors = {k: v for k, v in tensors_of(net).items() if not k.startswith("head.")}
    tensors["mask_token"] = torch.ones(1, 32)
    if "reg_token" in tensors:
        tensors["register_tokens"] = tensors.pop("reg_token")
        place = torch.full((1, 1, 32), 0.25)
        tensors["cls_token"] = tensors["cls_token"] - place
        tensors["pos_embed"] = torch.cat([place, tensors["pos_embed"]], 1)
    return tensors


@pytest.mark.parametrize("registers", [True, False])
@pytest.mark.parametrize("size", [32, 48])
def test_dinov2(tmp_path, registers, size):
    reference = dinov2_net(1, registers=registers)
    tensors = as_dinov2(reference)
    net, theirs = (dinov2_net(seed, registers=registers, size=size) for seed in (2, 3))
    start = load_weights(net, save(tensors, tmp_path), HEAD)
    assert (start.format, start.missing, start.unexpected) == ("dinov2", NEW_HEAD, [])
    assert start.dropped == ["mask_token"]
    theirs.load_state_dict(
        vision_transformer.checkpoint_filter_fn(dict(tensors), theirs), strict=False
    )  # type: ignore[arg-type]
    pixels = images(size)
    assert torch.equal(features(net, pixels), features(theirs, pixels))
    if size == 32:
        wanted = features(reference, pixels)
        torch.testing.assert_close(features(net, pixels), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["gated", "in its training file"])
def test_dinov2s_gated_layers_and_its_training_file(tmp_path, kind):
    if kind == "gated":
        kwargs = {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": 4}
        reference, net = (stirred("vit_giant_patch14_dinov2", 1, seed, **kwargs) for seed in (1, 2))
        content = {
            k.replace("mlp.fc1.", "mlp.w12.").replace("mlp.fc2.", "mlp.w3."): v
            for k, v in as_dinov2(reference).items()
        }
        assert "blocks.1.mlp.w12.bias" in content
        form, dropped = "dinov2", ["mask_token"]
    else:
        reference, net = (dinov2_net(seed, registers=True) for seed in (1, 2))
        inner = {f"backbone.{k}": v for k, v in as_dinov2(reference).items()}
        content = {"teacher": inner | {"dino_head.mlp.0.weight": torch.ones(2, 2)}}
        form, dropped = "dino", ["backbone.mask_token", "dino_head.mlp.0.weight"]
    start = load_weights(net, save(content, tmp_path), HEAD)
    assert (start.format, start.missing, start.dropped) == (form, NEW_HEAD, dropped)
    torch.testing.assert_close(features(net, images()), features(reference, images()))


@pytest.mark.parametrize("biases", [False, True])
def test_dinov3(tmp_path, biases, capsys):
    name = f"vit_small_patch16_dinov3{'_qkvb' if biases else ''}"
    small = {"embed_dim": 64, "num_heads": 2}
    net, theirs = (stirred(name, 1, seed, **small) for seed in (2, 3))
    torch.manual_seed(1)
    tensors = {}
    for key, value in tensors_of(net).items():
        if key.startswith("head.") or key.endswith(("q_bias", "v_bias", "k_bias")):
            continue
        renamed = key.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")
        tensors[renamed.replace("reg_token", "storage_tokens")] = torch.randn_like(value) * 0.2
    for block in (0, 1):
        tensors[f"blocks.{block}.attn.qkv.bias"] = torch.randn(192)
        tensors[f"blocks.{block}.attn.qkv.bias_mask"] = torch.ones(192)
    tensors |= {"rope_embed.periods": torch.ones(8), "mask_token": torch.ones(1, 64)}
    start = load_weights(net, save(tensors, tmp_path), HEAD)
    assert (start.format, start.missing, start.unexpected) == ("dinov3", NEW_HEAD, [])
    dropped = {"rope_embed.periods", "mask_token"}
    dropped |= {f"blocks.{block}.attn.qkv.bias_mask" for block in (0, 1)}
    if not biases:
        dropped |= {f"blocks.{block}.attn.qkv.bias" for block in (0, 1)}
    assert set(start.dropped) == dropped
    theirs.load_state_dict(eva.checkpoint_filter_fn(dict(tensors), theirs), strict=False)
    capsys.readouterr()  # timm prints
    assert torch.equal(features(net, images()), features(theirs, images()))


EVA02 = (
    (r"\.attn\.([qv])_proj\.bias", r".attn.\1_bias"), (r"mlp\.norm", "mlp.ffn_ln"),
    (r"mlp\.fc1_g", "mlp.w1"), (r"mlp\.fc1_x", "mlp.w2"), (r"mlp\.fc1\.", "mlp.w12."),
    (r"mlp\.fc2", "mlp.w3"),
)  # fmt: skip


@pytest.mark.parametrize("name", ["eva02_large_patch14_224", "eva02_small_patch14_224"])
@pytest.mark.parametrize("pretrained", [True, False])
def test_eva02_as_its_authors_publish_it(tmp_path, name, pretrained):
    donor, net = (stirred(name, 1, seed, patch_size=8) for seed in (5, 1))
    file = {}
    for key, value in tensors_of(donor).items():
        for old, new in EVA02:
            key = re.sub(old, new, key)
        if not (pretrained and key.startswith("head.")):
            file[key.replace("fc_norm.", "norm.") if pretrained else key] = value
    file["blocks.0.attn.rope.freqs_cos"] = torch.ones(16, 16)
    if pretrained:
        file |= {"mask_token": torch.ones(1, 1, 32), "lm_head.weight": torch.ones(8, 32)}
        file["lm_head.bias"] = torch.ones(8)
    wanted = eva.checkpoint_filter_fn(dict(file), net)
    start = load_weights(net, save({"module": file}, tmp_path), HEAD)
    assert start.format == "eva02"
    assert start.missing == (["head.bias", "head.weight"] if pretrained else [])
    assert start.unexpected == []
    own = net.state_dict()
    assert all(torch.equal(own[key], wanted[key]) for key in own if key in wanted)
    torch.testing.assert_close(features(net, images()), features(donor, images()))


@pytest.mark.parametrize("wrapped", [True, False])
def test_community_forensics_is_read_whole_and_means_fake_where_positive(tmp_path, wrapped, caplog):
    """Its file on the Hub is that of a module with timm's ViT as `vit`, one output, fake is 1."""
    caplog.set_level("INFO")
    donor, net = vit(seed=5), vit(seed=1)
    file = {f"vit.{key}": value for key, value in tensors_of(donor).items()}
    path = save({"model": file, "epoch": 3} if wrapped else file, tmp_path)
    start = load_weights(net, path, HEAD, partial(turn_head, fake=1))
    assert start.missing == start.unexpected == []
    assert start.fake == 1
    torch.testing.assert_close(net(images()), donor(images()))
    other = vit(seed=2)
    load_weights(other, path, HEAD, partial(turn_head, fake=0))
    torch.testing.assert_close(other(images()), -donor(images()))
