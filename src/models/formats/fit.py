"""A state dict in timm's key space into one particular net: towers, sizes, pooling, the head."""

import contextlib
import io
import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.models.formats.base import Foreign, Source, prefix_of, under

# A BatchNorm counter that older checkpoints lack; it decides nothing at inference.
IGNORABLE = ("num_batches_tracked",)


def in_head(key: str, head: tuple[str, ...]) -> bool:
    """Whether a key is one of the classifier layers'."""
    return key.startswith(tuple(f"{layer}." for layer in head))


def fits(net: nn.Module, tensors: Mapping[str, Tensor], head: tuple[str, ...]) -> bool:
    """Whether all tensors of the net's backbone are there, in the right shapes."""
    return all(
        key in tensors and tensors[key].shape == own.shape
        for key, own in net.state_dict().items()
        if not in_head(key, head) and not key.endswith(IGNORABLE)
    )


def plain(source: Source, net: nn.Module, head: tuple[str, ...]) -> Foreign:
    """Read what no format claims: timm's own names, perhaps under a prefix, perhaps older ones.

    Raises:
        UserError: several backbones, and no way to choose.
    """
    if fits(net, source.tensors, head):
        return Foreign(dict(source.tensors))
    optional = (*IGNORABLE, "fc_norm.weight", "fc_norm.bias")
    keys = [k for k in net.state_dict() if not in_head(k, head) and not k.endswith(optional)]
    prefix = prefix_of(source.tensors, keys, source.path) if keys else None
    if prefix:
        dropped = sorted(key for key in source.tensors if not key.startswith(prefix))
        return Foreign(under(source.tensors, prefix), dropped)
    converted = _by_timm(source.tensors, net)
    # timm's rules also rename some keys of files that are something else; those are shown as found.
    return Foreign(converted if fits(net, _adapted(net, converted), head) else dict(source.tensors))


def _by_timm(tensors: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """Convert with what timm keeps for the net's family (older names, other sizes)."""
    rules = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    patch, own = (t.get("patch_embed.proj.weight") for t in (tensors, net.state_dict()))
    # timm would make patches of 16 px out of patches of 32, which is another net.
    other_patch = patch is not None and own is not None and patch.shape != own.shape
    if rules is None or other_patch or "mask_token" in tensors:
        return tensors
    # Some of them print, and warn of their own ways with torch.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = rules(dict(tensors), net)
        except Exception:  # noqa: BLE001 - rules meet files that they were not made for
            return tensors
    return found if isinstance(found, dict) else tensors


def _adapted(net: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    own = net.state_dict()
    have = {key: value for key, value in tensors.items() if key in own}
    return have | {key: own[key] for key in own if key.startswith("fc_norm.") and key not in have}


def adapt(
    foreign: Foreign, net: nn.Module, head: tuple[str, ...], path: Path
) -> tuple[Foreign, tuple[str, ...]]:
    """Fit position embeddings, pooling and head to a net.

    Args:
        foreign: what was read.
        net: unchanged here.
        head: names of its classifier layers.
        path: named in messages.

    Returns:
        The same with tensors of the net's sizes, and prefixes of the backbone's keys that may be
        missing, for the net's pooling needs a layer that the weights were not trained with.

    Raises:
        UserError: position embeddings that are no square grid.
    """
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in foreign.tensors.items()}
    own = net.state_dict()
    grid = tensors.get("pos_embed")
    if grid is not None and "pos_embed" in own and grid.shape != own["pos_embed"].shape:
        tensors["pos_embed"] = _resized(grid, own["pos_embed"], net, path)
    dropped, logit, fresh, note = list(foreign.dropped), foreign.logit, (), foreign.note
    fake = foreign.fake
    if _pools_otherwise(tensors, own):
        # A norm that was trained on one token is no start for one on the mean of all.
        dropped += [key for key in tensors if key.startswith("norm.")]
        tensors = {key: value for key, value in tensors.items() if not key.startswith("norm.")}
        fresh = ("fc_norm.",)
        if logit:
            why = "its head was trained on the class token, this net pools: a new head"
            logit, note, fake = {}, "; ".join(filter(None, (note, why))), None
    for part, value in logit.items():
        key = f"{head[0]}.{part}" if head else ""
        if key in own and own[key].shape == value.shape:
            tensors[key] = value
    found = replace(foreign, tensors=tensors, dropped=sorted(dropped), logit=logit, note=note)
    return replace(found, fake=fake), fresh


def _pools_otherwise(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    pooled = "fc_norm.weight" in own and "norm.weight" not in own
    return pooled and "norm.weight" in tensors and "fc_norm.weight" not in tensors


def _resized(grid: Tensor, own: Tensor, net: nn.Module, path: Path) -> Tensor:
    """Resample position embeddings (1, tokens, width), the prefix tokens' as they are."""
    if grid.dim() != 3 or grid.shape[-1] != own.shape[-1]:
        return grid  # of another width, refused with the rest of it
    prefix = 0 if getattr(net, "no_embed_class", False) else getattr(net, "num_prefix_tokens", 1)
    tokens = grid.shape[1] - prefix
    side = round(max(tokens, 0) ** 0.5)
    new_size = getattr(getattr(net, "patch_embed", None), "grid_size", None)
    if side * side != tokens or tokens < 1 or new_size is None:
        raise UserError(
            f"{path}: {grid.shape[1]} position embeddings are not {prefix} and a square grid; this "
            f"backbone has {own.shape[1]}{_registers(net, grid.shape[1], prefix)}"
        )
    from timm.layers.pos_embed import resample_abs_pos_embed

    with torch.no_grad():
        return resample_abs_pos_embed(grid, list(new_size), num_prefix_tokens=prefix)


def _registers(net: nn.Module, count: int, prefix: int) -> str:
    """Name the net with or without registers, where it is these that the file and a net differ in.

    Where there are registers, the class token has no position of its own.
    """
    name = str((getattr(net, "pretrained_cfg", None) or {}).get("architecture", ""))
    if prefix == 0:
        what, other = "no registers", re.sub(r"_reg\d+", "", name)
    else:
        what, other = "registers", name.replace("_dinov2", "_reg4_dinov2")
    tokens = count if prefix else count - 1
    if other in ("", name) or round(tokens**0.5) ** 2 != tokens:
        return ""
    return f"; the file's net has {what}: --model timm:{other}"


def look(tensors: Mapping[str, Tensor]) -> str:
    """Say in a few words what a state dict looks like."""
    patch = tensors.get("patch_embed.proj.weight")
    if patch is not None and patch.dim() == 4 and "blocks.0.norm1.weight" in tensors:
        blocks = {m[1] for key in tensors if (m := re.match(r"blocks\.(\d+)\.", key))}
        return (
            f"a vision transformer of width {patch.shape[0]}, patch {patch.shape[-1]}, "
            f"{len(blocks)} blocks"
        )
    shown = sorted(key for key in tensors if not key.endswith(IGNORABLE))[:3]
    return f"{len(tensors)} tensors such as {shown}"
