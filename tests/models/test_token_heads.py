"""Heads that see several tokens. Oracles: the formulas in torch, on timm's own tokens."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from src.config import BackboneConfig, HeadConfig, parse_model
from src.errors import UserError
from src.inference.engines import fused
from src.merging.depth import DepthByName
from src.models.anatomy import anatomy_of
from src.models.backbones import build_backbone, checkpoint_gradients
from src.models.checkpoint import load_checkpoint, save_checkpoint
from src.models.classifier import build_classifier
from src.models.heads import NormalizedLinear, Probe, classifier_of
from src.models.intermediates import watching
from src.models.prefix import entering_at
from src.models.strategies import make_stages
from src.models.weights import load_weights
from src.training.optim import build_optimizer
from tests.models.small import images, save, stir, tensors_of

KWARGS = {"depth": 3, "embed_dim": 32, "num_heads": 2, "patch_size": 8}
# Where norms lie differs: before the pooling (ViT, DINO, PE), behind it (EVA-02, BEiT).
FAMILIES = (
    *(
        "vit_tiny_patch16_224",
        "vit_base_patch32_clip_quickgelu_224",
        "vit_pe_core_base_patch16_224",
    ),
    *("eva02_small_patch14_224", "beit_base_patch16_224"),
)
REGISTERED = ("vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3")
SIGLIP = "vit_base_patch16_siglip_224"
CASES = [
    *((name, "registers+patches") for name in REGISTERED),
    *((name, "layers") for name in (*FAMILIES, *REGISTERED)),
    *((name, "attention") for name in (*FAMILIES, *REGISTERED, SIGLIP)),
]
each = pytest.mark.parametrize(("name", "pool"), CASES)
ONE_EACH = [(REGISTERED[1], "registers+patches"), (FAMILIES[0], "layers"), (SIGLIP, "attention")]
some = pytest.mark.parametrize(("name", "pool"), ONE_EACH)


def config_of(name: str, pool: str, **more: object):
    head = {"pool": pool, "hidden": 12, **more.pop("head", {})}  # type: ignore[dict-item]
    content = {"backbone": {"name": name, "pretrained": "none", "kwargs": KWARGS}, "head": head}
    return parse_model(content | {"input": {"image_size": 32}} | more, "test")


def net_of(name: str, pool: str, **head: object) -> nn.Module:
    torch.manual_seed(0)
    config = BackboneConfig(name, kwargs=KWARGS)
    net, _ = build_backbone(config, 32, HeadConfig(pool, hidden=12, **head))  # type: ignore[arg-type]
    stir(net)
    return net.eval()


def tokens_of(net: nn.Module, name: str) -> list[Tensor]:
    """All tokens behind each block of a plain net with the same weights, before any norm."""
    plain, _ = build_backbone(BackboneConfig(name, kwargs=KWARGS), 32)
    plain.load_state_dict(net.state_dict(), strict=False)
    seen: list[Tensor] = []
    for block in plain.eval().blocks:  # type: ignore[union-attr]
        block.register_forward_hook(lambda _, __, out: seen.append(out))
    plain(images())
    return seen


@torch.no_grad()
@each
def test_the_logit_is_that_of_the_formula(name: str, pool: str):
    net = net_of(name, pool)
    blocks, weight = tokens_of(net, name), dict(net.named_parameters())
    last = net.norm(blocks[-1])  # type: ignore[operator]
    if pool == "registers+patches":
        pooled = net.fc_norm(torch.cat([last[:, 1:5], last[:, 5:].mean(1, keepdim=True)], 1))  # type: ignore[operator]
        first = weight["head.pool.1.weight"], weight["head.pool.1.bias"]
        vector = functional.relu(functional.linear(pooled.flatten(1), *first))
    elif pool == "layers":
        classes = torch.stack([net.fc_norm(net.norm(one))[:, 0] for one in blocks], 1)  # type: ignore[operator]
        first = weight["head.pool.project.0.weight"], weight["head.pool.project.0.bias"]
        hidden = functional.relu(functional.linear(classes, *first))
        shares = weight["head.pool.importance"].exp()
        vector = (hidden * shares / shares.sum(0)).sum(1)
    else:
        vector = attended(net.fc_norm(last), weight)  # type: ignore[operator]
    wanted = functional.linear(vector, weight["head.last.weight"], weight["head.last.bias"])
    assert wanted.std() > 1e-3
    torch.testing.assert_close(net(images()), wanted, rtol=1e-4, atol=1e-4)


def attended(tokens: Tensor, weight: dict[str, nn.Parameter]) -> Tensor:
    """Softmax(q k / sqrt(d)) v over all tokens, then a residual MLP (Zhai et al. 2022, app. A)."""
    part = partial(lambda key: (weight[f"head.pool.{key}.weight"], weight[f"head.pool.{key}.bias"]))
    query = functional.linear(weight["head.pool.latent"][0, 0], *part("q")).reshape(2, 16)
    keys, values = functional.linear(tokens, *part("kv")).chunk(2, -1)
    keys, values = (one.reshape(*tokens.shape[:2], 2, 16) for one in (keys, values))
    shares = (torch.einsum("hd,nthd->nth", query, keys) / 4).softmax(1)
    pooled = torch.einsum("nth,nthd->nhd", shares, values).flatten(1)
    pooled = functional.linear(pooled, *part("proj"))
    inner = functional.layer_norm(pooled, (32,), *part("norm"), 1e-5)
    inner = functional.gelu(functional.linear(inner, *part("mlp.fc1")))
    return pooled + functional.linear(inner, *part("mlp.fc2"))


def test_only_the_first_registers_are_taken_where_so_many_are_asked_for():
    net = net_of(REGISTERED[1], "registers+patches", registers=2)
    assert net.head.pool[1].in_features == 3 * 32  # type: ignore[index,union-attr]
    with torch.no_grad():
        tokens = net.forward_features(images())  # type: ignore[operator]
        pooled = net.pool(tokens)  # type: ignore[operator]
    torch.testing.assert_close(pooled[:, :2], tokens[:, 1:3])
    torch.testing.assert_close(pooled[:, 2], tokens[:, 5:].mean(1))
    with pytest.raises(UserError, match="registers is 5, and vit_small_patch16_dinov3 has 4"):
        net_of(REGISTERED[1], "registers+patches", registers=5)


@each
def test_each_strategy_trains_what_it_names_and_nothing_else(name: str, pool: str):
    """Dropout is off, and the head's last layer no longer near zero."""
    for strategy in ("feature_extractor", "layernorm_only", "fine_tuning"):
        settings = config_of(name, pool, strategy=strategy, head={"dropout": 0.0})
        torch.manual_seed(0)
        model, native = build_classifier(settings)
        stir(model.net)
        (stage,) = make_stages(model.net, native.head, settings)
        names = {key for key, _ in model.net.named_parameters()}
        head = {key for key in names if key.startswith("head.")}
        assert {"head.last.weight", "head.last.bias"} < head <= stage.train
        assert (stage.train == head) == (strategy == "feature_extractor")
        for key, weight in model.net.named_parameters():
            weight.requires_grad_(key in stage.train)
        pixels = torch.randint(256, (3, 32, 32, 3), dtype=torch.uint8)
        functional.softplus(model({"pixels": pixels})["logit"]).sum().backward()
        grads = {key: weight.grad for key, weight in model.net.named_parameters()}
        moved = {key for key, grad in grads.items() if grad is not None and bool(grad.any())}
        idle = {"head.pool.kv.bias"} & head  # half of it moves all keys alike: a part is zero
        assert moved | idle == stage.train
        kept = [
            group["params"] for group in build_optimizer(model.net, settings.optim).param_groups
        ]
        assert sum(len(group) for group in kept) == len(stage.train)


