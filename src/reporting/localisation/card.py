"""Scores of maps as a table and a CSV, and a sheet of the best and the worst."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from src.explain.overlay import heat
from src.reporting.card_table import cell
from src.reporting.contact_sheets import SheetRow, draw_rows
from src.reporting.evaluated import parts
from src.reporting.localisation.localised import TRUTHS, Localised
from src.reporting.localisation.pixel_scores import (
    cuts_of_others,
    image_aucs,
    score_pixels,
    value_of,
)
from src.reporting.scorecard import Score
from src.training.auxiliary.localisation import boundary_of

EACH, REALS = 4, 2  # manipulated pictures that are told best, and worst; reals that light up most
BY = "manipulation"


@dataclass(frozen=True)
class PixelCard:
    """The scores of some items."""

    value: str  # the manipulation that they are of, "" for all
    items: int
    fakes: int
    groups: int
    note: str  # against which reals
    scores: dict[str, dict[str, Score]]  # of each truth, by name


@dataclass(frozen=True)
class Cuts:
    """From where on a cell is called so."""

    of: dict[str, NDArray[np.uint16]]  # of each truth (n,) codes
    words: dict[str, str]  # the same for people: whose choice, and the values


def choose_cuts(found: Localised) -> Cuts:
    """Return the cuts of all items, each chosen on others (`cuts_of_others`)."""
    of, words = {}, {}
    for name in TRUTHS:
        of[name], whose = cuts_of_others(found.of(name))
        values = ", ".join(f"{value_of(int(one)):.4f}" for one in dict.fromkeys(of[name].tolist()))
        words[name] = f"{values} (best IoU on {whose})"
    return Cuts(of, words)


def score_localised(found: Localised, cuts: Cuts) -> list[PixelCard]:
    """Return the card of all items, then one a manipulation where there are several."""
    rows = found.rows
    every = np.ones(len(rows), bool)
    split = list(parts(rows, BY))
    cards = []
    for value, mask, note in [("", every, ""), *(split if len(split) > 1 else [])]:
        scores = {
            name: score_pixels(found.of(name).take(mask), cuts.of[name][mask]) for name in TRUTHS
        }
        own = rows.take(mask)
        cards.append(PixelCard(value, len(own), int(own.label.sum()), own.n_groups, note, scores))
    return cards


def table_of(cards: Sequence[PixelCard]) -> list[list[str]]:
    """Return a column a card, a line a score."""
    return [
        ["", *(card.value or "all" for card in cards)],
        ["items", *(f"{c.items} ({c.fakes} manipulated)" for c in cards)],
        ["groups", *(str(card.groups) for card in cards)],
        *(
            [f"{truth} {name}", *(cell(card.scores[truth][name]) for card in cards)]
            for truth in TRUTHS
            for name in cards[0].scores[truth]
        ),
    ]


def records(cards: Sequence[PixelCard], cuts: Cuts, head: dict[str, Any]) -> pd.DataFrame:
    """Return a row a score; an undefined one is empty, its note says why."""
    return pd.DataFrame([
        head
        | {"by": BY if card.value else "", "value": card.value, "items": card.items,
           "fakes": card.fakes, "groups": card.groups, "truth": truth, "metric": name,
           "score": score.value, "low": score.low, "high": score.high, "cut": cuts.words[truth],
           "note": "; ".join(filter(None, (card.note, score.why)))}
        for card in cards
        for truth, scores in card.scores.items()
        for name, score in scores.items()
    ])  # fmt: skip


def draw_localised(found: Localised, title: str, path: Path, names: tuple[str, str]) -> Path:
    """Draw the manipulated items whose boundary is told best, and worst, and the brightest reals.

    Each as the net sees it, its mask, where the mask says that two pictures meet, and the map in
    colours that all share.
    """
    aucs = image_aucs(found.of("boundary"))
    told = np.flatnonzero(~np.isnan(aucs))
    told = told[np.argsort(-aucs[told], kind="stable")].tolist()
    reals = np.flatnonzero(found.rows.label == 0)
    bright = found.maps[reals].astype(np.float32).mean((1, 2))
    chosen = [*told[:EACH], *told[EACH:][-EACH:]]
    chosen += reals[np.argsort(-bright, kind="stable")[:REALS]].tolist()
    limits = float(found.maps[chosen].min()), float(found.maps[chosen].max())
    sheet = []
    for row in chosen:
        picture, mask = found.look(row)
        meets = boundary_of(torch.from_numpy(mask[None]), len(mask))[0].numpy()
        layers = [
            np.repeat(one[:, :, None], 3, axis=2) for one in (mask, (255 * meets).astype(np.uint8))
        ]
        auc = "" if np.isnan(aucs[row]) else f" AUC {aucs[row]:.2f}"
        where = heat(picture, found.maps[row].astype(np.float32), limits)
        name = f"{found.rows.item_id[row]}{auc}"
        sheet.append(SheetRow(name, int(found.rows.label[row]), [picture, *layers, where]))
    titles = ["input", "mask", "its boundary", f"map, {limits[0]:.2f} to {limits[1]:.2f}"]
    return draw_rows(sheet, titles, title, path, names)
