"""Image classifiers of transformers: ViT, DINOv2 and v3, SigLIP, Swin, ConvNeXt and their V2s.

Names are those of published files and those that transformers 5 gives its nets in memory, which a
file of `torch.save(model.state_dict())` has. `config.json` beside a file names its classes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from src.models.formats.base import FORMATS, Foreign, Source, fused, prefix_of, under
from src.models.formats.beside import look_beside
from src.models.formats.self_supervised import dinov2, dinov3
from src.models.heads import ClsAvgPool, NormalizedLinear

Renames = tuple[tuple[str, str], ...]
BLOCKS: Renames = (
    (r"layernorm_before\.", "norm1."),
    (r"layernorm_after\.", "norm2."),
    (r"attention\.(?:attention\.|self\.)?(?:query|q_proj)\.", "attn.q_proj."),
    (r"attention\.(?:attention\.|self\.)?(?:key|k_proj)\.", "attn.k_proj."),
    (r"attention\.(?:attention\.|self\.)?(?:value|v_proj)\.", "attn.v_proj."),
    (r"attention\.(?:output\.dense|o_proj)\.", "attn.proj."),
    (r"(?:intermediate\.dense|mlp\.up_proj)\.", "mlp.fc1."),
    (r"(?:\.output\.dense|\.mlp\.down_proj)\.", ".mlp.fc2."),
    (r"layer_scale([12])\.lambda1", r"ls\1.gamma"),
)
VIT: Renames = (
    (r"^embeddings\.patch_embeddings\.(?:projection\.)?", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings", "pos_embed"),
    (r"^embeddings\.", ""),
    (r"^(?:encoder\.|model\.)?layers?\.(\d+)\.", r"blocks.\1."),
    *BLOCKS,
    (r"\.mlp\.weights_in\.", ".mlp.w12."),
    (r"\.mlp\.weights_out\.", ".mlp.w3."),
    (r"^layernorm\.", "norm."),
)
SWIN: Renames = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^encoder\.layers\.", "layers."),
    *BLOCKS,
    (r"attention\.(?:self\.|relative_position_bias\.)+relative", "attn.relative"),
    (r"attention\.(?:self\.)?logit_scale", "attn.logit_scale"),
    (r"attention\.(?:self\.)?continuous_position_bias_mlp", "attn.cpb_mlp"),
    (r"^layernorm\.", "norm."),
)
CONVNEXT: Renames = (
    (r"^embeddings\.patch_embeddings\.", "stem.0."),
    (r"^embeddings\.layernorm\.", "stem.1."),
    (r"^encoder\.stages\.(\d+)\.downsampling_layer\.", r"stages.\1.downsample."),
    (r"^encoder\.stages\.(\d+)\.layers\.", r"stages.\1.blocks."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv([12])\.", r".mlp.fc\1."),
    (r"\.grn\.", ".mlp.grn."),
    (r"\.layer_scale_parameter", ".gamma"),
    (r"^layernorm\.", "head.norm."),
    (r"\.layernorm\.", ".norm."),
)
SIGLIP: Renames = (
    (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"^embeddings\.position_embedding\.weight", "pos_embed"),
    (r"^encoder\.layers\.", "blocks."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.self_attn\.", ".attn."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"^post_layernorm\.", "norm."),
    (r"^head\.probe", "attn_pool.latent"),
    (r"^head\.attention\.out_proj\.", "attn_pool.proj."),
    (r"^head\.layernorm\.", "attn_pool.norm."),
    (r"^head\.mlp\.", "attn_pool.mlp."),
)
WANTS = "which wants in the model's config head:"
# Where transformers' names of activations differ from timm's.
TANH = ("GELUTanh", "gelu_tanh")
ACTIVATIONS = {
    **{"gelu_pytorch_tanh": TANH, "gelu_new": TANH},
    "quick_gelu": ("QuickGELU", "quick_gelu"),
}


@dataclass(frozen=True)
class Read:
    """A tower in timm's names, and what goes with it."""

    prefix: str  # of the tower in the file
    tensors: dict[str, Tensor]  # under timm's names
    # keys of the tower that have no place in timm's net, and no say in its head's input
    lost: list[str]
    no_head: str = ""  # why the file's head does not fit a net of timm; empty where it does


