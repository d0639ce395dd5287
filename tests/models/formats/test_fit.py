"""What no format claims, our own files, fitting to a net. Oracles: timm's loaders, plain torch."""

import json
import warnings

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import convnext, swin_transformer, vision_transformer

from src.errors import UserError
from src.models.formats import FORMATS, Foreign, Target, WeightsFile, one_logit, prefix_of
from src.models.formats.fit import recognise
from src.models.weights import load_weights
from tests.models.small import HEAD, features, images, save, stir, tensors_of, vit

NEW = ["head.bias", "head.weight"]


def without_head(tensors: dict) -> dict:
    return {key: value for key, value in tensors.items() if not key.startswith("head.")}


# --- towers under a prefix ---


def test_open_clips_tower_from_timm(tmp_path):
    reference, net, theirs = vit(num_classes=0, seed=1), vit(), vit(num_classes=16)
    tensors = {f"visual.trunk.{k}": v for k, v in tensors_of(reference).items()}
    extra = {"visual.head.proj.weight": torch.ones(16, 32), "text.token.weight": torch.ones(3, 4)}
    start = load_weights(net, save(tensors | extra, tmp_path), HEAD)
    assert (start.format, start.missing, start.unexpected) == ("", NEW, [])
    assert start.dropped == sorted(extra)
    loaded = vision_transformer.checkpoint_filter_fn(tensors | extra, theirs)  # type: ignore[arg-type]
    theirs.load_state_dict(loaded)
    assert torch.equal(features(net, images()), features(theirs, images()))


def test_a_detectors_tower_among_other_parts(tmp_path):
    torch.manual_seed(1)
    reference = timm.create_model("test_efficientnet", num_classes=0)
    net = timm.create_model("test_efficientnet", num_classes=1)
    tensors = {f"detector.encoder.{k}": v for k, v in tensors_of(reference).items()}
    tensors["detector.mask_head.weight"] = torch.ones(3)
    start = load_weights(net, save({"state_dict": tensors}, tmp_path), ("classifier",))
    assert start.dropped == ["detector.mask_head.weight"]
    assert start.missing == ["classifier.bias", "classifier.weight"]
    assert torch.equal(features(net.eval(), images(64)), features(reference.eval(), images(64)))


def test_two_different_towers_are_refused(tmp_path):
    tensors = {f"first.{k}": v for k, v in tensors_of(vit(seed=1)).items()}
    tensors |= {f"second.{k}": v for k, v in tensors_of(vit(seed=2)).items()}
    with pytest.raises(UserError, match=r"several backbones, under 'first\.' and 'second\.'"):
        load_weights(vit(), save(tensors, tmp_path), HEAD)


def test_a_prefix_is_whole_words():
    tensors = {"a.cls": torch.ones(1), "acls": torch.ones(1), "a.b": torch.ones(1)}
    assert prefix_of(tensors, ["cls"], None) == "a."  # type: ignore[arg-type]
    assert prefix_of(tensors, ["cls", "missing"], None) is None  # type: ignore[arg-type]


# --- position embeddings and other sizes ---


@pytest.mark.parametrize("size", [16, 48])
def test_position_embeddings_at_another_size(tmp_path, size):
    tensors = tensors_of(vit(seed=1))
    net, theirs = vit(img_size=size), vit(img_size=size)
    assert load_weights(net, save(tensors, tmp_path), HEAD).missing == []
    theirs.load_state_dict(vision_transformer.checkpoint_filter_fn(dict(tensors), theirs))  # type: ignore[arg-type]
    assert torch.equal(net.state_dict()["pos_embed"], theirs.state_dict()["pos_embed"])
    assert torch.equal(net.state_dict()["pos_embed"][:, 0], tensors["pos_embed"][:, 0])
    with torch.no_grad():
        assert torch.equal(net(images(size)), theirs(images(size)))


def test_position_embeddings_that_are_no_square(tmp_path):
    tensors = tensors_of(vit()) | {"pos_embed": torch.zeros(1, 12, 32)}
    with pytest.raises(UserError, match="12 position embeddings are not 1 and a square grid"):
        load_weights(vit(), save(tensors, tmp_path), HEAD)


SWIN = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}


def test_a_swin_of_another_window_as_timm_converts_it(tmp_path):
    name = "swin_tiny_patch4_window7_224"
    torch.manual_seed(1)
    reference = timm.create_model(name, num_classes=1, img_size=56, window_size=7, **SWIN)
    net, theirs = (
        timm.create_model(name, num_classes=1, img_size=64, window_size=8, **SWIN).eval()
        for _ in range(2)
    )
    tensors = tensors_of(reference)
    start = load_weights(net, save(tensors, tmp_path), ("head.fc",))
    assert start.missing == []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of timm's own ways with torch
        theirs.load_state_dict(swin_transformer.checkpoint_filter_fn(dict(tensors), theirs))
    with torch.no_grad():
        assert torch.equal(net(images(64)), theirs(images(64)))


