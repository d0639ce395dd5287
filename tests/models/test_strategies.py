"""Strategies: which weights each trains, in which stages, and what it refuses."""

from itertools import pairwise

import pytest
import timm
import torch
from torch import nn

from src.config import parse_model
from src.errors import UserError
from src.models.anatomy import anatomy_of
from src.models.strategies import Stage, make_stages

ODD = [
    "cait_xxs24_224", "inception_v3", "inception_resnet_v2", "rdnet_tiny", "nasnetalarge",
    "volo_d1_224", "xception41", "levit_128s", "coat_tiny", "tnt_s_patch16_224", "vgg11",
    "densenet121", "swinv2_tiny_window8_256", "maxvit_nano_rw_256", "hrnet_w18_small",
]  # fmt: skip
VIT = {"embed_dim": 32, "depth": 4, "num_heads": 2, "patch_size": 8, "img_size": 32}


def config_of(strategy: str = "fine_tuning", **transfer):
    content = {"backbone": {"name": "resnet10t"}, "strategy": strategy, "transfer": transfer}
    return parse_model(content, "test")


def vit() -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", num_classes=1, **VIT)


def stages_of(strategy: str, **transfer) -> list[Stage]:
    return make_stages(vit(), ("head",), config_of(strategy, **transfer))


HEAD = {"head.weight", "head.bias"}
ALL = {name for name, _ in vit().named_parameters()}


@pytest.mark.parametrize(
    ("name", "blocks", "in_stem", "in_tail"),
    [
        ("efficientnet_b0", 7, "conv_stem.weight", "conv_head.weight"),
        ("vit_tiny_patch16_224", 12, "cls_token", "norm.weight"),
        ("vit_base_patch16_clip_quickgelu_224", 12, "norm_pre.weight", "norm.weight"),
        ("convnext_tiny", 4, "stem.0.weight", "head.norm.weight"),
        ("resnet18", 4, "conv1.weight", None),
        # Families that name their blocks in an odd way.
        *((name, None, None, None) for name in ODD),
    ],
)
def test_the_parts_of_a_net_are_told_apart_and_lack_nothing(name, blocks, in_stem, in_tail):
    with torch.device("meta"):
        net = timm.create_model(name, num_classes=1)
    classifier = net.get_classifier()
    heads = tuple(path for path, layer in net.named_modules() if layer is classifier)
    parts = anatomy_of(net, heads)
    names = [path for path, _ in net.named_parameters()]
    pieces = [parts.stem, *parts.blocks, parts.tail, parts.head]
    assert sum(map(len, pieces)) == len(names)
    assert frozenset().union(*pieces) == parts.everything == set(names)
    assert parts.head == {n for n in names if n.startswith(tuple(f"{head}." for head in heads))}
    assert len(parts.blocks) == blocks or (blocks is None and len(parts.blocks) > 1)
    assert in_stem is None or in_stem in parts.stem
    assert in_tail is None or in_tail in parts.tail
    body = [path for path in names if path not in parts.head]
    assert parts.tail <= set(body[len(body) // 2 :])


def test_a_net_that_does_not_name_its_blocks_is_taken_child_by_child():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))
    parts = anatomy_of(net, ("2",))
    assert [sorted(block) for block in parts.blocks] == [
        ["0.bias", "0.weight"],
        ["1.bias", "1.weight"],
    ]
    assert parts.norms == {"1.weight", "1.bias"}


def test_what_each_strategy_trains():
    (stage,) = stages_of("fine_tuning")
    assert stage.train == ALL
    (stage,) = stages_of("feature_extractor")
    assert (stage.train, stage.features) == (HEAD, "cached")
    (stage,) = stages_of("feature_extractor", cache_features=False)
    assert (stage.train, stage.features) == (HEAD, "augmented")
    head, last = stages_of("two_stage", last_blocks=2, head_epochs=4, head_lr=0.5)
    assert (head.train, head.features, head.patience) == (HEAD, "cached", None)
    assert (head.optim.epochs, head.optim.lr) == (4, 0.5)
    blocks = {name for name in ALL if name.startswith(("blocks.2.", "blocks.3."))}
    assert last.train == blocks | HEAD | {"norm.weight", "norm.bias"}
    assert last.optim == config_of().optim
    head, everything = stages_of("lp_ft")
    assert head.features == "cached"
    assert everything.train == ALL
    (stage,) = stages_of("layernorm_only")
    assert stage.train == HEAD | {name for name in ALL if "norm" in name}
    (stage,) = stages_of("bitfit")
    assert stage.train == {"head.weight"} | {name for name in ALL if name.endswith("bias")}


def test_frozen_patterns_are_left_out_wherever_they_lie():
    (stage,) = stages_of("fine_tuning", freeze=("blocks.[01].*", "patch_embed.*"))
    frozen = ALL - stage.train
    assert frozen == {n for n in ALL if n.startswith(("blocks.0.", "blocks.1.", "patch_embed."))}


@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [
        (("blocks.1",), ("blocks.1.",)),
        (("blocks.0", "blocks.10", "patch_embed"), ("blocks.0.", "blocks.10.", "patch_embed.")),
        (("blocks.[02]",), ("blocks.0.", "blocks.2.")),
        (("blocks.2.attn", "blocks.3.norm1"), ("blocks.2.attn.", "blocks.3.norm1.")),
        (("pos_embed", "blocks.1.mlp.fc1.bias"), ("pos_embed", "blocks.1.mlp.fc1.bias")),
    ],
)
def test_a_name_means_a_part_and_all_that_lies_in_it_alone(freeze, frozen):
    net = timm.create_model("vit_tiny_patch16_224", num_classes=1, **VIT | {"depth": 12})
    (stage,) = make_stages(net, ("head",), config_of("fine_tuning", freeze=freeze))
    every = {name for name, _ in net.named_parameters()}
    assert every - stage.train == {name for name in every if name.startswith(frozen)}


@pytest.mark.parametrize(
    ("strategy", "transfer", "words"),
    [
        ("fine_tuning", {"freeze": ("block.0.*",)}, r"matches no weight.*blocks\.\d"),
        ("fine_tuning", {"freeze": ("blocks", "blocks.4")}, "'blocks.4' matches no weight"),
        ("fine_tuning", {"freeze": ("*",)}, "leave nothing to train"),
        ("two_stage", {"last_blocks": 5}, "last_blocks is 5.*has 4 blocks"),
        ("feature_extractor", {"freeze": ("blocks.0*",)}, r"has no use for transfer\.freeze"),
        ("lora", {"freeze": ("blocks.0*",)}, r"has no use for transfer\.freeze"),
        ("feature_extractor", {"unfreeze_every": 1}, r"has no use for transfer\.unfreeze_every"),
        ("lora", {"unfreeze_every": 1}, r"has no use for transfer\.unfreeze_every"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(strategy, transfer, words):
    with pytest.raises(UserError, match=words):
        stages_of(strategy, **transfer)


def test_gradual_unfreezing_goes_from_the_head_down_to_everything():
    (stage,) = stages_of("fine_tuning", unfreeze_every=2)
    seen = [stage.trained_in(epoch, 2) for epoch in range(12)]
    assert seen[0] == seen[1] == HEAD | {"norm.weight", "norm.bias"}
    assert all(a <= b for a, b in pairwise(seen))
    assert {n.split(".")[1] for n in seen[2] if n.startswith("blocks")} == {"3"}
    assert seen[8] == seen[11] == ALL
    assert stage.trained_in(0, None) == ALL
