"""Classifiers of transformers. Oracle: those nets themselves, small and with random weights."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed

from src.config import BackboneConfig, HeadConfig
from src.errors import UserError
from src.models.backbones import build_backbone
from src.models.detector import turn_head
from src.models.formats.beside import Beside, look_beside
from src.models.weights import load_weights
from tests.models.small import images, stir

NEW = ["head.bias", "head.weight"]
transformers = pytest.importorskip("transformers", reason="the extra `peft`")

WIDTHS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
          "intermediate_size": 128}  # fmt: skip
PATCHES = {"image_size": 32, "patch_size": 8}
OURS = {"img_size": 32, "patch_size": 8, "depth": 2, "num_heads": 2, "embed_dim": 32}
SWIN = {"image_size": 64, "patch_size": 4, "embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2],
        "window_size": 8}  # fmt: skip
TIMMS_SWIN = {"img_size": 64, "embed_dim": 8, "depths": (1, 2), "num_heads": (1, 2),
              "window_size": 8}  # fmt: skip
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 2, 1, 1]}
TIMMS_STAGES = {"dims": (8, 16, 24, 32), "depths": (1, 2, 1, 1)}
TANH = {"act_layer": "gelu_tanh"}


def siglip(**kwargs: object):
    return transformers.SiglipConfig(vision_config={**WIDTHS, **PATCHES}, **kwargs)


def siglip2(**kwargs: object):
    vision = {**WIDTHS, "patch_size": 8, "num_patches": 16}
    return transformers.Siglip2Config(vision_config=vision, **kwargs)


# name -> class of transformers, its config, timm's net and its arguments, size of the images
FAMILIES = {
    "vit": ("ViT", lambda **k: transformers.ViTConfig(**WIDTHS, **PATCHES, **k),
            "vit_base_patch16_224", OURS),
    "swin": ("Swin", lambda **k: transformers.SwinConfig(**SWIN, **k),
             "swin_tiny_patch4_window7_224", TIMMS_SWIN),
    "swinv2": ("Swinv2", lambda **k: transformers.Swinv2Config(**SWIN, **k),
               "swinv2_tiny_window8_256", TIMMS_SWIN),
    "convnext": ("ConvNext", lambda **k: transformers.ConvNextConfig(**STAGES, **k),
                 "convnext_tiny", TIMMS_STAGES),
    "convnextv2": ("ConvNextV2", lambda **k: transformers.ConvNextV2Config(**STAGES, **k),
                   "convnextv2_tiny", TIMMS_STAGES),
    "siglip": ("Siglip", siglip, "vit_base_patch16_siglip_gap_224", OURS | TANH),
    "siglip2": ("Siglip2", siglip2, "vit_base_patch16_siglip_gap_224", OURS | TANH),
}  # fmt: skip


def classifier(name: str, labels: dict[int, str]) -> torch.nn.Module:
    kind, make, _, _ = FAMILIES[name]
    torch.manual_seed(1)
    net = getattr(transformers, f"{kind}ForImageClassification")(make(id2label=labels)).eval()
    stir(net)
    return net


def ours(name: str, **changes: object) -> tuple[torch.nn.Module, tuple[str, ...]]:
    _, _, timms, kwargs = FAMILIES[name]
    torch.manual_seed(2)
    net = timm.create_model(timms, num_classes=1, **{**kwargs, **changes}).eval()
    return net, (net.pretrained_cfg["classifier"],)  # type: ignore[index]


@torch.no_grad()
def logits(net: torch.nn.Module, name: str, pixels: torch.Tensor) -> torch.Tensor:
    if name != "siglip2":
        return net(pixel_values=pixels).logits
    patches = pixels.reshape(-1, 3, 4, 8, 4, 8).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, 192)
    count = len(pixels)
    mask, sizes = torch.ones(count, 16, dtype=torch.int64), torch.full((count, 2), 4)
    return net(pixel_values=patches, pixel_attention_mask=mask, spatial_shapes=sizes).logits


def same_answers(net: torch.nn.Module, reference: torch.nn.Module, name: str, fake: int) -> None:
    pixels = images(64 if "swin" in name or "convnext" in name else 32)
    with torch.no_grad():
        prob = net(pixels).sigmoid()[:, 0]
    wanted = logits(reference, name, pixels).softmax(1)[:, fake]
    assert float(wanted.std()) > 1e-3
    torch.testing.assert_close(prob, wanted, atol=1e-4, rtol=1e-4)


def save(net: torch.nn.Module, folder: Path, *, memory: bool = False) -> Path:
    """As `save_pretrained` writes it, or with the names that the net has in memory."""
    net.save_pretrained(folder)  # type: ignore[operator]
    if memory:
        torch.save({f"model.{k}": v for k, v in net.state_dict().items()}, folder / "w.pth")
    return folder / ("w.pth" if memory else "model.safetensors")


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("memory", [False, True])
def test_tower_and_head_say_what_the_classifier_says(tmp_path, name, memory, caplog):
    caplog.set_level("INFO", "rvf")
    fake = 0 if memory else 1
    labels = {fake: "Deepfake", 1 - fake: "Realism"}
    reference, (net, head) = classifier(name, labels), ours(name)
    start = load_weights(net, save(reference, tmp_path, memory=memory), head)
    assert (start.missing, start.unexpected) == ([], [])
    assert (start.fake, start.labels) == (fake, [labels[0], labels[1]])
    assert f"its classes are 0 {labels[0]}, 1 {labels[1]} (config.json)" in caplog.text
    same_answers(net, reference, name, fake)


# --- towers without a head of their own that fits ---


def dinov2(registers: bool, labels: dict[int, str] | None = None) -> tuple[torch.nn.Module, str]:
    """A classifier of transformers, and the name of timm's net."""
    kind = "Dinov2WithRegisters" if registers else "Dinov2"
    torch.manual_seed(1)
    config = getattr(transformers, f"{kind}Config")(**WIDTHS, **PATCHES, id2label=labels)
    net = getattr(transformers, f"{kind}ForImageClassification")(config).eval()
    stir(net)
    return net, f"vit_small_patch14_{'reg4_' if registers else ''}dinov2"


