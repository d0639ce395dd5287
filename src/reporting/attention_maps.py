"""Attention maps as pictures and numbers: layer by layer, and how far those of two nets agree."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.nn import functional

from src.distillation import matched
from src.errors import UserError
from src.explain.attention import AttentionMaps, patch_maps
from src.explain.overlay import heat
from src.models.intermediates import with_tokens
from src.reporting.contact_sheets import Picture, SheetRow, draw_rows


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
