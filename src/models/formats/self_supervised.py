"""Vision transformers as self-supervised training saves them: FSFM, MAE, DINO to v3, EVA-02."""

import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from src.errors import UserError
from src.models.formats import (
    FORMATS,
    Foreign,
    Triple,
    WeightsFile,
    logit_of_two,
    prefix_of,
    renamed,
    split,
    under,
)

FSFM_SIDECAR = "pretrain_ds_mean_std.txt"
# Of VGGFace2, on which the published files were pretrained.
VGGFACE2 = (
    (0.5482207536697388, 0.42340534925460815, 0.3654651641845703),
    (0.2789176106452942, 0.2438540756702423, 0.23493893444538116),
)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FSFM_PRETRAINING = ("mask_token", "decoder_", "rep_decoder_", "projector.", "predictor.")
MAE_PRETRAINING = ("mask_token", "decoder_")
DINO_HEADS = ("head.", "dino_head.", "ibot_head.")
DINOV2 = ((r"\.mlp\.w12\.", ".mlp.fc1."), (r"\.mlp\.w3\.", ".mlp.fc2."))
DINOV3 = ((r"\.ls([12])\.gamma$", r".gamma_\1"), ("storage_tokens", "reg_token"))

EVA02 = (
    (r"\.mlp\.ffn_ln\.", ".mlp.norm."),
    (r"\.attn\.inner_attn_ln\.", ".attn.norm."),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w1\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)


@FORMATS.register("fsfm")
def fsfm(source: WeightsFile, net: nn.Module) -> Foreign | None:  # noqa: ARG001 - a format's signature
    """Read FSFM's files, pretrained or fine-tuned (Wang et al., CVPR 2025, "FSFM").

    A pretraining file is a masked autoencoder with a second decoder, a projector and a predictor.
    A fine-tuned one is known by its arguments or by the file of mean and std beside it; its two
    classes are folders in the order of the alphabet, so 0 is FAKE and 1 is REAL.
    """
    keys = source.tensors
    pretraining = _has(keys, "rep_decoder_")
    if "patch_embed.proj.weight" not in keys or ("decoder_pos_embed" in keys and not pretraining):
        return None
    args = source.wrapper.get("args")
    arguments = vars(args) if isinstance(args, Namespace) else {}
    beside = source.path.parent / FSFM_SIDECAR
    tuned = "normalize_from_IMN" in arguments or ("model" in source.wrapper and beside.is_file())
    if not pretraining and not tuned:
        return None
    mean, std = _fsfm_scale(beside, arguments)
    tensors, dropped = split(keys, lambda key: key.startswith(FSFM_PRETRAINING))
    logit = logit_of_two(tensors, "head", fake=0)
    if not logit:
        return Foreign(tensors, dropped, mean=mean, std=std)
    if arguments.get("train_split"):
        note = "its classes were numbered by a list of files, in an order not known: a new head"
        return Foreign(tensors, dropped, mean=mean, std=std, note=note)
    tensors = {k: v for k, v in tensors.items() if k not in ("head.weight", "head.bias")}
    return Foreign(tensors, dropped, logit, mean, std, fake=0)


def _has(keys: Mapping[str, Tensor], start: str | tuple[str, ...]) -> bool:
    return any(key.startswith(start) for key in keys)


def _fsfm_scale(beside: Path, arguments: dict[str, Any]) -> tuple[Triple, Triple]:
    """Return mean and std: ImageNet's if the run asked for it, else the file's or VGGFace2's."""
    if arguments.get("normalize_from_IMN"):
        return IMAGENET
    if not beside.is_file():
        return VGGFACE2
    try:
        # Each run appends a line; the training script reads the first.
        content = json.loads(beside.read_text(encoding="utf-8").splitlines()[0])
        mean, std = (tuple(float(v) for v in content[key]) for key in ("mean", "std"))
        if len(mean) != 3 or len(std) != 3 or not all(0 < v < 1 for v in (*mean, *std)):
            raise ValueError("want three numbers between 0 and 1 each")
    except (ValueError, KeyError, IndexError, TypeError, OSError) as error:
        raise UserError(
            f'{beside}: want a first line like {{"mean": [r, g, b], "std": [r, g, b]}}: {error}'
        ) from error
    return mean, std


@FORMATS.register("mae")
def mae(source: WeightsFile, net: nn.Module) -> Foreign | None:  # noqa: ARG001 - a format's signature
    """Read a masked autoencoder with its decoder (He et al., CVPR 2022)."""
    decoder = {"decoder_embed.weight", "decoder_pos_embed", "mask_token"} <= set(source.tensors)
    if not decoder or _has(source.tensors, "rep_decoder_"):
        return None
    return Foreign(*split(source.tensors, lambda key: key.startswith(MAE_PRETRAINING)))