@pytest.mark.parametrize("registers", [False, True])
@pytest.mark.parametrize("fake", [0, 1])
def test_dinov2s_head_on_class_token_and_mean_else_it_is_named_and_left_out(
    tmp_path, registers, fake, caplog
):
    caplog.set_level("INFO", "rvf")
    reference, name = dinov2(registers, {fake: "fake", 1 - fake: "real"})
    path = save(reference, tmp_path, memory=bool(fake))
    net, _ = build_backbone(BackboneConfig(name, kwargs=OURS), 32, HeadConfig("cls_avg"))
    start = load_weights(net.eval(), path, ("head",))
    assert (start.missing, start.unexpected, start.fake) == ([], [], fake)
    with torch.no_grad():
        wanted = reference(pixel_values=images()).logits
        found = net(images())[:, 0]
    assert float(found.std()) > 1e-2
    torch.testing.assert_close(found, wanted[:, fake] - wanted[:, 1 - fake], atol=2e-5, rtol=2e-5)
    plain = timm.create_model(name, num_classes=1, **OURS).eval()
    start = load_weights(plain, path, ("head",))
    assert (start.missing, start.unexpected) == (NEW, [])
    assert "wants in the model's config head: {pool: cls_avg}: left out" in caplog.text
    with torch.no_grad():
        tokens = reference.base_model(images()).last_hidden_state
        torch.testing.assert_close(plain.forward_features(images()), tokens, atol=1e-4, rtol=1e-4)  # type: ignore[operator]


@pytest.mark.parametrize("registers", [False, True])
def test_a_net_with_or_without_registers_names_the_other(tmp_path, registers):
    path = save(dinov2(registers)[0].base_model, tmp_path)
    names = ["vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"]
    net = timm.create_model(names[1 - registers], num_classes=1, **OURS)
    what = "registers" if registers else "no registers"
    with pytest.raises(UserError, match=f"file's net has {what}: --model timm:{names[registers]}$"):
        load_weights(net, path, ("head",))


