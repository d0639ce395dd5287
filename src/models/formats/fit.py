"""The format of a weights file, and a state dict in timm's key space into one particular net."""

import contextlib
import io
import json
import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.models.formats import (
    FORMATS,
    IGNORABLE,
    Foreign,
    Target,
    WeightsFile,
    logit_of_two,
    notes,
    prefix_of,
    split,
    under,
)
from src.models.formats.beside import look_beside
from src.models.heads import PROJECTION, projection_of

PLAIN, OURS = "plain", "ours"


def recognise(source: WeightsFile, target: Target) -> tuple[str, Foreign]:
    """Return the format of a weights file (`plain` where none claims it), read in timm's key space.

    What its format does not say is taken from what lies beside the file (`look_beside`).

    Raises:
        UserError: several formats claim it, or the one that does finds it damaged.
    """
    read = {name: FORMATS.get(name)(source, target.net) for name in FORMATS}
    found = {name: one for name, one in read.items() if one is not None}
    found = found or {PLAIN: plain(source, target)}
    if len(found) > 1:
        raise UserError(f"{source.path}: may be {' or '.join(found)}; save the backbone alone")
    name, one = next(iter(found.items()))
    return name, one if name == OURS else _with_beside(one, source, target)


def _with_beside(read: Foreign, source: WeightsFile, target: Target) -> Foreign:
    """Add classes, mean, std and interpolation from beside a file; a head they name is turned."""
    beside = look_beside(source.path)
    tensors, logit, fake = dict(read.tensors), read.logit, read.fake
    if fake is None and beside.fake is not None:
        turned = logit_of_two(tensors, target.place, beside.fake)
        if turned:
            fake, logit = beside.fake, turned
            for part in turned:
                tensors.pop(f"{target.place}.{part}", None)
    return replace(
        read,
        tensors=tensors,
        logit=logit,
        fake=fake,
        labels=read.labels or beside.labels,
        mean=read.mean or beside.mean,
        std=read.std or beside.std,
        interpolation=read.interpolation or beside.interpolation,
        note=notes(beside.note, read.note),
    )


@FORMATS.register(OURS)
def ours(source: WeightsFile, net: nn.Module) -> Foreign | None:  # noqa: ARG001 - a format's signature
    """Read a checkpoint of train_folds.py: its head is one logit already, fake > 0.

    Raises:
        UserError: its metadata are damaged.
    """
    text = source.wrapper.get("rvf")
    if not isinstance(text, str):
        return None
    try:
        content = json.loads(text)["input"]
        mean, std = (tuple(float(v) for v in content[key]) for key in ("mean", "std"))
        size, geometry = int(content["image_size"]), str(content["geometry"])
        red, green, blue = mean
        r, g, b = std
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{source.path}: its metadata are damaged ({error})") from error
    note = f"trained at {size} px, {geometry}"
    return Foreign(dict(source.tensors), mean=(red, green, blue), std=(r, g, b), note=note, fake=1)


def fits(target: Target, tensors: Mapping[str, Tensor]) -> bool:
    """Tell whether all tensors of the net's backbone are there, in the right shapes."""
    own = target.own
    return all(k in tensors and tensors[k].shape == own[k].shape for k in target.body)


def plain(source: WeightsFile, target: Target) -> Foreign:
    """Read what no format claims: timm's own names, perhaps under a prefix, perhaps older ones.

    Raises:
        UserError: several backbones, and no way to choose.
    """
    if fits(target, source.tensors):
        return Foreign(dict(source.tensors))
    norms = ("fc_norm.weight", "fc_norm.bias")
    keys = [key for key in target.body if not key.endswith(norms)]
    prefix = prefix_of(source.tensors, keys, source.path) if keys else None
    if prefix:
        dropped = sorted(key for key in source.tensors if not key.startswith(prefix))
        return Foreign(under(source.tensors, prefix), dropped)
    converted = _by_timm(source.tensors, target.net)
    # A norm that only this net has does not tell whether the rest was converted rightly.
    own_norms = {k: v for k, v in target.own.items() if k.startswith("fc_norm.")}
    # timm's rules also rename some keys of files that are something else; those are shown as found.
    return Foreign(converted if fits(target, own_norms | converted) else dict(source.tensors))


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


def adapt(foreign: Foreign, target: Target, path: Path) -> tuple[Foreign, tuple[str, ...]]:
    """Fit position embeddings, pooling and head to a net, which is unchanged here.

    Returns:
        The same with tensors of the net's sizes, and prefixes of the backbone's keys that may be
        missing, for the net's pooling needs a layer that the weights were not trained with.

    Raises:
        UserError: position embeddings that are no square grid.
    """
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in foreign.tensors.items()}
    own = target.own
    grid = tensors.get("pos_embed")
    if grid is not None and "pos_embed" in own and grid.shape != own["pos_embed"].shape:
        tensors["pos_embed"] = _resized(grid, own["pos_embed"], target.net, path)
    found, fresh = replace(foreign, tensors=tensors), foreign.fresh
    if _pools_otherwise(tensors, own):
        found, fresh = _without_norm(found), (f"{PROJECTION}.",)
    elif projection_of(target.net) is not None and f"{PROJECTION}.weight" not in tensors:
        fresh = (f"{PROJECTION}.",)  # of weights that were trained without one
    placed = {f"{target.place}.{part}": value for part, value in found.logit.items()}
    if all(key in own and own[key].shape == value.shape for key, value in placed.items()):
        found.tensors.update(placed)
    else:
        why = "its head sees other features than this net's (head): a new head"
        found = replace(found, logit={}, note=notes(found.note, why), fake=None)
    return found, fresh


def _pools_otherwise(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    pooled = "fc_norm.weight" in own and "norm.weight" not in own
    return pooled and "norm.weight" in tensors and "fc_norm.weight" not in tensors


def _without_norm(found: Foreign) -> Foreign:
    """Leave out a norm that was trained on one token, no start for one on the mean of all."""
    tensors, norms = split(found.tensors, lambda key: key.startswith("norm."))
    found = replace(found, tensors=tensors, dropped=sorted([*found.dropped, *norms]))
    if not found.logit:
        return found
    why = "its head was trained on the class token, this net pools: a new head"
    return replace(found, logit={}, note=notes(found.note, why), fake=None)


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
