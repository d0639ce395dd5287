"""All of one run as one picture, which is drawn when a fold ends."""

from collections.abc import Sequence
from pathlib import Path

from src import paths
from src.artifacts.label_names import LabelNames
from src.reporting import plots
from src.reporting.charts import new_figure, save_figure, shown
from src.reporting.runs import RunPart
from src.training.monitor import constant_loss


def draw_panel(part: RunPart, title: str, path: Path, labels: LabelNames) -> Path:
    """Draw all that is seen of one run as one picture.

    Of held-out items of one class there are no curves of ranking.
    """
    figure = new_figure(15.5, 13.5)
    text = f"{title}: {len(part.rows):,} items, {labels.polarity}"
    figure.suptitle(shown(text, 150), fontsize=14)
    grid = figure.subplots(3, 3).ravel()
    label, prob, names = part.rows.label, part.rows.prob, labels.names
    plots.draw_losses(grid[0], part.histories, constant_loss(label))
    plots.draw_scores(grid[1], part.histories)
    plots.draw_histograms(grid[2], label, prob, part.line, names)
    plots.draw_confusion(grid[3], label, (prob >= 0.5).astype("int64"), "threshold 0.5", names)
    plots.draw_confusion(grid[4], label, part.rows.pred, part.how, names)
    plots.draw_threshold(grid[5], label, prob, part.line)
    plots.draw_reliability(grid[6], label, prob)
    if 0 < label.sum() < len(label):
        plots.draw_roc(grid[7], label, prob)
        plots.draw_precision_recall(grid[8], label, prob)
    else:
        for axes in grid[7:]:
            axes.text(0.5, 0.5, f"only {names[label[0]]}", ha="center", transform=axes.transAxes)
            axes.set(xticks=[], yticks=[])
    return save_figure(figure, path)


def draw_history(title: str, histories: dict[paths.FoldName, Sequence], path: Path) -> Path:
    """Draw how runs learned that hold nothing out."""
    figure = new_figure(10.4, 4.5)
    figure.suptitle(shown(title))
    left, right = figure.subplots(1, 2)
    plots.draw_losses(left, histories)
    plots.draw_scores(right, histories)
    return save_figure(figure, path)
