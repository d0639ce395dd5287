"""ForensicsAdapter's published checkpoint, and CLIP files for its tower.

The published names and shapes are written down here as its code (OUC-VAS/ForensicsAdapter) makes
them.
"""

from pathlib import Path

import pytest
import timm
import torch

from src.config import BackboneConfig, parse_model
from src.errors import UserError
from src.models.backbones import build_backbone
from src.models.checkpoint import load_checkpoint, save_checkpoint
from src.models.classifier import Classifier, build_classifier
from src.models.detector import load_detector
from src.models.formats import FORMATS, Target, WeightsFile
from src.models.formats.fit import adapt
from src.models.heads import entering
from src.models.weights import load_weights, start_weights
from tests.models.adapter import KWARGS, TOWER, small_adapter
from tests.models.small import HEAD, images, same, save, tensors_of

PUBLISHED_SIZE = {
    "queries": 128, "width": 192, "mlp": 256, "out": 128, "heads": 16, "narrow": 192,
    "clip": 1024, "depth": 24, "patch": 14, "tokens": 257, "project": 768, "text": 768,
    "text_depth": 12, "texts": 49408, "length": 77,
}  # fmt: skip
SMALL_SIZE = {
    "queries": 8, "width": 24, "mlp": 20, "out": 10, "heads": 4, "narrow": 12,
    "clip": 32, "depth": 4, "patch": 8, "tokens": 17, "project": 64, "text": 16,
    "text_depth": 1, "texts": 9, "length": 5,
}  # fmt: skip
Shapes = dict[str, tuple[int, ...]]


def layer(name: str, out: int, *inputs: int) -> Shapes:
    return {f"{name}.weight": (out, *inputs), f"{name}.bias": (out,)}


def batch_norm(name: str, width: int) -> Shapes:
    kept = {f"{name}.{part}": (width,) for part in ("running_mean", "running_var")}
    return layer(name, width) | kept | {f"{name}.num_batches_tracked": ()}


def openai_blocks(width: int, depth: int) -> Shapes:
    found: Shapes = {}
    for number in range(depth):
        name = f"resblocks.{number}"
        found |= layer(f"{name}.attn.out_proj", width, width)
        found |= {f"{name}.attn.in_proj_weight": (3 * width, width)}
        found |= {f"{name}.attn.in_proj_bias": (3 * width,)}
        found |= layer(f"{name}.ln_1", width) | layer(f"{name}.ln_2", width)
        found |= layer(f"{name}.mlp.c_fc", 4 * width, width)
        found |= layer(f"{name}.mlp.c_proj", width, 4 * width)
    return found


def visual(z: dict[str, int]) -> Shapes:
    blocks = openai_blocks(z["clip"], z["depth"])
    return {
        "conv1.weight": (z["clip"], 3, z["patch"], z["patch"]),
        "class_embedding": (z["clip"],),
        "positional_embedding": (z["tokens"], z["clip"]),
        "proj": (z["clip"], z["project"]),
        **layer("ln_pre", z["clip"]),
        **{f"transformer.{key}": shape for key, shape in blocks.items()},
        **layer("ln_post", z["clip"]),
    }


def whole_clip(z: dict[str, int]) -> Shapes:
    text = openai_blocks(z["text"], z["text_depth"])
    return {
        **{f"visual.{key}": shape for key, shape in visual(z).items()},
        **{f"transformer.{key}": shape for key, shape in text.items()},
        "positional_embedding": (z["length"], z["text"]),
        "text_projection": (z["text"], z["project"]),
        "logit_scale": (),
        "token_embedding.weight": (z["texts"], z["text"]),
        **layer("ln_final", z["text"]),
    }


