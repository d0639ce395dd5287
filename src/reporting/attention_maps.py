"""Attention maps as pictures and numbers: where a net looks, layer by layer, and beside a teacher.

A map is what the class token attends to among the patches, heads averaged; of a net without class
token the mean over all patches' queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from src.distillation import matched
from src.errors import UserError
from src.models.classifier import Classifier
from src.models.intermediates import (
    check_intermediates,
    patches_of,
    prefix_tokens,
    with_tokens,
)
from src.reporting.contact_sheets import Picture, SheetRow, draw_rows

AT_ONCE = 8  # images that a net looks at
SHARE = 0.6  # of the colours in a picture, the rest is what the net sees
KIND = "mean_attention"


@dataclass(frozen=True)
class AttentionMaps:
    """Where a net looks in some images."""

    name: str  # of the net
    maps: list[Tensor]  # a layer: float (n, t, t), heads averaged, or their rollout
    prefix: int  # first tokens that are no patches
    has_class: bool  # whether the first token is a class token

    def at(self, layer: int) -> Tensor:
        """Return the map of a layer (from 0), float (n, side, side)."""
        return patch_maps(self.maps[layer], self.prefix, has_class=self.has_class)


def patch_maps(maps: Tensor, prefix: int, *, has_class: bool) -> Tensor:
    """Return (n, side, side) of (n, t, t): what the class token, or the mean patch, attends to."""
    rows = maps[:, 0] if has_class else maps[:, prefix:].mean(1)
    side = patches_of(maps.shape[1], prefix)
    return rows[:, prefix:].reshape(-1, side, side)


def rollout(maps: Sequence[Tensor]) -> list[Tensor]:
    """Return attention to the input through all layers up to each, (n, t, t) a layer.

    Abnar & Zuidema, Quantifying Attention Flow in Transformers, ACL 2020, sec. 3: with A' = (A + I)
    / 2 for the residual connection, of rows that sum to 1, the product A'_l ... A'_1.
    """
    found: list[Tensor] = []
    for one in maps:
        own = one.double()
        own = own + torch.eye(own.shape[-1], dtype=own.dtype)
        own = own / own.sum(-1, keepdim=True)
        found.append(own @ found[-1] if found else own)
    return found


def look(
    model: Classifier, name: str, pictures: Sequence[Picture], *, rolled: bool
) -> AttentionMaps:
    """Return where a model looks in pictures, uint8 (s, s, 3) each, as its net takes them.

    Raises:
        UserError: the net has no self-attention over all tokens.
    """
    found: list[list[Tensor]] = []
    for start in range(0, len(pictures), AT_ONCE):
        pixels = torch.from_numpy(np.stack(pictures[start : start + AT_ONCE]))
        with torch.inference_mode():
            found.append(model({"pixels": pixels}, also=(KIND,))[KIND])
    maps = [torch.cat(parts).float() for parts in zip(*found, strict=True)]
    has_class = getattr(model.net, "cls_token", None) is not None
    maps = rollout(maps) if rolled else maps
    return AttentionMaps(name, maps, prefix_tokens(model.net), has_class)


def check_looks(model: Classifier, name: str) -> None:
    """Raise a UserError, by name, for a net without self-attention over all tokens."""
    check_intermediates(model.net, [KIND], model.spec.image_size, name)


def pairs_of(own: AttentionMaps, other: AttentionMaps) -> list[int]:
    """Return for each layer which of another net (from 0) stands at the same depth."""
    places = [torch.tensor(layer) for layer in range(len(other.maps))]
    return [int(place) for _, place in matched(own.maps, places)]


def agreement(own: AttentionMaps, other: AttentionMaps) -> NDArray[np.float64]:
    """Return how far a net's maps agree with another's, brought to its own tokens.

    Returns:
        (layers, 2, n): cosines, and cosines of what each map has above its mean (Pearson's
        correlation), which even maps do not flatter; 0 where one is even all over.
    """
    found = []
    count = own.maps[0].shape[1]
    for layer, place in enumerate(pairs_of(own, other)):
        given = with_tokens(other.maps[place], other.prefix, count, own.prefix)
        has_class = own.has_class and other.has_class
        theirs = patch_maps(given, own.prefix, has_class=has_class)
        mine = patch_maps(own.maps[layer], own.prefix, has_class=has_class)
        pair = mine.flatten(1).double(), theirs.flatten(1).double()
        above = [one - one.mean(1, keepdim=True) for one in pair]
        both = [functional.cosine_similarity(a, b, dim=1) for a, b in (pair, above)]
        found.append(torch.stack(both).numpy())
    return np.stack(found)


def agreement_table(
    own: AttentionMaps, other: AttentionMaps, layers: Sequence[int]
) -> pd.DataFrame:
    """Return `layer, other_layer, agreement, correlation, items`, a line a layer, then `all`."""
    found, places = agreement(own, other)[list(layers)], pairs_of(own, other)
    lines = [
        (str(layer + 1), str(places[layer] + 1), *row.mean(1), row.shape[1])
        for layer, row in zip(layers, found, strict=True)
    ]
    lines.append(("all", "", *found.mean((0, 2)), found.shape[2]))
    return pd.DataFrame(
        lines, columns=["layer", "other_layer", "agreement", "correlation", "items"]
    )


def layers_of(own: AttentionMaps, asked: Sequence[int] | None) -> list[int]:
    """Return layers from 0 for those asked for from 1; None stands for all."""
    count = len(own.maps)
    for layer in asked or ():
        if not 1 <= layer <= count:
            raise UserError(f"--layers {layer}: {own.name} has layers 1 to {count}")
    return sorted({layer - 1 for layer in asked}) if asked else list(range(count))


def draw_looks(
    looks: Sequence[tuple[AttentionMaps, Sequence[Picture]]],
    rows: Sequence[tuple[str, int]],
    layers: Sequence[int],
    title: str,
    path: Path,
    names: tuple[str, str],
) -> Path:
    """Draw a sheet: of each item a row a net, what it sees and its layers; the first net's layers.

    Args:
        looks: one or two nets, with what each sees of every item.
        rows: id and label of every item.
        layers: of the first net, from 0; the other's are those of the same depth.
        title, path: of the sheet.
        names: of the labels.
    """
    first = looks[0][0]
    sheet = []
    for number, (item, label) in enumerate(rows):
        for look_, pictures in looks:
            places = layers if look_ is first else [pairs_of(first, look_)[k] for k in layers]
            seen = pictures[number]
            maps = [heat(seen, look_.at(k)[number].numpy()) for k in places]
            text = item if look_ is first else f"by {look_.name}"
            sheet.append(SheetRow(text, label, [seen, *maps]))
    titles = ["the net's input", *(f"layer {layer + 1}" for layer in layers)]
    return draw_rows(sheet, titles, title, path, names)


def heat(
    picture: Picture, where: NDArray[np.floating], limits: tuple[float, float] | None = None
) -> Picture:
    """Return a picture under the colours of a map (side, side), from its least to its largest.

    With `limits` from and to these values, which maps of several pictures share.
    """
    low, high = limits or (float(where.min()), float(where.max()))
    scaled = ((where - low) / (high - low) if high > low else np.zeros_like(where)).clip(0, 1)
    size = picture.shape[1], picture.shape[0]
    grey = cv2.resize((255 * scaled).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    colours = cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    mixed = SHARE * colours.astype(np.float64) + (1 - SHARE) * picture
    return np.rint(mixed).astype(np.uint8)