@some
def test_what_lies_before_the_head_is_frozen_features_and_gives_the_same_logit(
    name: str, pool: str
):
    net = net_of(name, pool)
    with torch.no_grad():
        features = entering_at(net, "head", images())
        probe = Probe(net, ("head",), 0.0).eval()({"features": features})
        torch.testing.assert_close(probe["logit"], net(images()).squeeze(1))
        with watching(net, ["features"]) as seen:
            net(images())
    torch.testing.assert_close(probe["features"], seen["features"])  # of the last layer
    tokens = {"registers+patches": 5, "layers": 3, "attention": 16}[pool]
    assert features.shape == (3, tokens, 32)
    in_head = anatomy_of(net, ("head",)).head
    assert in_head == {key for key, _ in net.named_parameters() if key.startswith("head.")}


@some
def test_normalize_sees_what_enters_the_last_layer(name: str, pool: str):
    net = net_of(name, pool, normalize=True)
    path, layer = classifier_of(net)
    assert (path, type(layer)) == ("head.last", NormalizedLinear)
    with torch.no_grad(), watching(net, ["features"]) as seen:
        logit = net(images())
    unit = functional.normalize(seen["features"], dim=1)
    torch.testing.assert_close(logit, functional.linear(unit, layer.weight, layer.bias))  # type: ignore[arg-type]


@some
def test_a_head_survives_checkpoint_copy_and_fused_net(name: str, pool: str, tmp_path):
    settings = config_of(name, pool)
    model, _ = build_classifier(settings)
    stir(model.net)
    path = tmp_path / "fold_0.safetensors"
    save_checkpoint(path, model, settings.as_dict(), ["full"])
    loaded, _ = load_checkpoint(path, torch.device("cpu"))
    with torch.inference_mode():
        wanted = model.eval().net(images())
        assert torch.equal(loaded.net(images()), wanted)
        copied = copy.deepcopy(model.net)
        for weight in model.net.parameters():  # a copy must not look at the first one's weights
            weight.zero_()
        torch.testing.assert_close(copied(images()), wanted)
        quick = fused(loaded.net, 32, plain_attention=True)
        torch.testing.assert_close(quick(images()), wanted, rtol=1e-4, atol=1e-5)