def test_a_head_that_wants_another_pooling_says_which(tmp_path):
    reference, name = dinov2(registers=False, labels={0: "real", 1: "fake"})
    path = save(reference, tmp_path)
    net = timm.create_model(name, num_classes=1, **OURS)
    with pytest.raises(UserError, match=r"side by side, which wants .* head: \{pool: cls_avg\}"):
        load_weights(net, path, ("head",), partial(turn_head, fake=None))


@pytest.mark.parametrize(
    ("head", "wanted"),
    [
        (HeadConfig(normalize=True), "{normalize: false}"),
        (HeadConfig("avg"), "{pool: cls}"),
        (HeadConfig("gem"), "{pool: cls}"),
        (HeadConfig("cls"), ""),
    ],
)
def test_a_net_whose_head_sees_something_else_does_not_take_the_files(tmp_path, head, wanted):
    reference = classifier("vit", {0: "real", 1: "fake"})
    path = save(reference, tmp_path)
    config = BackboneConfig("vit_base_patch16_224", kwargs=OURS)
    net, native = build_backbone(config, 32, head)
    load = partial(load_weights, net.eval(), path, native.head, partial(turn_head, fake=None))
    if wanted:
        with pytest.raises(UserError, match=re.escape(f"the model's config head: {wanted}")):
            load()
    else:
        assert load().fake == 1


@pytest.mark.parametrize("biases", [True, False])
def test_dinov3(tmp_path, biases, caplog):
    caplog.set_level("INFO", "rvf")
    torch.manual_seed(1)
    config = transformers.DINOv3ViTConfig(
        **{**WIDTHS, "hidden_size": 64, "intermediate_size": 256}, **PATCHES,
        num_register_tokens=4, layerscale_value=0.5,
    )  # fmt: skip
    reference = transformers.DINOv3ViTModel(config).eval()
    stir(reference)
    path = save(reference, tmp_path)
    name = f"vit_small_patch16_dinov3{'_qkvb' if biases else ''}"
    net = timm.create_model(name, num_classes=1, **{**OURS, "embed_dim": 64}).eval()
    start = load_weights(net, path, ("head",))
    assert start.missing == NEW
    assert ("vit_*_dinov3_qkvb has them" in caplog.text) == (not biases)
    if biases:
        with torch.no_grad():
            wanted = reference(images()).last_hidden_state
            found = net.forward_features(images())  # type: ignore[operator]
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_siglips_own_pooling_and_a_head_that_was_trained_on_the_mean(tmp_path, caplog):
    caplog.set_level("INFO", "rvf")
    reference = classifier("siglip", {0: "real", 1: "fake"})
    net = timm.create_model("vit_base_patch16_siglip_224", num_classes=1, **OURS, **TANH).eval()
    start = load_weights(net, save(reference, tmp_path), ("head",))
    assert start.missing == NEW
    assert start.fake is None
    assert "sees the mean of all tokens, as vit_*_siglip_gap_* do: left out" in caplog.text
    vision = reference.vision_model
    with torch.no_grad():
        wanted = vision(pixel_values=images()).pooler_output
        found = net.forward_head(net.forward_features(images()), pre_logits=True)  # type: ignore[operator]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_another_activation_is_said_with_what_to_set(tmp_path, caplog):
    caplog.set_level("INFO", "rvf")
    path = save(classifier("siglip", {0: "real", 1: "fake"}), tmp_path)
    for changes, said in (({"act_layer": "gelu"}, True), (TANH, False)):
        caplog.clear()
        net, head = ours("siglip", **changes)
        load_weights(net, path, head)
        assert ("backbone.kwargs: {act_layer: gelu_tanh}" in caplog.text) == said