def published(z: dict[str, int]) -> Shapes:
    wide, out, q, e = z["width"], z["out"], z["queries"], z["project"]
    found = {f"clip_model.{key}": shape for key, shape in whole_clip(z).items()}
    found |= {"adapter.vit_model.pos_embed": (1, 196, wide)}
    found |= layer("adapter.vit_model.patch_embed.proj", wide, 3, 16, 16)
    found |= layer("adapter.vit_model.patch_embed.norm", wide)
    for number in range(12):
        name = f"adapter.vit_model.blocks.{number}"
        found |= layer(f"{name}.norm1", wide) | layer(f"{name}.norm2", wide)
        found |= layer(f"{name}.attn.qkv", 3 * wide, wide) | layer(f"{name}.attn.proj", wide, wide)
        found |= layer(f"{name}.mlp.fc1", 4 * wide, wide)
        found |= layer(f"{name}.mlp.fc2", wide, 4 * wide)
    found |= {"adapter.query_embed": (1, q, wide), "adapter.query_pos_embed": (1, q, wide)}
    found |= layer("adapter.ln_pre", wide) | layer("adapter.patch_conv", wide, 3, 16, 16)
    for name, last, ones in (
        ("query", out, ()),
        ("xray", out, (1, 1)),
        ("attn", out * z["heads"], (1, 1)),
    ):
        sizes = (wide, z["mlp"], z["mlp"], last)
        for number in range(3):
            place = f"adapter.mask_decoder.{name}_mlp.layers.{number}"
            found |= layer(place, sizes[number + 1], sizes[number], *ones)
    found |= layer("adapter.mask_decoder.bias_scaling", 1, 1)
    tower = visual(z)
    found |= {f"rec_attn_clip.vit.{key}": shape for key, shape in tower.items()}
    inner = {k.removeprefix("transformer."): v for k, v in tower.items() if "resblocks" in k}
    found |= {f"rec_attn_clip.{key}": shape for key, shape in inner.items()}
    found |= {f"rec_attn_clip.{key}": tower[key] for key in ("ln_post.weight", "ln_post.bias")}
    found |= {"rec_attn_clip.proj": tower["proj"], "rec_attn_clip.intra_scale": (1,)}
    narrow = "rec_attn_clip.clip_intra_blocks.0.conv"
    found |= layer(f"{narrow}_first", z["narrow"], z["clip"], 1)
    found |= layer(f"{narrow}_second", z["clip"], z["narrow"], 1)
    for name, ones in (("masked_xray_post_process.process", (3, 3)), ("first", (3,))):
        name = "clip_post_process.first_process" if name == "first" else name
        found |= layer(f"{name}.0", q // 2, q, *ones) | batch_norm(f"{name}.1", q // 2)
        found |= layer(f"{name}.3", q // 4, q // 2, *ones) | batch_norm(f"{name}.4", q // 4)
        found |= layer(f"{name}.6", 1, q // 4, *((1, 1) if len(ones) == 2 else ones))
    found |= layer("masked_xray_post_process.process.7", 1, 1, 16, 16)
    head = "clip_post_process.second_process"
    found |= layer(f"{head}.0", e // 2, e) | layer(f"{head}.2", e // 4, e // 2)
    return found | layer(f"{head}.4", 2, e // 4)


def unread(z: dict[str, int], depth: int) -> set[str]:
    """What is dropped: the text tower, the image tower's copies, what that code never calls."""
    keys = set(published(z))
    blocks = tuple(f"adapter.vit_model.blocks.{number}." for number in range(depth, 12))
    kept = "rec_attn_clip.clip_intra_blocks."
    return (
        {k for k in keys if k.startswith("clip_model.") and "visual" not in k}
        | {k for k in keys if k.startswith("rec_attn_clip.") and not k.startswith(kept)}
        | {k for k in keys if k.startswith(("adapter.vit_model.patch_embed.", *blocks))}
    )


def fusions(numbers: tuple[int, ...]) -> set[str]:
    parts = ("norm.weight", "norm.bias", "proj.weight", "proj.bias")
    return {f"side.fusions.{number}.{part}" for number in numbers for part in parts}


def test_every_published_tensor_has_its_place():
    path = Path("ckpt_best.pth")
    with torch.device("meta"):
        net, native = build_backbone(BackboneConfig("forensics_adapter", "none"), 256)
        file = {key: torch.empty(shape) for key, shape in published(PUBLISHED_SIZE).items()}
        read = {n: FORMATS.get(n)(WeightsFile(path, file), net) for n in FORMATS}
        claims = {name: one for name, one in read.items() if one is not None}
        assert list(claims) == ["forensics_adapter"]
        found, fresh = adapt(claims["forensics_adapter"], Target(net, native.head), path)
    own = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert set(own) - set(found.tensors) == fusions((1, 2, 3))
    assert fresh == ("side.fusions.",)
    assert set(found.tensors) - set(own) == set()
    assert {k: tuple(v.shape) for k, v in found.tensors.items()}.items() <= own.items()
    assert set(found.dropped) == unread(PUBLISHED_SIZE, depth=8)
    assert (found.fake, found.mean, found.std) == (1, native.mean, native.std)
    own_part = {n: p.numel() for n, p in net.named_parameters() if not n.startswith("tower.")}
    fused = sum(own_part[name] for name in fusions((1, 2, 3)))
    assert (sum(own_part.values()) - fused) / 1e6 == pytest.approx(5.7, abs=0.1)  # the paper's


@pytest.fixture(scope="module")
def file() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    found = {k: 0.3 * torch.randn(shape) for k, shape in published(SMALL_SIZE).items()}
    for key in found:
        if key.endswith("running_var"):
            found[key] = found[key].abs() + 0.5
        if key.endswith("num_batches_tracked"):
            found[key] = torch.tensor(7)
        if key.startswith(("rec_attn_clip.vit.", "rec_attn_clip.resblocks")):
            rest = key.removeprefix("rec_attn_clip.").removeprefix("vit.")
            place = rest if key.startswith("rec_attn_clip.vit.") else f"transformer.{rest}"
            found[key] = found[f"clip_model.visual.{place}"]
    return found


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_published_file_is_read_whole(file, tmp_path, wrapped):
    content = {"state_dict": {f"module.{k}": v for k, v in file.items()}} if wrapped else file
    net = small_adapter()
    start = load_weights(net, save(content, tmp_path), HEAD)
    assert (start.format, start.fake, start.unexpected) == ("forensics_adapter", 1, [])
    assert set(start.missing) == fusions((1, 2))
    assert set(start.dropped) == unread(SMALL_SIZE, depth=3)
    own = net.state_dict()
    for theirs, ours in {
        "clip_model.visual.transformer.resblocks.2.mlp.c_fc.bias": "tower.blocks.2.mlp.fc1.bias",
        "clip_model.visual.ln_pre.weight": "tower.norm_pre.weight",
        "adapter.vit_model.pos_embed": "side.position",
        "adapter.vit_model.blocks.1.attn.qkv.weight": "side.blocks.1.attn.qkv.weight",
        "adapter.query_embed": "side.query",
        "adapter.query_pos_embed": "side.query_position",
        "adapter.ln_pre.bias": "side.norm.bias",
        "adapter.mask_decoder.query_mlp.layers.1.weight": "decoder.of_query.2.weight",
        "masked_xray_post_process.process.7.weight": "boundary.7.weight",
        "masked_xray_post_process.process.4.running_var": "boundary.4.running_var",
        "clip_post_process.first_process.3.weight": "pool.3.weight",
        "clip_post_process.second_process.2.bias": "mlp.2.bias",
    }.items():
        assert torch.equal(own[ours], file[theirs]), ours
    flat = {
        "adapter.mask_decoder.xray_mlp.layers.2.weight": "decoder.of_map.4.weight",
        "adapter.mask_decoder.attn_mlp.layers.0.weight": "decoder.of_bias.0.weight",
        "rec_attn_clip.clip_intra_blocks.0.conv_second.weight": "bottleneck.2.weight",
    }
    for theirs, ours in flat.items():
        assert torch.equal(own[ours], file[theirs].flatten(1)), ours
    assert torch.equal(own["tower.fc_norm.weight"], file["clip_model.visual.proj"].T)
    with torch.no_grad(), entering(net.head) as seen:
        logit = net.eval()(images(64))[:, 0]
    head = "clip_post_process.second_process.4"
    real, fake = (seen[0] @ file[f"{head}.weight"].T + file[f"{head}.bias"]).T
    torch.testing.assert_close(logit, fake - real, atol=1e-5, rtol=1e-4)
    assert float(logit.std()) > 1e-5


def settings(pretrained: str = "file"):
    net = {"name": "forensics_adapter", "pretrained": pretrained, "kwargs": KWARGS}
    return parse_model({"backbone": net, "input": {"image_size": 64}}, "small")


def test_it_predicts_as_it_is_and_a_clip_file_does_not(file, tmp_path):
    # its fusion layers are noise around zero there, and zero here
    path = save(file, tmp_path)
    model, origin = load_detector(path, "small", settings(), None)
    assert "class 1 of its head is fake (says its format, forensics_adapter)" in origin.order
    assert model(_batch())["logit"].shape == (2,)
    clip = {k.removeprefix("clip_model."): v for k, v in file.items() if k.startswith("clip_model")}
    with pytest.raises(UserError, match="does not fill small"):
        load_detector(save(clip, tmp_path, "clip.pth"), "small", settings(), None)


def _batch() -> dict[str, torch.Tensor]:
    draws = torch.Generator().manual_seed(2)
    return {"pixels": torch.randint(256, (2, 64, 64, 3), dtype=torch.uint8, generator=draws)}


def hugging_face(file: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    names = {
        "ln_pre": "pre_layrnorm", "ln_post": "post_layernorm",
        "conv1": "embeddings.patch_embedding", "ln_1": "layer_norm1",
        "class_embedding": "embeddings.class_embedding",
        "positional_embedding": "embeddings.position_embedding.weight", "ln_2": "layer_norm2",
        "transformer.resblocks": "encoder.layers", "attn.out_proj": "self_attn.out_proj",
        "c_fc": "fc1", "c_proj": "fc2",
    }  # fmt: skip
    found = {"visual_projection.weight": file["clip_model.visual.proj"].T}
    for key, value in file.items():
        name = key.removeprefix("clip_model.visual.")
        if name == key or name == "proj":
            continue
        for old, new in names.items():
            name = name.replace(old, new)
        if "in_proj_" in name:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                one = name.replace("attn.in_proj_", f"self_attn.{letter}_proj.")
                found[f"vision_model.{one}"] = part
        else:
            found[f"vision_model.{name}"] = value
    return found


def timms(file: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As timm keeps OpenAI's: the projection is a classifier."""
    net = small_adapter().tower
    visual = {k: v for k, v in file.items() if k.startswith("clip_model.visual.")}
    path = save(visual, Path(), "visual.pth")
    try:
        load_weights(net, path, ())
    finally:
        path.unlink()
    found = {k: v for k, v in tensors_of(net).items() if not k.startswith("fc_norm.")}
    proj = file["clip_model.visual.proj"].T
    return found | {"head.weight": proj, "head.bias": torch.zeros(len(proj))}


LAYOUTS = {
    "openai": lambda f: {
        k.removeprefix("clip_model."): v for k, v in f.items() if k.startswith("clip_model.")
    },
    "tower": lambda f: {
        k.removeprefix("clip_model.visual."): v
        for k, v in f.items()
        if k.startswith("clip_model.visual.")
    },
    "hugging_face": hugging_face,
    "timm": timms,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_clip_file_goes_into_the_tower(file, tmp_path, monkeypatch, caplog, layout):
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", "rvf")
    net, whole = small_adapter(), small_adapter(seed=2)
    before = tensors_of(net)
    load_weights(whole, save(file, tmp_path, "whole.pth"), HEAD)
    start = load_weights(net, save(LAYOUTS[layout](file), tmp_path), HEAD)
    after, wanted = net.state_dict(), whole.state_dict()
    tower = {key for key in after if key.startswith("tower.")}
    assert same({k: after[k] for k in tower}, {k: wanted[k] for k in tower})
    rest = set(after) - tower
    assert same({k: after[k] for k in rest}, {k: before[k] for k in rest})
    trained = {key for key in rest if not key.endswith("num_batches_tracked")}
    assert (set(start.missing), start.unexpected) == (trained, [])
    assert f"fills the CLIP tower, the other {len(trained)} tensors start at random" in caplog.text


def test_timms_hub_fills_the_tower(monkeypatch):
    torch.manual_seed(8)
    theirs = timm.create_model(KWARGS["tower"], num_classes=64, **TOWER)

    def hub(config: BackboneConfig, image_size: int | None):
        assert (config.name, config.kwargs["num_classes"], image_size) == (
            KWARGS["tower"],
            64,
            None,
        )
        return tensors_of(theirs), "vit.openai", "abc"

    monkeypatch.setattr("src.models.weights.hub_weights", hub)
    net = small_adapter()
    start = start_weights(net, settings(pretrained="hub"), HEAD, None, no_pretrained=False)
    assert (start.source, start.name, start.sha256) == ("hub", "vit.openai", "abc")
    assert not any(key.startswith("tower.") for key in start.missing)
    assert torch.equal(net.tower.fc_norm.weight, theirs.head.weight)
    assert torch.equal(net.tower.blocks[3].mlp.fc1.bias, theirs.blocks[3].mlp.fc1.bias)


def test_a_clip_file_that_does_not_do_is_refused(file, tmp_path):
    bare = {k: v for k, v in LAYOUTS["tower"](file).items() if k != "proj"}
    path = save(bare, tmp_path)
    with pytest.raises(UserError, match=r"not its projection to 64.*project: null"):
        load_weights(small_adapter(), path, HEAD)
    assert load_weights(small_adapter(project=None), path, HEAD).unexpected == []
    shallow = {k: v for k, v in bare.items() if "resblocks.3" not in k}
    with pytest.raises(UserError, match=r"missing.*'blocks.3.*3 blocks.*backbone is.*4 blocks"):
        load_weights(small_adapter(project=None), save(shallow, tmp_path), HEAD)
    cut = save({k: v for k, v in file.items() if "patch_conv" not in k}, tmp_path)
    with pytest.raises(UserError, match="missing"):  # of the published file
        load_weights(small_adapter(), cut, HEAD)


def test_our_own_checkpoint_comes_back(tmp_path):
    config = settings()
    model, native = build_classifier(config)
    model.net.load_state_dict(small_adapter().state_dict())
    path = tmp_path / "fold_0.safetensors"
    save_checkpoint(path, model, config.as_dict(), ["full"])
    back, _ = load_checkpoint(path, torch.device("cpu"))
    assert torch.equal(back.eval()(_batch())["logit"], model.eval()(_batch())["logit"])
    other = Classifier(small_adapter(seed=4), model.spec)
    for name in ("ours", "plain"):
        where = path if name == "ours" else save(tensors_of(model.net), tmp_path)
        start = load_weights(other.net, where, native.head)
        assert (start.format, start.missing, start.unexpected) == (
            *("ours" if name == "ours" else "", []),
            [],
        )
        assert same(tensors_of(other.net), tensors_of(model.net))
    assert TOWER["depth"] == len(other.net.tower.blocks)
