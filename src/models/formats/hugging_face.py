"""Image classifiers of transformers: ViT, DINOv2 and v3, SigLIP, Swin, ConvNeXt and their V2s.

Names are those of published files and those that transformers 5 gives its nets in memory, which a
file of `torch.save(model.state_dict())` has. `config.json` beside a file names its classes.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from src.models.formats import (
    FORMATS,
    Foreign,
    Renames,
    WeightsFile,
    classifier_of,
    fused,
    notes,
    prefix_of,
    renamed,
    split,
    split_attention,
    under,
)
from src.models.formats.beside import look_beside
from src.models.formats.self_supervised import dinov2, dinov3
from src.models.heads import ClsAvgPool, NormalizedLinear

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
    (r"^head\.(?:attention\.)?", "attn_pool."),
    (r"^attn_pool\.layernorm\.", "attn_pool.norm."),
)
# What no net of timm keeps.
COMPUTED = r"^pooler\.|^embeddings\.position_ids$|(relative_position_index|relative_coords_table)$"
WANTS = "which wants in the model's config head:"
# Where transformers' names of activations differ from timm's.
TANH = ("GELUTanh", "gelu_tanh")
ACTIVATIONS = {
    **{"gelu_pytorch_tanh": TANH, "gelu_new": TANH},
    "quick_gelu": ("QuickGELU", "quick_gelu"),
}


@dataclass(frozen=True)
class Tower:
    """A tower in timm's names, and what goes with it."""

    tensors: dict[str, Tensor]
    # beginnings of the file's keys that have no place in timm's net, and no say in its head's input
    idle: tuple[str, ...] = ()
    no_head: str = ""  # why the file's head does not fit a net of timm; empty where it does
    note: str = ""  # what a user should know


Reader = Callable[[WeightsFile, nn.Module], Tower | None]


def family(name: str, renames: Renames, *anchors: str) -> Callable[[Reader], Reader]:
    """Register what reads a tower with these keys as a format, with the head beside it.

    The function gets the tower under timm's names, and the net that it is meant for.
    """

    def register(reader: Reader) -> Reader:
        @FORMATS.register(name)
        def read(source: WeightsFile, net: nn.Module) -> Foreign | None:
            prefix = prefix_of(source.tensors, anchors, source.path)
            if prefix is None:
                return None
            whole = under(source.tensors, prefix)
            kept, lost = split(whole, lambda key: re.search(COMPUTED, key) is not None)
            tower = reader(WeightsFile(source.path, renamed(kept, renames)), net)
            if tower is None:
                return None
            lost += [key for key in kept if key.startswith(tower.idle)]
            return _with_head(source, net, prefix, tower, {f"{prefix}{key}" for key in lost})

        return reader

    return register


@family(
    *("hf_vit", VIT, "embeddings.cls_token", "embeddings.position_embeddings"),
    "embeddings.patch_embeddings.projection.weight",
)
def hf_vit(source: WeightsFile, net: nn.Module) -> Tower:
    """Read ViT (also ViTMAE's encoder) or DINOv2, with registers or without."""
    tensors, idle = fused(source.tensors, source.path), ("embeddings.mask_token",)
    pool = getattr(net, "attn_pool", None)
    if "blocks.0.ls1.gamma" not in tensors:
        on_token = (getattr(net, "global_pool", "token"), pool) == ("token", None)
        fits = on_token or any(key.startswith("fc_norm.") for key in net.state_dict())
        why = "" if fits else f"its head sees the class token, {WANTS} {{pool: cls}}"
        return Tower(tensors, idle, why)
    tensors.setdefault("mask_token", torch.zeros(1))
    read = dinov2(WeightsFile(source.path, tensors), net)
    why = (
        "its head sees the class token and the mean of the patches side by side, "
        f"{WANTS} {{pool: cls_avg}}"
    )
    fits = isinstance(pool, ClsAvgPool)
    return Tower(tensors if read is None else read.tensors, idle, "" if fits else why)


@family(
    *("hf_dinov3", VIT, "embeddings.register_tokens", "embeddings.mask_token"),
    "embeddings.patch_embeddings.weight",
)
def hf_dinov3(source: WeightsFile, net: nn.Module) -> Tower | None:
    """Read DINOv3's ViT, whose keys have no bias."""
    tensors = dict(source.tensors)
    for key in [key for key in tensors if key.endswith(".attn.q_proj.bias")]:
        k_bias = key.replace("q_proj", "k_proj")
        tensors.setdefault(k_bias, torch.zeros_like(tensors[key]))
    tensors = fused(tensors, source.path)
    tensors["storage_tokens"] = tensors.pop("register_tokens")
    read = dinov3(WeightsFile(source.path, tensors), net)
    if read is None:
        return None
    biased = any(key.endswith("qkv.bias") and bool(tensors[key].any()) for key in read.dropped)
    note = "its query and value biases have no place in this backbone: vit_*_dinov3_qkvb has them"
    return Tower(read.tensors, ("embeddings.mask_token",), note=note if biased else "")