@some
def test_published_weights_load_and_the_head_is_named_as_new(
    name: str, pool: str, tmp_path, caplog
):
    plain, _ = build_backbone(BackboneConfig(name, kwargs=KWARGS), 32)
    stir(plain)
    path = save(tensors_of(plain), tmp_path)
    net = net_of(name, pool)
    start = load_weights(net, path, ("head",))
    head = [key for key in net.state_dict() if key.startswith("head.")]
    assert start.missing == sorted(head)
    left = {"head.weight", "head.bias"} | {k for k in plain.state_dict() if "attn_pool" in k}
    assert set(start.unexpected) == left
    assert all(
        torch.equal(net.state_dict()[k], v) for k, v in plain.state_dict().items() if k not in left
    )


@some
def test_layers_decay_towards_the_input_and_the_head_has_the_whole_rate(name: str, pool: str):
    settings = config_of(name, pool, optim={"layer_decay": 0.5, "lr": 1.0})
    net = net_of(name, pool)
    groups = build_optimizer(net, settings.optim).param_groups
    scale = {id(weight): group["lr_scale"] for group in groups for weight in group["params"]}
    rates = {key: scale[id(weight)] for key, weight in net.named_parameters()}
    assert {rate for key, rate in rates.items() if key.startswith("head.")} == {1.0}
    assert rates["blocks.2.mlp.fc2.weight"] == 2 * rates["blocks.1.mlp.fc2.weight"] < 1
    depth = DepthByName(net.state_dict())  # as merges see it
    assert {depth(key) for key in net.state_dict() if key.startswith("head.")} == {1.0}


@some
def test_adapters_lie_in_the_blocks_alone(name: str, pool: str):
    pytest.importorskip("peft", reason="the extra `peft`")
    settings = config_of(name, pool, strategy="lora", transfer={"lora_r": 2})
    net = net_of(name, pool)
    (stage,) = make_stages(net, ("head",), settings)
    head = {key for key, _ in net.named_parameters() if key.startswith("head.")}
    adapters = {key for key in stage.train if ".lora_" in key}
    assert stage.train == head | adapters
    assert all(key.startswith("blocks.") for key in adapters)
    assert len(adapters) == 3 * 4 * 2


def test_blocks_that_are_computed_again_give_the_same_gradient():
    def gradients_of(*, checkpointed: bool) -> dict[str, Tensor]:
        net = net_of(FAMILIES[0], "layers", dropout=0.0).train()
        if checkpointed:
            checkpoint_gradients(net, FAMILIES[0])
        net(images()).sum().backward()
        return {key: weight.grad for key, weight in net.named_parameters()}  # type: ignore[misc]

    plain, again = (gradients_of(checkpointed=one) for one in (False, True))
    assert all(torch.equal(again[key], plain[key]) for key in plain)


@pytest.mark.parametrize(
    ("name", "pool", "words"),
    [
        (
            "test_resnet",
            "attention",
            r"tokens of a vision transformer.*test_resnet \(ResNet\) is none",
        ),
        ("swin_tiny_patch4_window7_224", "layers", r"\(SwinTransformer\) is none; native fits it"),
        (SIGLIP, "layers", f"wants a class token, and {SIGLIP} has none; attention"),
        (SIGLIP, "registers[+]patches", "register tokens, and .* has none: take attention, or"),
        (
            "vit_tiny_patch16_224",
            "registers[+]patches",
            "has none: take cls_avg .* or attention.*DINOv3",
        ),
        ("deit_tiny_distilled_patch16_224", "attention", "one classifier, and .* has two"),
    ],
)
def test_a_net_without_those_tokens_is_refused_by_name(name: str, pool: str, words: str):
    with torch.device("meta"), pytest.raises(UserError, match=f"head.pool: {pool} .*{words}"):
        build_backbone(BackboneConfig(name), None, HeadConfig(pool.replace("[+]", "+")))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ({"pool": "cls", "hidden": 64}, "head.hidden and head.dropout are of head.pool"),
        ({"pool": "layers", "registers": 2}, "head.registers is of head.pool registers"),
        ({"pool": "attention", "project": 512}, "head.project wants one vector"),
    ],
)
def test_settings_that_a_head_does_not_have_are_refused(head: dict[str, object], words: str):
    with pytest.raises(UserError, match=words):
        parse_model({"backbone": {"name": "test_vit"}, "head": head}, "test")