@FORMATS.register("hf_vit")
def hf_vit(source: Source, net: nn.Module) -> Foreign | None:
    """Read ViT (also ViTMAE's encoder) or DINOv2, with registers or without."""
    tower, prefix = _tower(source, "embeddings.cls_token", "embeddings.position_embeddings",
                           "embeddings.patch_embeddings.projection.weight")  # fmt: skip
    if tower is None:
        return None
    lost = [key for key in tower if key.startswith("pooler.")]
    tensors = fused(_renamed({k: v for k, v in tower.items() if k not in lost}, VIT), source.path)
    if "blocks.0.ls1.gamma" not in tensors:
        own = getattr(net, "global_pool", "token"), getattr(net, "attn_pool", None)
        pooled = own != ("token", None) and not any(
            key.startswith("fc_norm.") for key in net.state_dict()
        )
        why = f"its head sees the class token, {WANTS} {{pool: cls}}" if pooled else ""
        return _foreign(source, net, Read(prefix, tensors, [*lost, "embeddings.mask_token"], why))
    tensors.setdefault("mask_token", torch.zeros(1))
    read = dinov2(Source(source.path, tensors), net)
    tensors = read.tensors if read is not None else tensors
    why = (
        ""
        if isinstance(getattr(net, "attn_pool", None), ClsAvgPool)
        else "its head sees the class token and the mean of the patches side by side, "
        f"{WANTS} {{pool: cls_avg}}"
    )
    return _foreign(source, net, Read(prefix, tensors, [*lost, "embeddings.mask_token"], why))


@FORMATS.register("hf_dinov3")
def hf_dinov3(source: Source, net: nn.Module) -> Foreign | None:
    """Read DINOv3's ViT."""
    tower, prefix = _tower(source, "embeddings.register_tokens", "embeddings.mask_token",
                           "embeddings.patch_embeddings.weight")  # fmt: skip
    if tower is None:
        return None
    tensors = _renamed(tower, VIT)
    for key in [key for key in tensors if key.endswith(".attn.q_proj.bias")]:
        k_bias = key.replace("q_proj", "k_proj")
        tensors.setdefault(k_bias, torch.zeros_like(tensors[key]))
    tensors = fused(tensors, source.path)
    tensors["storage_tokens"] = tensors.pop("register_tokens")
    read = dinov3(Source(source.path, tensors), net)
    if read is None:
        return None
    biased = [key for key in read.dropped if key.endswith("qkv.bias") and bool(tensors[key].any())]
    note = (
        "its query and value biases have no place in this backbone: vit_*_dinov3_qkvb has them"
        if biased
        else ""
    )
    foreign = _foreign(source, net, Read(prefix, read.tensors, ["embeddings.mask_token"]))
    return replace(foreign, note="; ".join(filter(None, (foreign.note, note))))


@FORMATS.register("hf_siglip")
def hf_siglip(source: Source, net: nn.Module) -> Foreign | None:
    """Read SigLIP's or SigLIP 2's image tower, of fixed size or NaFlex.

    The classifiers that transformers makes of it see the mean of all tokens, as timm's
    `vit_*_siglip_gap_*` do; the attention pooling beside it is then of no account.
    """
    tower, prefix = _tower(source, "embeddings.patch_embedding.weight", "post_layernorm.weight",
                           "embeddings.position_embedding.weight")  # fmt: skip
    if tower is None or "pre_layrnorm.weight" in tower:
        return None
    pooled = getattr(net, "attn_pool", None) is not None
    lost = [k for k in tower if k.startswith("head.") and not pooled] + ["embeddings.position_ids"]
    tensors = fused(
        _renamed({k: v for k, v in tower.items() if k not in lost}, SIGLIP), source.path
    )
    tensors["pos_embed"] = tensors["pos_embed"][None]
    patch = tensors["patch_embed.proj.weight"]
    if patch.ndim == 2:  # NaFlex: of pixels row by row, colours last
        side = round((patch.shape[1] / 3) ** 0.5)
        tensors["patch_embed.proj.weight"] = patch.reshape(-1, side, side, 3).permute(0, 3, 1, 2)
    for part in ("weight", "bias"):
        joint = tensors.pop(f"head.attention.in_proj_{part}", None)
        if joint is not None:
            queries, keys, values = joint.chunk(3)
            tensors[f"attn_pool.q.{part}"] = queries
            tensors[f"attn_pool.kv.{part}"] = torch.cat([keys, values])
    why = "its head sees the mean of all tokens, as vit_*_siglip_gap_* do" if pooled else ""
    return _foreign(source, net, Read(prefix, tensors, lost, why))