def test_metas_convnext_names(tmp_path):
    small = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}
    torch.manual_seed(1)
    reference = timm.create_model("convnext_tiny", num_classes=1, **small)
    stir(reference)
    tensors = tensors_of(reference)
    renamed = {}
    for key, value in tensors.items():
        parts = key.split(".")
        if parts[0] == "stem":
            key = ".".join(["downsample_layers", "0", *parts[1:]])
        elif parts[0] == "stages" and parts[2] == "downsample":
            key = ".".join(["downsample_layers", parts[1], *parts[3:]])
        elif parts[0] == "stages":
            key = (
                key.replace(".blocks.", ".")
                .replace("conv_dw", "dwconv")
                .replace("mlp.fc", "pwconv")
            )
        key = key.replace("head.norm", "norm").replace("head.fc", "head")
        renamed[key] = value
    net = timm.create_model("convnext_tiny", num_classes=1, **small).eval()
    start = load_weights(net, save({"model": renamed}, tmp_path), ("head.fc",))
    assert (start.missing, start.unexpected) == ([], [])
    with torch.no_grad():
        assert torch.equal(net(images(64)), reference.eval()(images(64)))
    assert convnext.checkpoint_filter_fn(dict(renamed), net).keys() == tensors.keys()


# --- our own files ---


def our_file(folder, **changes: object):
    spec = {"image_size": 32, "canvas": 36, "geometry": "squash", "interpolation": "bicubic",
            "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}  # fmt: skip
    path = folder / "fold_0.safetensors"
    save_file(tensors_of(vit(seed=1)), path, {"rvf": json.dumps({"input": {**spec, **changes}})})
    return path


def test_our_own_checkpoint_carries_its_scale_and_its_head(tmp_path):
    net = vit()
    start = load_weights(net, our_file(tmp_path), HEAD)
    assert (start.format, start.missing, start.unexpected, start.dropped) == ("ours", [], [], [])
    assert (start.mean, start.std) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    with torch.no_grad():
        assert torch.equal(net(images()), vit(seed=1)(images()))


@pytest.mark.parametrize("changes", [{"mean": "x"}, {"std": [1, 2]}, {"image_size": None}])
def test_our_own_checkpoint_with_damaged_metadata(tmp_path, changes):
    with pytest.raises(UserError, match="metadata are damaged"):
        load_weights(vit(), our_file(tmp_path, **changes), HEAD)


# --- heads ---


@pytest.mark.parametrize("fake", [0, 1])
def test_one_logit_says_what_softmax_says(fake):
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(5, 2), torch.randn(7, 5)
    head = one_logit(layer.weight, layer.bias, fake)
    assert (head["weight"].shape, head["bias"].shape) == ((1, 5), (1,))
    prob = torch.sigmoid(torch.nn.functional.linear(x, head["weight"], head["bias"]))[:, 0]
    torch.testing.assert_close(prob, layer(x).softmax(1)[:, fake])
    sign = 2 * fake - 1
    for weight in (torch.eye(2), torch.tensor([[-1.0, 1.0]])):  # without a bias; one output
        head = one_logit(weight, None, fake)
        assert head["weight"].tolist() == [[-1.0 * sign, 1.0 * sign]]
        assert head["bias"].tolist() == [0.0]


def beside(head: str) -> dict[str, torch.Tensor]:
    tower = head.rpartition(".")[0] + ".backbone." if "." in head else "backbone."
    tensors = {f"{tower}{key}": value for key, value in tensors_of(vit(num_classes=0)).items()}
    return tensors | {f"{head}.weight": torch.ones(2, 32), f"{head}.bias": torch.ones(2)}


TWO = "left out a head of 2 classes in an order not known"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (tensors_of(vit(num_classes=2, seed=1)), TWO),
        # `module.` is what all keys share
        *((beside(h), f"{TWO} ({h.removeprefix('module.')})") for h in
          ("module.fc", "model.head", "model.linear", "classifier", "top.3")),
        ({"model": tensors_of(vit(num_classes=0)), "fc": {"weight": torch.ones(1, 32)}},
         "left out a head of one output (fc)"),
    ],
)  # fmt: skip
def test_a_trained_head_that_is_left_out_is_named(tmp_path, caplog, content, said):
    caplog.set_level("INFO", "rvf")
    assert load_weights(vit(), save(content, tmp_path), HEAD).missing == NEW
    assert said in caplog.text


def test_low_rank_updates_are_named(tmp_path):
    tensors = tensors_of(vit())
    weight = tensors.pop("blocks.0.attn.qkv.weight")
    tensors["blocks.0.attn.qkv.base_layer.weight"] = weight
    tensors["blocks.0.attn.qkv.lora_A.default.weight"] = torch.ones(4, 32)
    with pytest.raises(UserError, match=r"save peft's merge_and_unload\(\)"):
        load_weights(vit(), save(tensors, tmp_path), HEAD)


# --- formats ---


def test_two_formats_that_claim_a_file_are_named(tmp_path, monkeypatch):
    twice = {**FORMATS._things}
    twice |= {name: lambda source, net: Foreign(source.tensors) for name in ("one", "two")}
    monkeypatch.setattr(FORMATS, "_things", twice)
    with pytest.raises(UserError, match="may be one or two"):
        recognise(WeightsFile(tmp_path, tensors_of(vit())), Target(vit(), HEAD))


@pytest.mark.parametrize("kwargs", [{"embed_dim": 64}, {"depth": 3}, {"patch_size": 16}])
def test_a_vit_of_another_size_says_what_was_found_and_what_would_fit(tmp_path, kwargs):
    net = vit(**kwargs)
    before = tensors_of(net)
    with pytest.raises(UserError) as caught:
        load_weights(net, save(tensors_of(vit(seed=1)), tmp_path), HEAD)
    wanted = {"embed_dim": 32, "patch_size": 8, "depth": 2} | kwargs
    assert "looks like a vision transformer of width 32, patch 8, 2 blocks" in str(caught.value)
    assert (
        f"the backbone is a vision transformer of width {wanted['embed_dim']}, patch "
        f"{wanted['patch_size']}, {wanted['depth']} blocks"
    ) in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
