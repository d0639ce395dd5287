"""What a weights file holds, what a format makes of it, and the formats by name."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.registry import Registry

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Source:
    """A weights file as it was found."""

    path: Path  # of the file, named in messages; some formats keep a second file beside it
    # the state dict, without wrappers and without prefixes that all keys share
    tensors: dict[str, Tensor]
    # what a training script saved around it (`epoch`, `args`), or the metadata of a `.safetensors`
    # file
    wrapper: Mapping[str, Any] = field(default_factory=dict)
    joined: int = 0  # how many weights were put together from parts (`src/wrappers.py`)


@dataclass(frozen=True)
class Foreign:
    """A state dict in the key space of timm.

    Attributes:
        tensors: the backbone's, perhaps with a head that came with it.
        dropped: keys of the file that are no part of an image classifier (decoders, text towers).
        logit: `weight` (1, d) and `bias` (1,) of a head that was turned into one logit, fake > 0.
        mean, std: of the pixels that the weights were trained on, 0..1 scale, where it is known.
        note: what a user should know, one line.
        fake: class of the file's head that means fake, where it is known; of one output, 1 where
            positive means fake.
        labels: names of the head's classes in the order of their numbers, where the file has them.
        interpolation: by which pixels are enlarged, where it is known.
        idle: those of `dropped` that have no say in what the file's own head sees.
    """

    tensors: dict[str, Tensor]
    dropped: list[str] = field(default_factory=list)
    logit: dict[str, Tensor] = field(default_factory=dict)
    mean: Triple | None = None
    std: Triple | None = None
    note: str = ""
    fake: int | None = None
    labels: tuple[str, ...] = ()
    interpolation: str = ""
    idle: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Raise ValueError for a logit without the class that it was made for."""
        if self.logit and self.fake is None:
            raise ValueError("a head that became one logit wants `fake`, the class that means fake")


Format = Callable[[Source, nn.Module], Foreign | None]
FORMATS: Registry[Format] = Registry("weights format")


def prefix_of(tensors: Mapping[str, Tensor], anchors: Sequence[str], path: Path) -> str | None:
    """Return the prefix under which all anchor keys are found; None where there is none.

    Of several, one that ends in `visual.` wins, then one whose tensors the others only repeat (a
    module that is registered twice).

    Raises:
        UserError: several different towers, and no way to choose.
    """
    first = anchors[0]
    found = sorted(
        (p for p in (key.removesuffix(first) for key in tensors if _ends(key, first))
         if all(p + anchor in tensors for anchor in anchors)),
        key=lambda p: (not f".{p}".endswith(".visual."), len(p), p),
    )  # fmt: skip
    if not found:
        return None
    chosen = found[0]
    if len(found) > 1 and not f".{chosen}".endswith(".visual."):
        for other in found[1:]:
            if not _same(tensors, chosen, other):
                raise UserError(
                    f"{path}: holds several backbones, under {chosen!r} and {other!r}; save the "
                    "one you mean in a file of its own"
                )
    return chosen


def _ends(key: str, anchor: str) -> bool:
    return key == anchor or key.endswith(f".{anchor}")


def _same(tensors: Mapping[str, Tensor], one: str, other: str) -> bool:
    first, second = under(tensors, one), under(tensors, other)
    return all(key in second and torch.equal(first[key], second[key]) for key in first)


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose keys begin with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def split(
    tensors: Mapping[str, Tensor], unwanted: Callable[[str], bool]
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors to keep, and the sorted keys of the others."""
    kept = {key: value for key, value in tensors.items() if not unwanted(key)}
    return kept, sorted(set(tensors) - set(kept))


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


def one_logit(weight: Tensor, bias: Tensor | None, fake: int) -> dict[str, Tensor]:
    """Turn a two-class linear head into one logit.

    softmax(z)[fake] = sigmoid(z[fake] - z[real]), so the difference of the rows says the same.

    Args:
        weight: float (2, d).
        bias: float (2,), or None.
        fake: row of the class "fake".

    Returns:
        `weight` (1, d) and `bias` (1,), float32.
    """
    weight = weight.float()
    bias = weight.new_zeros(2) if bias is None else bias.float()
    row = slice(fake, fake + 1)
    other = slice(1 - fake, 2 - fake)
    return {"weight": weight[row] - weight[other], "bias": bias[row] - bias[other]}
