"""A model's report: pictures of each run and of all together, and the page that shows them.

The most wrong items as a contact sheet.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src import paths
from src.artifacts.files import write_text
from src.artifacts.label_names import LabelNames
from src.data.items.manifest import Dataset
from src.data.pixels.images import Canvas
from src.data.pixels.source import PixelSource
from src.errors import UnreadableImageError, UserError
from src.reporting import plots
from src.reporting.charts import new_figure, save_figure, shown
from src.reporting.page import Section, make_page
from src.reporting.runs import ModelRuns, Part

COLUMNS, WORST = 6, 24
SIDE = 160  # px of a thumbnail
CANVAS = Canvas(SIDE, "short_side", "bicubic")
CELL = 1.7  # inches


def worst_rows(part: Part, number: int = WORST) -> NDArray[np.int64]:
    """Return the rows whose P(fake) is farthest from their label, the worst first.

    Logits tell apart what probs near 0 and 1 round to the same; ties go by item_id.
    """
    rows = part.rows
    wrong = np.where(rows.label == 1, -rows.logit, rows.logit)
    return np.lexsort((rows.item_id.astype(str), -wrong))[:number]


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
    worst = part.rows.take(worst_rows(part, number))
    train = dataset.train
    held = train["item_id"].isin(worst.item_id)
    files = dict(zip(train.loc[held, "item_id"], train.loc[held, "path"], strict=True))
    high = -(-len(worst) // COLUMNS)
    figure = new_figure(CELL * COLUMNS, (CELL + 0.35) * high + 0.5)
    figure.suptitle(shown(title, 110))
    grid = figure.subplots(high, COLUMNS, squeeze=False).ravel()
    for axes in grid[len(worst) :]:
        axes.set_axis_off()
    for row, item_id in enumerate(map(str, worst.item_id)):
        axes, fake = grid[row], bool(worst.label[row])
        picture = _thumbnail(dataset, files, item_id)
        if isinstance(picture, str):
            axes.text(0.5, 0.5, picture, ha="center", va="center", fontsize=8)
        else:
            axes.imshow(picture)
        axes.set(xticks=[], yticks=[])
        name = shown(dataset.labels.names[fake], 20)
        text = f"{shown(item_id, 26)}\n{name}, P(fake) {worst.prob[row]:.4f}"
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


def write_report(runs: ModelRuns, dataset: Dataset) -> Path:
    """Draw a model's pictures and write the page that shows them.

    Args:
        runs: predictions and records.
        dataset: where the most wrong items are read.

    Returns:
        The page, `index.html`; the pictures lie beside it.
    """
    folder = paths.report_dir(runs.dataset, runs.scheme, runs.model)
    sections = []
    if runs.whole is not None and len(runs.folds) > 1:
        sections.append(_draw_part(runs, runs.whole, "all", "All finished folds", WORST, dataset))
    for fold, part in runs.folds.items():
        worst = WORST if len(runs.folds) == 1 else 2 * COLUMNS
        sections.append(_draw_part(runs, part, f"fold_{fold}", f"Fold {fold}", worst, dataset))
    for fold, record in runs.records.items():
        if fold not in runs.folds:  # a refit, which holds nothing out
            path = folder / f"fold_{fold}.png"
            _draw_history(f"{runs.model} fold {fold}", {fold: record["history"]}, path)
            sections.append(Section(f"Fold {fold}", [path.name]))
    page = folder / "index.html"
    write_text(page, make_page(runs, sections, dataset.labels))
    return page


def _draw_part(
    runs: ModelRuns, part: Part, stem: str, heading: str, worst: int, dataset: Dataset
) -> Section:
    folder = paths.report_dir(runs.dataset, runs.scheme, runs.model)
    title = f"{runs.model} on {runs.dataset}/{runs.scheme}, {part.name}"
    panel = draw_panel(part, title, folder / f"{stem}.png", dataset.labels)
    title = f"{title}: the most wrong items"
    sheet = draw_worst(part, dataset, title, folder / f"{stem}.worst.png", worst)
    return Section(heading, [panel.name, sheet.name])


def draw_panel(part: Part, title: str, path: Path, labels: LabelNames) -> Path:
    """Draw all that is seen of one run, or of all runs of a model, as one picture.

    Args:
        part: predictions and histories.
        title: of the picture.
        path: of the PNG.
        labels: what the classes are called.
    """
    figure = new_figure(20, 9.2)
    text = f"{title}: {len(part.rows):,} items, {labels.polarity}"
    figure.suptitle(shown(text, 150), fontsize=14)
    grid = figure.subplots(2, 4).ravel()
    label, prob, names = part.rows.label, part.rows.prob, labels.names
    plots.draw_learning(grid[0], part.histories)
    plots.draw_confusion(grid[1], label, part.rows.pred, part.how, names)
    plots.draw_confusion(grid[2], label, (prob >= 0.5).astype("int64"), "threshold 0.5", names)
    plots.draw_histograms(grid[3], label, prob, part.line, names)
    plots.draw_reliability(grid[4], label, prob)
    plots.draw_roc(grid[5], label, prob)
    plots.draw_precision_recall(grid[6], label, prob)
    plots.draw_threshold(grid[7], label, prob, part.line)
    return save_figure(figure, path)


def _draw_history(title: str, histories: dict[paths.FoldName, Sequence], path: Path) -> Path:
    figure = new_figure(6, 4)
    figure.suptitle(shown(title))
    plots.draw_learning(figure.subplots(), histories)
    return save_figure(figure, path)
