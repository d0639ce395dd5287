"""Published formats of weights: each is one registered function that knows its own files.

Every module of this folder is imported, so that a new format is one new file.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.registry import Registry, import_all

Triple = tuple[float, float, float]
Renames = Sequence[tuple[str, str]]  # (pattern, what stands in its place), applied in order
# A BatchNorm counter that older checkpoints lack; it decides nothing at inference.
IGNORABLE = ("num_batches_tracked",)


@dataclass(frozen=True)
class WeightsFile:
    """A weights file as it was found."""

    path: Path  # of the file, named in messages; some formats keep a second file beside it
    # the state dict, without wrappers and without prefixes that all keys share
    tensors: dict[str, Tensor]
    # what a training script saved around it (`epoch`, `args`), or the metadata of a `.safetensors`
    # file
    wrapper: Mapping[str, Any] = field(default_factory=dict)
    joined: int = 0  # how many weights were put together from parts (`src/wrappers.py`)


@dataclass(frozen=True)
class Target:
    """The net that weights are meant for."""

    net: nn.Module  # of one output, in timm's names
    head: tuple[str, ...]  # names of its classifier layers

    @cached_property
    def own(self) -> dict[str, Tensor]:
        """The net's state dict."""
        return self.net.state_dict()

    @cached_property
    def place(self) -> str:
        """The classifier layer that a head goes into; empty where the net names none."""
        return self.head[0] if self.head else ""

    def in_head(self, key: str) -> bool:
        """Tell whether a key is one of the classifier layers'."""
        return key.startswith(tuple(f"{layer}." for layer in self.head))

    @cached_property
    def body(self) -> list[str]:
        """Keys of the net that weights must have: without its head and what decides nothing."""
        return [k for k in self.own if not self.in_head(k) and not k.endswith(IGNORABLE)]


@dataclass(frozen=True)
class Foreign:
    """A state dict in the key space of timm."""

    tensors: dict[str, Tensor]  # the backbone's, perhaps with a head that came with it
    # keys of the file that are no part of an image classifier (decoders, text towers)
    dropped: list[str] = field(default_factory=list)
    # `weight` (1, d) and `bias` (1,) of a head that was turned into one logit, fake > 0
    logit: dict[str, Tensor] = field(default_factory=dict)
    # of the pixels that the weights were trained on, 0..1 scale, where it is known
    mean: Triple | None = None
    std: Triple | None = None
    note: str = ""  # what a user should know, one line
    # class of the file's head that means fake, where it is known; of one output, 1 where positive
    # means fake
    fake: int | None = None
    labels: tuple[str, ...] = ()  # names of the head's classes in the order of their numbers
    interpolation: str = ""  # by which pixels are enlarged, where it is known
    idle: frozenset[str] = frozenset()  # of `dropped`, what has no say in what the head sees
    fresh: tuple[str, ...] = ()  # prefixes of keys of the net that such files lack

    def __post_init__(self) -> None:
        """Raise ValueError for a logit without the class that it was made for."""
        if self.logit and self.fake is None:
            raise ValueError("a head that became one logit wants `fake`, the class that means fake")


Format = Callable[[WeightsFile, nn.Module], Foreign | None]
FORMATS: Registry[Format] = Registry("weights format")


def notes(*texts: str) -> str:
    """Join what is to be said into one line."""
    return "; ".join(filter(None, texts))


def classifier_of(net: nn.Module) -> str:
    """Return the name of a net's classifier as timm has it; empty where it is not one layer."""
    name = (getattr(net, "pretrained_cfg", None) or {}).get("classifier")
    return name if isinstance(name, str) else ""


def tower_of(net: nn.Module) -> nn.Module | None:
    """Return the CLIP tower of a net that has one as its part `tower`; None of every other net."""
    tower = getattr(net, "tower", None)
    return tower if isinstance(tower, nn.Module) else None


