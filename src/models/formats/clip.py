"""Image towers of CLIP: OpenAI's and open_clip's names, Meta's PE-Core, those of Hugging Face."""

from dataclasses import replace

from torch import Tensor, nn

from src.errors import UserError
from src.models.formats import (
    FORMATS,
    Foreign,
    Target,
    WeightsFile,
    fused,
    logit_of_two,
    prefix_of,
    renamed,
    split_attention,
    tower_of,
    under,
)
from src.models.heads import PROJECTION, projection_of

# Order matters: `ln_` is a part of `ln_pre` and `ln_post`. As timm's own converter.
OPENAI = (
    ("conv1", "patch_embed.proj"),
    ("positional_embedding", "pos_embed"),
    ("class_embedding", "cls_token"),
    (r"transformer\.resblocks\.", "blocks."),
    ("ln_pre", "norm_pre"),
    ("ln_post", "norm"),
    ("ln_", "norm"),
    ("in_proj_", "qkv."),
    ("out_proj", "proj"),
    (r"mlp\.c_fc", "mlp.fc1"),
    (r"mlp\.c_proj", "mlp.fc2"),
)
# What PE-Core has beside: an attention pooling.
PERCEPTION = (
    (r"^attn_pool\.attn\.", "attn_pool."),
    (r"^attn_pool\.layernorm\.", "attn_pool.norm."),
    (r"^attn_pool\.probe$", "attn_pool.latent"),
    (r"\.ls_([12])\.gamma$", r".gamma_\1"),
)
HUGGING_FACE = (
    (r"embeddings\.patch_embedding", "patch_embed.proj"),
    (r"embeddings\.position_embedding\.weight", "pos_embed"),
    (r"embeddings\.class_embedding", "cls_token"),
    (r"encoder\.layers\.", "blocks."),
    ("pre_layrnorm", "norm_pre"),  # misspelt in transformers itself
    ("post_layernorm", "norm"),
    ("layer_norm", "norm"),
    (r"self_attn\.out_proj", "attn.proj"),
    (r"self_attn\.", "attn."),
)
# DeepfakeBench trains its CLIP detector on pixels scaled to -1..1 (its clip.yaml), real is 0.
BENCH_SCALE = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
# Effort, whose detector has the same names, trains on CLIP's own (its effort.yaml).
CLIP_SCALE = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Scalars that only OpenAI's archives hold; their nets use QuickGELU.
OPENAI_MARKS = ("input_resolution", "context_length", "vocab_size")


@FORMATS.register("clip")
def clip(source: WeightsFile, net: nn.Module) -> Foreign | None:
    """Read a tower named as in OpenAI's CLIP (Radford et al. 2021) and in open_clip.

    Meta's PE-Core (Bolya et al. 2025) is one with an attention pooling. It may be the whole CLIP,
    the tower alone, or a detector that keeps one (ForensicsAdapter: `clip_model.visual.`); text
    tower and adapters are dropped, the projection too where the net has no `head.project`.
    """
    anchors = (
        *("class_embedding", "conv1.weight", "positional_embedding"),
        *("ln_pre.weight", "transformer.resblocks.0.attn.in_proj_weight"),
    )
    if tower_of(net) is not None:
        return None  # a file for the whole of such a net has a format of its own
    prefix = prefix_of(source.tensors, anchors, source.path)
    if prefix is None:
        return None
    tower = under(source.tensors, prefix)
    dropped = {key for key in source.tensors if not key.startswith(prefix)}
    projection = tower.pop("proj", None)
    if projection is not None:
        dropped.add(f"{prefix}proj")
    from_openai = all(mark in source.tensors for mark in OPENAI_MARKS)
    note = _activation_note(net) if from_openai else ""
    tower = renamed(renamed(tower, OPENAI), PERCEPTION)
    tower = split_attention(tower, "attn_pool.", "qkv.")
    found = Foreign(_tokens(tower), sorted(dropped), note=note)
    return found if projection is None else _projected(found, f"{prefix}proj", projection.T, net)


@FORMATS.register("hf_clip")
def hf_clip(source: WeightsFile, net: nn.Module) -> Foreign | None:
    """Read a tower named as in transformers' `CLIPModel` and `CLIPVisionModel`.

    DeepfakeBench's CLIP detector is one under `backbone.`, with a linear head (2, d) on the pooled
    output, real first: that head becomes the logit. Effort's is the same.
    """
    anchors = (
        *("embeddings.class_embedding", "embeddings.patch_embedding.weight"),
        *("pre_layrnorm.weight", "encoder.layers.0.self_attn.q_proj.weight"),
    )
    prefix = prefix_of(source.tensors, anchors, source.path)
    if prefix is None:
        return None
    tower = under(source.tensors, prefix)
    tower.pop("embeddings.position_ids", None)
    dropped = set(source.tensors) - {f"{prefix}{key}" for key in tower}
    tensors = _tokens(fused(renamed(tower, HUGGING_FACE), source.path))
    key = f"{prefix.removesuffix('vision_model.')}visual_projection.weight"
    if key in source.tensors:
        return _projected(Foreign(tensors, sorted(dropped)), key, source.tensors[key], net)
    logit = logit_of_two(source.tensors, "head", fake=1) if prefix == "backbone." else {}
    if not logit:
        return Foreign(tensors, sorted(dropped))
    dropped -= {"head.weight", "head.bias"}
    mean, std = CLIP_SCALE if source.joined else BENCH_SCALE
    return Foreign(tensors, sorted(dropped), logit, mean, std, fake=1)


def with_projection(
    name: str,  # noqa: ARG001 - a `Turn`
    found: Foreign,
    source: WeightsFile,
    target: Target,
) -> Foreign:
    """Give a tower CLIP's projection where timm keeps it as a classifier.

    It is a `Turn` (`models/weights`): what it makes of what a format read.

    Raises:
        UserError: it wants one, and the file has none.
    """
    layer = projection_of(target.net)
    key, theirs = f"{PROJECTION}.weight", found.tensors.get("head.weight")
    if layer is None or key in found.tensors:
        return found
    if theirs is None or theirs.shape != layer.weight.shape:
        raise UserError(
            f"{source.path}: has a CLIP tower, but not its projection to {layer.out_features} "
            "(`visual.proj`, `visual_projection.weight`): take the whole CLIP, or do without it "
            "(backbone.kwargs.project: null)"
        )
    rest = {k: v for k, v in found.tensors.items() if not k.startswith("head.")}
    return replace(found, tensors=rest | {key: theirs})


def _projected(found: Foreign, key: str, weight: Tensor, net: nn.Module) -> Foreign:
    """Add a file's projection (width, d), there under `key`, where the net has a place for it."""
    if projection_of(net) is None:
        return found
    tensors = found.tensors | {f"{PROJECTION}.weight": weight}
    return replace(found, tensors=tensors, dropped=[one for one in found.dropped if one != key])


def _tokens(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the class token and the position embeddings timm's batch axis."""
    tensors["cls_token"] = tensors["cls_token"].reshape(1, 1, -1)
    tensors["pos_embed"] = tensors["pos_embed"][None]
    return tensors


def _activation_note(net: nn.Module) -> str:
    from timm.layers.activations import QuickGELU

    if not hasattr(net, "blocks") or any(type(one) is QuickGELU for one in net.modules()):
        return ""
    return (
        "OpenAI's CLIP was trained with QuickGELU and this backbone has another activation: its "
        "features will differ a little; vit_*_clip_quickgelu_224 is the faithful one"
    )
