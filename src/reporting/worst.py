"""The most wrong items as a contact sheet."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.data.images import Canvas, UnreadableImageError
from src.data.manifest import Dataset
from src.data.pixels import PixelSource
from src.errors import UserError
from src.reporting.figures import new_figure, save_figure, shown
from src.reporting.runs import Part

COLUMNS, WORST = 6, 24
SIDE = 160  # px of a thumbnail
CANVAS = Canvas(SIDE, "short_side", "bicubic")
CELL = 1.7  # inches


def worst_rows(part: Part, number: int = WORST) -> NDArray[np.int64]:
    """Return the rows whose P(fake) is farthest from their label, the worst first.

    Logits tell apart what probs near 0 and 1 round to the same; ties go by item_id.
    """
    wrong = np.where(part.label == 1, -part.logit, part.logit)
    return np.lexsort((part.item_ids.astype(str), -wrong))[:number]


def draw_worst(part: Part, dataset: Dataset, title: str, path: Path, number: int = WORST) -> Path:
    """Draw the most wrong items: a thumbnail, item_id, label, P(fake).

    An item that is not there any more, or not readable, is an empty square that says so.

    Args:
        part: predictions.
        dataset: where the items' files are.
        title: of the sheet.
        path: of the PNG.
        number: items at most.
    """
    rows = worst_rows(part, number)
    train = dataset.train
    held = train["item_id"].isin(part.item_ids[rows])
    files = dict(zip(train.loc[held, "item_id"], train.loc[held, "path"], strict=True))
    high = -(-len(rows) // COLUMNS)
    figure = new_figure(CELL * COLUMNS, (CELL + 0.35) * high + 0.5)
    figure.suptitle(shown(title, 110))
    grid = figure.subplots(high, COLUMNS, squeeze=False).ravel()
    for axes in grid[len(rows) :]:
        axes.set_axis_off()
    for axes, row in zip(grid, rows, strict=False):
        item_id, fake = str(part.item_ids[row]), bool(part.label[row])
        picture = _thumbnail(dataset, files, item_id)
        if isinstance(picture, str):
            axes.text(0.5, 0.5, picture, ha="center", va="center", fontsize=8)
        else:
            axes.imshow(picture)
        axes.set(xticks=[], yticks=[])
        name = shown(dataset.labels.names[fake], 20)
        text = f"{shown(item_id, 26)}\n{name}, P(fake) {part.prob[row]:.4f}"
        axes.set_title(text, fontsize=7, color="tab:red" if fake else "tab:blue")
    return save_figure(figure, path)


def _thumbnail(dataset: Dataset, files: Mapping[str, str], item_id: str) -> NDArray[np.uint8] | str:
    """Return a small picture, or why there is none."""
    if item_id not in files:
        return "not in the\ndata set any more"
    try:
        return PixelSource(dataset.root, [files[item_id]], [CANVAS]).read(0)[0]
    except (UnreadableImageError, UserError, OSError):
        return "not readable"