@family(
    *("hf_siglip", SIGLIP, "embeddings.patch_embedding.weight", "post_layernorm.weight"),
    "embeddings.position_embedding.weight",
)
def hf_siglip(source: WeightsFile, net: nn.Module) -> Tower | None:
    """Read SigLIP's or SigLIP 2's image tower, of fixed size or NaFlex.

    The classifiers that transformers makes of it see the mean of all tokens, as timm's
    `vit_*_siglip_gap_*` do; the attention pooling beside it is then of no account.
    """
    if "pre_layrnorm.weight" in source.tensors:  # CLIP's
        return None
    tensors = fused(source.tensors, source.path)
    tensors["pos_embed"] = tensors["pos_embed"][None]
    patch = tensors["patch_embed.proj.weight"]
    if patch.ndim == 2:  # NaFlex: of pixels row by row, colours last
        side = round((patch.shape[1] / 3) ** 0.5)
        tensors["patch_embed.proj.weight"] = patch.reshape(-1, side, side, 3).permute(0, 3, 1, 2)
    if getattr(net, "attn_pool", None) is None:
        return Tower(
            {k: v for k, v in tensors.items() if not k.startswith("attn_pool.")}, ("head.",)
        )
    tensors = split_attention(tensors, "attn_pool.", "in_proj_")
    why = "its head sees the mean of all tokens, as vit_*_siglip_gap_* do"
    return Tower(tensors, no_head=why)


@family(
    *("hf_swin", SWIN, "embeddings.patch_embeddings.projection.weight", "embeddings.norm.weight"),
    "encoder.layers.0.blocks.0.layernorm_before.weight",
)
def hf_swin(source: WeightsFile, net: nn.Module) -> Tower:  # noqa: ARG001 - a reader's signature
    """Read Swin or Swin V2; what leads to a stage is counted with the stage before it there."""
    tensors = {
        re.sub(r"^layers\.(\d+)\.downsample", _next, key): value
        for key, value in source.tensors.items()
    }
    if "layers.0.blocks.0.attn.logit_scale" in tensors:  # V2, whose keys have no bias
        tensors = renamed(tensors, ((r"\.([qv])_proj\.bias$", r".\1_bias"),))
    return Tower(fused(tensors, source.path))


def _next(found: re.Match[str]) -> str:
    return f"layers.{int(found[1]) + 1}.downsample"


@family(
    *("hf_convnext", CONVNEXT, "embeddings.patch_embeddings.weight"),
    "encoder.stages.0.layers.0.dwconv.weight",
)
def hf_convnext(source: WeightsFile, net: nn.Module) -> Tower:  # noqa: ARG001 - a reader's signature
    """Read ConvNeXt or ConvNeXt V2."""
    return Tower({k: v.flatten() if ".grn." in k else v for k, v in source.tensors.items()})


def _with_head(
    source: WeightsFile, net: nn.Module, prefix: str, tower: Tower, idle: set[str]
) -> Foreign:
    """Add the head beside a tower under the net's name for it."""
    parent = prefix.removesuffix(".").rpartition(".")[0]
    layer = f"{parent}.classifier" if parent else "classifier"
    no_head = tower.no_head
    if not no_head and any(isinstance(module, NormalizedLinear) for module in net.modules()):
        no_head = f"its head sees features of any length, {WANTS} {{normalize: false}}"
    names = {f"{layer}.{part}": f"{classifier_of(net)}.{part}" for part in ("weight", "bias")}
    used = {key for key in source.tensors if key.startswith(prefix)} - idle
    tensors, left_out = dict(tower.tensors), ""
    if f"{layer}.weight" in source.tensors and no_head:
        left_out = f"{no_head}: left out"
    elif f"{layer}.weight" in source.tensors and classifier_of(net):
        used |= set(names)
        tensors |= {new: source.tensors[k] for k, new in names.items() if k in source.tensors}
    note = notes(_activation_note(look_beside(source.path).config, net), left_out, tower.note)
    return Foreign(tensors, sorted(set(source.tensors) - used), note=note, idle=frozenset(idle))


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