@FORMATS.register("hf_swin")
def hf_swin(source: Source, net: nn.Module) -> Foreign | None:
    """Read Swin or Swin V2; what leads to a stage is counted with the stage before it there."""
    tower, prefix = _tower(source, "embeddings.patch_embeddings.projection.weight",
                           "embeddings.norm.weight",
                           "encoder.layers.0.blocks.0.layernorm_before.weight")  # fmt: skip
    if tower is None:
        return None
    lost = [k for k in tower if k.endswith(("relative_position_index", "relative_coords_table"))]
    tensors = _renamed({k: v for k, v in tower.items() if k not in lost}, SWIN)
    moved = {re.sub(r"^layers\.(\d+)\.downsample", _next, key): v for key, v in tensors.items()}
    if "layers.0.blocks.0.attn.logit_scale" in moved:  # V2, whose keys have no bias
        moved = {re.sub(r"\.([qv])_proj\.bias$", r".\1_bias", k): v for k, v in moved.items()}
    return _foreign(source, net, Read(prefix, fused(moved, source.path), lost))


def _next(found: re.Match[str]) -> str:
    return f"layers.{int(found[1]) + 1}.downsample"


@FORMATS.register("hf_convnext")
def hf_convnext(source: Source, net: nn.Module) -> Foreign | None:
    """Read ConvNeXt or ConvNeXt V2."""
    tower, prefix = _tower(source, "embeddings.patch_embeddings.weight",
                           "encoder.stages.0.layers.0.dwconv.weight")  # fmt: skip
    if tower is None:
        return None
    tensors = _renamed(tower, CONVNEXT)
    flat = {k: v.flatten() if ".grn." in k else v for k, v in tensors.items()}
    return _foreign(source, net, Read(prefix, flat, []))


def _tower(source: Source, *anchors: str) -> tuple[dict[str, Tensor] | None, str]:
    prefix = prefix_of(source.tensors, anchors, source.path)
    return (None, "") if prefix is None else (under(source.tensors, prefix), prefix)


def _renamed(tower: Mapping[str, Tensor], renames: Renames) -> dict[str, Tensor]:
    result = {}
    for key, value in tower.items():
        for old, new in renames:
            key = re.sub(old, new, key)
        result[key] = value
    return result


def _foreign(source: Source, net: nn.Module, read: Read) -> Foreign:
    """Add the head under the net's name for it."""
    parent = read.prefix.removesuffix(".").rpartition(".")[0]
    layer = f"{parent}.classifier" if parent else "classifier"
    no_head = read.no_head
    if not no_head and any(isinstance(module, NormalizedLinear) for module in net.modules()):
        no_head = f"its head sees features of any length, {WANTS} {{normalize: false}}"
    head = {part: source.tensors.get(f"{layer}.{part}") for part in ("weight", "bias")}
    place = (getattr(net, "pretrained_cfg", None) or {}).get("classifier")
    tensors, notes = dict(read.tensors), [_activation_note(look_beside(source.path).config, net)]
    used = {key for key in source.tensors if key.startswith(read.prefix)}
    used -= {f"{read.prefix}{key}" for key in read.lost}
    if head["weight"] is not None and no_head:
        notes.append(f"{no_head}: left out")
    elif head["weight"] is not None and isinstance(place, str):
        used |= {f"{layer}.{part}" for part in head}
        tensors |= {f"{place}.{part}": v for part, v in head.items() if v is not None}
    return Foreign(
        tensors,
        sorted(set(source.tensors) - used),
        note="; ".join(filter(None, notes)),
        idle=frozenset(f"{read.prefix}{key}" for key in read.lost),
    )


def _activation_note(config: Mapping[str, object], net: nn.Module) -> str:
    inner = config.get("vision_config")
    wanted = (inner if isinstance(inner, dict) else config).get("hidden_act")
    kind, name = ACTIVATIONS.get(str(wanted), ("", ""))
    if not kind or any(type(module).__name__ == kind for module in net.modules()):
        return ""
    return (
        f"it was trained with the activation {wanted}, this backbone has another and its features "
        f"will differ a little: backbone.kwargs: {{act_layer: {name}}}"
    )
