"""LoRA: every family's projections are called, trained alone, and added up into plain weights."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from src.config import parse_model
from src.errors import UserError
from src.models.adapters import has_adapters, merge_adapters
from src.models.strategies import make_stages
from tests.models.small import SMALL, images, stir

pytest.importorskip("peft", reason="the extra `peft`")

STAGED = {"embed_dim": 32, "depths": (1, 2), "num_heads": (2, 4), "img_size": 32, "window_size": 4}
# family -> (timm's name, arguments that make it small, what `auto` takes)
VITS = ("qkv", "proj", "fc1", "fc2")
FAMILIES = {
    "CLIP": ("vit_base_patch32_clip_quickgelu_224", SMALL, VITS),
    "ViT": ("vit_tiny_patch16_224", SMALL, VITS),
    "DINOv2": ("vit_small_patch14_reg4_dinov2", SMALL, VITS),
    "DINOv3": ("vit_small_patch16_dinov3", SMALL, VITS),
    "DINOv3, with biases": ("vit_small_patch16_dinov3_qkvb", SMALL, VITS),
    "EVA-02 S": ("eva02_small_patch14_224", SMALL, VITS),
    "EVA-02 L": (
        "eva02_large_patch14_224",
        SMALL,
        ("q_proj", "k_proj", "v_proj", "proj", "fc1_g", "fc1_x", "fc2"),
    ),
    "SigLIP 2": ("vit_base_patch16_siglip_224", SMALL, VITS),
    "PE-Core": ("vit_pe_core_base_patch16_224", SMALL, VITS),
    "BEiT": ("beit_base_patch16_224", SMALL, VITS),
    "BEiT v2": ("beitv2_base_patch16_224", SMALL, VITS),
    "Swin": ("swin_tiny_patch4_window7_224", STAGED, (*VITS, "reduction")),
    "Swin V2": ("swinv2_tiny_window8_256", STAGED, (*VITS, "reduction")),
    "ConvNeXt": (
        "convnext_tiny",
        {"dims": (8, 16, 16, 16), "depths": (1, 1, 1, 1)},
        ("fc1", "fc2"),
    ),
    "EfficientNet": (
        "test_efficientnet",
        {},
        ("conv_pw", "conv_pwl", "conv_reduce", "conv_expand"),
    ),
}


def net_of(family: str) -> nn.Module:
    name, kwargs, _ = FAMILIES[family]
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=1, **kwargs)
    if family != "EfficientNet":  # whose activations would grow from block to block
        stir(net)  # some blocks and heads start near zero, and would hide what an adapter does
    return net


def stages_of(net: nn.Module, **transfer: object):
    content = {"backbone": {"name": "test_vit"}, "strategy": "lora"}
    content |= {"transfer": {"lora_r": 4, "lora_dropout": 0.0, **transfer}}
    classifier = net.get_classifier()  # type: ignore[operator]
    head = next(path for path, layer in net.named_modules() if layer is classifier)
    settings = parse_model(content | {"input": {"image_size": 32}}, "test")
    return make_stages(net, (head,), settings), head


@pytest.mark.parametrize("family", FAMILIES)
def test_every_adapter_and_the_head_learn_nothing_else_does_and_merging_keeps_logits(family):
    net, plain = net_of(family), net_of(family)
    keys, pixels = list(net.state_dict()), images()
    (stage,), head = stages_of(net)
    adapters = {name for name, _ in net.named_parameters() if ".lora_" in name}
    assert {name.split(".lora_")[0].split(".")[-1] for name in adapters} == set(FAMILIES[family][2])
    assert stage.train == adapters | {f"{head}.weight", f"{head}.bias"}
    for name, weight in net.named_parameters():
        weight.requires_grad_(name in stage.train)
        if name in adapters:  # one of each pair starts at zero, and then the other has no gradient
            nn.init.normal_(weight, std=0.2)
    net.train()
    functional.softplus(net(pixels)).sum().backward()
    moved = {n for n, w in net.named_parameters() if w.grad is not None and bool(w.grad.any())}
    assert moved == stage.train
    with torch.no_grad():
        want, untouched = net.eval()(pixels), plain.eval()(pixels)  # the former is peft's own
        assert float((want - untouched).abs().max()) > 1e-3
        merge_adapters(net)
        assert not has_adapters(net)
        assert list(net.state_dict()) == keys
        torch.testing.assert_close(net(pixels), want, atol=1e-5, rtol=1e-5)
        plain.load_state_dict(net.state_dict(), strict=True)
        torch.testing.assert_close(plain(pixels), want, atol=1e-5, rtol=1e-5)
    assert vars_of(net) == vars_of(plain)


def vars_of(net: nn.Module) -> list[bool]:
    """How attention adds its biases: a merged net computes as one that is built anew."""
    return [m.qkv_bias_separate for m in net.modules() if hasattr(m, "qkv_bias_separate")]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("targets", "want"),
    [
        (["qkv"], {"blocks.0.attn.qkv", "blocks.1.attn.qkv"}),
        (["proj"], {"blocks.0.attn.proj", "blocks.1.attn.proj"}),  # not the patch embedding's
        (["patch_embed.proj", "blocks.1.mlp.fc1"], {"patch_embed.proj", "blocks.1.mlp.fc1"}),
        (["0.attn.proj", "0.mlp.fc2"], {"blocks.0.attn.proj", "blocks.0.mlp.fc2"}),
    ],
)
def test_a_name_means_layers_of_the_blocks_and_a_path_any_layer(targets, want):
    (stage,), _ = stages_of(net_of("ViT"), lora_targets=targets)
    assert {name.split(".lora_")[0] for name in stage.train if ".lora_" in name} == want


def test_auto_leaves_out_what_is_no_wider_than_the_rank():
    with pytest.raises(UserError, match=r"auto finds no linear layer .*lora_r: 128.*qkv"):
        stages_of(net_of("ViT"), lora_r=128)


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (["attention"], "attention fits no layer.*qkv"),
        (["qkv", "projj"], "lora_targets: projj fits no layer"),
        (["qkv", "head"], "head fits no layer in the blocks of this net"),
    ],
)
def test_a_target_that_is_not_there_is_refused_with_what_is(targets, words):
    with pytest.raises(UserError, match=words):
        stages_of(net_of("ViT"), lora_targets=targets)


def test_layers_that_the_net_reads_past_are_refused_and_auto_passes_them_by():
    class Past(nn.Module):
        """A block that reads the weights of one of its layers itself."""

        def __init__(self) -> None:
            super().__init__()
            self.called, self.read = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.called(functional.linear(x, self.read.weight))

    class Net(nn.Module):
        """Sees the mean colour."""

        def __init__(self) -> None:
            super().__init__()
            self.blocks, self.head = nn.Sequential(Past(), Past()), nn.Linear(3, 1)

        def get_classifier(self):
            return self.head

        def forward(self, x):
            return self.head(self.blocks(x.mean((2, 3))))

    with pytest.raises(UserError, match=r"reads the weights of 2 layers itself.*blocks\.0\.read"):
        stages_of(Net(), lora_r=1, lora_targets=["read"])
    (stage,), _ = stages_of(Net(), lora_r=1)
    assert {n.split(".")[2] for n in stage.train if ".lora_" in n} == {"called"}


def test_lora_without_peft_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(UserError, match="pip install peft"):
        stages_of(net_of("ViT"))