def test_a_larger_image_than_it_was_trained_on(tmp_path):
    reference = classifier("vit", {0: "ai", 1: "hum"})
    net, head = ours("vit", img_size=48)
    assert load_weights(net, save(reference, tmp_path), head).fake == 0
    own = reference.vit.embeddings.position_embeddings
    assert torch.equal(net.pos_embed, resample_abs_pos_embed(own, [6, 6]))  # type: ignore[arg-type]


# --- what lies beside ---


@pytest.mark.parametrize(
    ("labels", "fake"),
    [
        ({"0": "Fake", "1": "Real"}, 0), ({"0": "Real", "1": "Fake"}, 1),
        ({"0": "ai", "1": "hum"}, 0), ({"0": "Realism", "1": "Deepfake"}, 1),
        ({"0": "artificial", "1": "human"}, 0), ({"1": "AI-generated", "0": "REAL_image"}, 1),
        ({"0": "LABEL_0", "1": "LABEL_1"}, None), ({"0": "fake", "1": "fake_face"}, None),
        ({"0": "cat", "1": "fake"}, None), ({"0": "real", "1": "fake", "2": "art"}, None),
        (["fake", "real"], 0), ({}, None),
    ],
)  # fmt: skip
def test_which_class_is_fake(tmp_path, labels, fake):
    (tmp_path / "config.json").write_text(json.dumps({"id2label": labels}))
    assert look_beside(tmp_path / "model.safetensors").fake == fake


def test_classes_of_unknown_meaning_are_said_and_the_head_is_new(tmp_path, caplog):
    caplog.set_level("INFO", "rvf")
    path = save(classifier("vit", {0: "LABEL_0", 1: "LABEL_1"}), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["id2label"] = {"0": "LABEL_0", "1": "LABEL_1"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    net, head = ours("vit")
    start = load_weights(net, path, head)
    assert start.missing == NEW
    assert start.fake is None
    assert start.labels == ["LABEL_0", "LABEL_1"]
    assert "0 LABEL_0, 1 LABEL_1 (config.json); which of them is fake is not known" in caplog.text


@pytest.mark.parametrize("name", ["siglip", "vit", "swin", "convnextv2"])
@pytest.mark.parametrize("fake", [0, 1])
def test_classes_of_unknown_meaning_that_the_user_tells(tmp_path, name, fake):
    reference, (net, head) = classifier(name, {0: "LABEL_0", 1: "LABEL_1"}), ours(name)
    start = load_weights(net, save(reference, tmp_path), head, partial(turn_head, fake=fake))
    assert (start.missing, start.unexpected, start.fake) == ([], [], fake)
    same_answers(net, reference, name, fake)


def test_what_the_user_tells_may_not_contradict_the_file(tmp_path):
    path = save(classifier("vit", {0: "Fake", 1: "Real"}), tmp_path)
    net, head = ours("vit")
    with pytest.raises(UserError, match="--fake-index 1 contradicts the file"):
        load_weights(net, path, head, partial(turn_head, fake=1))
    assert load_weights(net, path, head, partial(turn_head, fake=None)).fake == 0


@pytest.mark.parametrize(
    ("content", "mean", "interpolation"),
    [
        ({"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25] * 3}, [0.5, 0.5, 0.5], ""),
        ({"do_normalize": False, "resample": 0}, [0.0, 0.0, 0.0], "nearest"),
        ({"resample": 2}, None, "bilinear"),
        ({"resample": 3}, None, "bicubic"),
        ({"resample": 1}, None, ""),
    ],
)
def test_mean_std_and_interpolation_beside(tmp_path, content, mean, interpolation):
    path = save(classifier("vit", {0: "real", 1: "fake"}), tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    net, head = ours("vit")
    start = load_weights(net, path, head)
    assert (start.mean, start.interpolation) == (mean, interpolation)


def test_nothing_beside_and_damaged_files_beside(tmp_path):
    path = tmp_path / "model.safetensors"
    assert look_beside(path) == Beside({})
    for text in ("{", '{"id2label": 3}', '{"pretrained_cfg": {"mean": [1]}}'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(UserError, match=r"config\.json"):
            look_beside(path)
