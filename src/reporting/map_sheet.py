"""The sheet of checked maps: the most wrong and the most right items of a model, and their CSV.

Each item is looked at by the checkpoint of its own fold, which was not trained on it.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from src import paths
from src.artifacts.files import write_csv
from src.data.items.manifest import Dataset
from src.ensemble.predictions import Decided
from src.errors import UserError
from src.explain.checked import DRAWS, CheckedMap, check_maps
from src.explain.maps import MAPS, usual_kinds
from src.explain.overlay import overlay
from src.models.checkpoint import load_checkpoint
from src.models.classifier import Classifier
from src.pages.environment import words
from src.reporting.attention_sheet import pictures_of
from src.reporting.charts import new_figure, save_figure, shown
from src.reporting.contact_sheets import Picture
from src.reporting.runs import ModelRuns

EACH = 3  # most wrong items of each class, and most right ones
CELL = 1.9  # inches
COLUMNS = ("item_id", "label", "prob", "pred", "fold", "kind", "lost", "mean_random", "beats",
           "withheld")  # fmt: skip


@dataclass(frozen=True)
class MappedItem:
    """A row of the sheet."""

    row: int  # of the model's predictions
    picture: Picture | None  # as the net sees it; None where it cannot be decoded any more
    maps: list[CheckedMap]


def draw_mapped(
    runs: ModelRuns,
    dataset: Dataset,
    path: Path,
    *,
    each: int = EACH,
    kinds: Sequence[str] | None = None,
    seed: int = 0,
) -> Path | None:
    """Draw the most wrong and the most right items with their maps, a CSV of the same name beside.

    A row an item, a column a kind of map: the map where it passed its check, else the word
    withheld and why. A clip is shown by its middle frame. It costs some 100 forward passes an item
    on the CPU.

    Args:
        runs: of a model; items of folds whose checkpoints are gone are left out.
        dataset: where the items lie.
        path: of the PNG.
        each: how many of each class, wrong and right.
        kinds: of `MAPS`; None takes the usual ones that the net can show.
        seed: of the random draws that maps are held against.

    Returns:
        The path; None where nothing is scored or no checkpoint is left.

    Raises:
        UserError: a kind that there is not or that the net cannot show, a damaged checkpoint.
    """
    if runs.whole is None:
        return None
    rows = runs.whole.rows
    chosen = [row for row in chosen_rows(rows, each) if _checkpoint(runs, rows, row).is_file()]
    if not chosen:
        return None
    found: dict[int, MappedItem] = {}
    for fold in sorted({int(rows.fold[row]) for row in chosen}):
        own = [row for row in chosen if rows.fold[row] == fold]
        net, _ = load_checkpoint(_checkpoint(runs, rows, own[0]), torch.device("cpu"))
        asked = usual_kinds(net, runs.model) if kinds is None else kinds
        for row in own:
            found[row] = _look(net, runs.model, dataset, rows, row, asked, seed)
    items = [found[row] for row in chosen]
    table = pd.DataFrame([line for item in items for line in _lines(item, rows)], columns=COLUMNS)
    title = f"{runs.model} on {runs.dataset}/{runs.scheme}: maps of the most wrong and most right"
    _draw(items, rows, dataset.labels.names, title, path)
    write_csv(path.with_suffix(".csv"), table)
    return path


def chosen_rows(rows: Decided, each: int) -> list[int]:
    """Return the rows of the surest wrong items, then the surest right: fakes, reals, alike many.

    What is wrong is what was decided; how sure, the logit. Ties go by id.
    """
    margin = np.where(rows.label == 1, rows.logit, -rows.logit)
    names, wrong = rows.item_id.astype(str), rows.pred != rows.label
    found: list[int] = []
    for is_wrong in (True, False):
        order = np.lexsort((names, margin if is_wrong else -margin))
        for label in (1, 0):
            take = (wrong[order] == is_wrong) & (rows.label[order] == label)
            found += order[take][:each].tolist()
    return found


def _checkpoint(runs: ModelRuns, rows: Decided, row: int) -> Path:
    return paths.checkpoint(runs.dataset, runs.scheme, runs.model, int(rows.fold[row]))


def _look(
    net: Classifier,
    model: str,
    dataset: Dataset,
    rows: Decided,
    row: int,
    kinds: Sequence[str],
    seed: int,
) -> MappedItem:
    item = str(rows.item_id[row])
    try:
        _, seen = pictures_of(dataset, [net], [item], pd.Series({item: int(rows.label[row])}))
    except (UserError, OSError, KeyError):  # it was there when the model was trained
        return MappedItem(row, None, [])
    picture = seen[0][len(seen[0]) // 2]
    maps = check_maps(
        net, model, picture[None], kinds, fake=[bool(rows.pred[row])], seed=seed + row
    )
    return MappedItem(row, picture, maps[0])


def _lines(item: MappedItem, rows: Decided) -> list[tuple[Any, ...]]:
    """Return a row of the CSV for each map of an item; one without a kind where it is gone."""
    row = item.row
    facts = (rows.item_id[row], rows.label[row], rows.prob[row], rows.pred[row], rows.fold[row])
    if item.picture is None:
        return [(*facts, "", None, None, None, "not_readable")]
    lines = []
    for one in item.maps:
        tried = np.isfinite(one.lost)
        numbers = (one.lost, float(one.random.mean()), one.beats) if tried else (None, None, None)
        lines.append((*facts, one.kind, *numbers, one.withheld))
    return lines


def _draw(
    items: Sequence[MappedItem], rows: Decided, names: tuple[str, str], title: str, path: Path
) -> None:
    there = {one.kind for item in items for one in item.maps}
    kinds = [kind for kind in MAPS if kind in there]
    wide = len(kinds) + 1
    figure = new_figure(CELL * wide + 1, (CELL + 0.25) * len(items) + 0.8)
    figure.suptitle(shown(title, 120))
    grid = figure.subplots(len(items), wide, squeeze=False)
    for axes_row, item in zip(grid, items, strict=True):
        for axes in axes_row:
            axes.set(xticks=[], yticks=[])
        row = item.row
        right = "right" if rows.pred[row] == rows.label[row] else "wrong"
        text = f"{shown(names[rows.label[row]], 22)}, {right}\n{shown(str(rows.item_id[row]), 22)}"
        axes_row[0].set_ylabel(text, fontsize=8, color="tab:red" if rows.label[row] else "tab:blue")
        if item.picture is None:
            axes_row[0].text(0.5, 0.5, "not readable", ha="center", va="center", fontsize=8)
            continue
        axes_row[0].imshow(item.picture)
        axes_row[0].set_title(f"P(fake) {rows.prob[row]:.4f}", fontsize=7)
        maps = {one.kind: one for one in item.maps}
        for axes, kind in zip(axes_row[1:], kinds, strict=True):
            _draw_map(axes, item.picture, maps[kind])
    for axes, kind in zip(grid[0], ["the net's input", *kinds], strict=True):
        axes.set_title(f"{kind}\n{axes.get_title()}", fontsize=8)
    save_figure(figure, path)


def _draw_map(axes: Any, picture: Picture, one: CheckedMap) -> None:  # noqa: ANN401 - matplotlib's
    tried = np.isfinite(one.lost)
    beaten = f"beats {round(one.beats * DRAWS)} of {DRAWS}" if tried else ""
    if one.withheld:
        why = textwrap.fill(words("en")(f"look.withheld_{one.withheld}"), 24)
        text = f"withheld:\n{why}\n{beaten}"
        axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=7, color="grey")
        axes.set_aspect("equal")
        return
    axes.imshow(overlay(picture, one.where))
    axes.set_title(f"loses {one.lost:.2f} ({beaten})", fontsize=7)