@FORMATS.register("dino")
def dino(source: WeightsFile, net: nn.Module) -> Foreign | None:
    """Read a training file of DINO (Caron et al., ICCV 2021) or DINOv2: the teacher's backbone."""
    heads = _has(source.tensors, DINO_HEADS)
    if "teacher" not in source.wrapper or not (heads or "student" in source.wrapper):
        return None
    wanted, dropped = split(source.tensors, lambda key: not key.startswith("backbone."))
    inner = WeightsFile(source.path, {k.removeprefix("backbone."): v for k, v in wanted.items()})
    if not inner.tensors:
        return None
    second = dinov2(inner, net)
    if second is None:
        return Foreign(inner.tensors, dropped)
    dropped += [f"backbone.{key}" for key in second.dropped]
    return Foreign(second.tensors, sorted(dropped))


@FORMATS.register("dinov2")
def dinov2(source: WeightsFile, net: nn.Module) -> Foreign | None:  # noqa: ARG001 - a format's signature
    """Read a published DINOv2 (Oquab et al. 2023), with registers or without.

    Timm keeps the class token's position embedding within the class token where there are
    registers, and calls the gated layers of the largest net fc1 and fc2.
    """
    if not {"mask_token", "blocks.0.ls1.gamma", "pos_embed"} <= set(source.tensors):
        return None
    tensors, dropped = split(source.tensors, lambda key: key == "mask_token")
    tensors = renamed(tensors, DINOV2)
    if "register_tokens" in tensors:
        tensors["reg_token"] = tensors.pop("register_tokens")
        tensors["cls_token"] = tensors["cls_token"] + tensors["pos_embed"][:, 0]
        tensors["pos_embed"] = tensors["pos_embed"][:, 1:]
    return Foreign(tensors, dropped)


@FORMATS.register("dinov3")
def dinov3(source: WeightsFile, net: nn.Module) -> Foreign | None:
    """Read a published DINOv3 (Simeoni et al. 2025), by timm's own rules.

    Its key biases are masked to zero and its rotary embeddings are computed, so neither has a
    place; query and value biases are kept where the net has them (`..._dinov3_qkvb`).
    """
    keys = source.tensors
    if not {"storage_tokens", "blocks.0.ls1.gamma", "blocks.0.attn.qkv.weight"} <= set(keys):
        return None
    biases = any(name.endswith("attn.q_bias") for name, _ in net.named_parameters())
    unwanted = (".periods", ".bias_mask", "mask_token", *(() if biases else ("qkv.bias",)))
    tensors, dropped = split(keys, lambda k: k.endswith(unwanted) or k.startswith("local_cls_norm"))
    tensors = renamed(tensors, DINOV3)
    for key in [key for key in tensors if key.endswith("qkv.bias")]:
        queries, _, values = tensors.pop(key).chunk(3)
        tensors[key.replace("qkv.bias", "q_bias")] = queries
        tensors[key.replace("qkv.bias", "v_bias")] = values
    return Foreign(tensors, dropped)


@FORMATS.register("eva02")
def eva02(source: WeightsFile, net: nn.Module) -> Foreign | None:
    """Read EVA-02 (Fang et al. 2023) as its authors publish it, pretrained or fine-tuned.

    Pretraining predicts CLIP's features of every patch, behind the last norm: where the net has a
    norm behind the mean of the patches instead, it starts from that one, as timm's own copies do.
    """
    for gate in ("w1", "w12"):
        anchors = ("patch_embed.proj.weight", "blocks.0.attn.q_bias", f"blocks.0.mlp.{gate}.weight")
        prefix = prefix_of(source.tensors, anchors, source.path)
        if prefix is not None:
            break
    else:
        return None
    tower = under(source.tensors, prefix)
    unwanted = ("mask_token", "lm_head.weight", "lm_head.bias")
    kept, lost = split(tower, lambda key: key in unwanted or "rope." in key)
    tensors = renamed(kept, EVA02)
    if "blocks.0.attn.q_proj.weight" in tensors:
        tensors = renamed(tensors, ((r"\.attn\.([qv])_bias$", r".attn.\1_proj.bias"),))
    if "lm_head.weight" in tower and "fc_norm.weight" in net.state_dict():
        tensors = renamed(tensors, ((r"^norm\.", "fc_norm."),))
    dropped = {f"{prefix}{key}" for key in lost}
    dropped |= {key for key in source.tensors if not key.startswith(prefix)}
    return Foreign(tensors, sorted(dropped))