def prefix_of(tensors: Mapping[str, Tensor], anchors: Sequence[str], path: Path) -> str | None:
    """Return the prefix under which all anchor keys are found; None where there is none.

    Of several, one that ends in `visual.` wins, then one whose tensors the others only repeat (a
    module that is registered twice); else a UserError says that there is no way to choose.
    """
    first = anchors[0]
    ends = (key.removesuffix(first) for key in tensors if f".{key}".endswith(f".{first}"))
    found = sorted(
        (prefix for prefix in ends if all(prefix + anchor in tensors for anchor in anchors)),
        key=lambda p: (not f".{p}".endswith(".visual."), len(p), p),
    )
    if not found:
        return None
    if not f".{found[0]}".endswith(".visual."):
        chosen = under(tensors, found[0])
        for prefix in found[1:]:
            other = under(tensors, prefix)
            if not all(k in other and torch.equal(v, other[k]) for k, v in chosen.items()):
                raise UserError(
                    f"{path}: holds several backbones, under {found[0]!r} and {prefix!r}; save the "
                    "one you mean in a file of its own"
                )
    return found[0]


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose keys begin with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def split(
    tensors: Mapping[str, Tensor], unwanted: Callable[[str], bool]
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors to keep, and the sorted keys of the others."""
    kept = {key: value for key, value in tensors.items() if not unwanted(key)}
    return kept, sorted(set(tensors) - set(kept))


def new_name(key: str, renames: Renames) -> str:
    """Return a key under timm's name, by a format's table."""
    for old, new in renames:
        key = re.sub(old, new, key)
    return key


def renamed(tensors: Mapping[str, Tensor], renames: Renames) -> dict[str, Tensor]:
    """Return tensors under timm's names, by a format's table."""
    return {new_name(key, renames): value for key, value in tensors.items()}


def fused(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Put the separate projections of queries, keys and values one above the other, as timm.

    Raises:
        UserError: one of three is not there.
    """
    result: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        found = re.fullmatch(r"(.*\.attn\.)([qkv])_proj\.(weight|bias)", key)
        if found:
            parts.setdefault(f"{found[1]}qkv.{found[3]}", {})[found[2]] = value
        else:
            result[key] = value
    for key, have in parts.items():
        if set(have) != set("qkv"):
            lost = ", ".join(sorted(set("qkv") - set(have)))
            raise UserError(f"{path}: {key} lacks its {lost} projection; truncated?")
        result[key] = torch.cat([have[letter] for letter in "qkv"])
    return result


def split_attention(tensors: dict[str, Tensor], layer: str, joint: str) -> dict[str, Tensor]:
    """Part an attention pooling's projections as timm does: `q` of the query, `kv` of the tokens.

    Args:
        tensors: some under `layer.joint`, or none.
        layer: the pooling's name, ends in a dot.
        joint: how the weight and the bias of all three begin.
    """
    found = dict(tensors)
    for part in ("weight", "bias"):
        all_three = found.pop(f"{layer}{joint}{part}", None)
        if all_three is not None:
            queries, keys, values = all_three.chunk(3)
            found[f"{layer}q.{part}"] = queries
            found[f"{layer}kv.{part}"] = torch.cat([keys, values])
    return found


def one_logit(weight: Tensor, bias: Tensor | None, fake: int) -> dict[str, Tensor]:
    """Turn a linear head of one or two outputs into one logit, fake > 0.

    softmax(z)[fake] = sigmoid(z[fake] - z[real]), so the difference of the rows says the same.

    Args:
        weight: float (2, d), or (1, d).
        bias: float (2,) or (1,), or None.
        fake: row of the class "fake"; of one output, 1 where positive means fake, else 0.

    Returns:
        `weight` (1, d) and `bias` (1,), float32.
    """
    weight = weight.float()
    bias = weight.new_zeros(len(weight)) if bias is None else bias.float()
    if len(weight) == 1:
        sign = 1 if fake else -1
        return {"weight": sign * weight, "bias": sign * bias}
    row, other = slice(fake, fake + 1), slice(1 - fake, 2 - fake)
    return {"weight": weight[row] - weight[other], "bias": bias[row] - bias[other]}


def logit_of_two(tensors: Mapping[str, Tensor], layer: str, fake: int) -> dict[str, Tensor]:
    """Return `one_logit` of a head of two classes; empty where a layer is no such head."""
    weight = tensors.get(f"{layer}.weight")
    if weight is None or len(weight) != 2:
        return {}
    return one_logit(weight, tensors.get(f"{layer}.bias"), fake)


import_all(__name__)
