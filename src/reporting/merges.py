"""Pictures of merges: the way between two models, and scores here against scores elsewhere."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from src.reporting.figures import new_figure, save_figure, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"ingredient": "tab:grey", "merge": "tab:blue", "ensemble": "tab:green"}
MARKS = {"ingredient": "o", "merge": "*", "ensemble": "D"}
LINE = {"linewidth": 0.8, "linestyle": "--", "color": "grey"}


class Walked(Protocol):
    """A path between two models, as `training.merge_path` walks it."""

    @property
    def first(self) -> str: ...  # noqa: D102
    @property
    def other(self) -> str: ...  # noqa: D102
    @property
    def alphas(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def losses(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def scores(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def barrier(self) -> float: ...  # noqa: D102


def plot_paths(walked: Sequence[Walked], title: str, path: Path) -> Path:
    """Draw the log loss and macro-F1 on the straight lines between models; returns `path`.

    Args:
        walked: one or more lines.
        title: of the figure.
        path: PNG.
    """
    figure = new_figure(10, 4)
    left, right = figure.subplots(1, 2)
    for one in walked:
        name = f"{shown(one.first, 24)} to {shown(one.other, 24)}: barrier {one.barrier:+.3f}"
        (line,) = left.plot(one.alphas, one.losses, marker="o", label=name)
        colour = line.get_color()
        left.plot([0, 1], [one.losses[0], one.losses[-1]], **{**LINE, "color": colour})
        right.plot(one.alphas, one.scores, marker="o", color=colour)
    left.set(title=shown(title), xlabel="share of the second", ylabel="log loss, nats")
    right.set(title="the same way", xlabel="share of the second", ylabel="macro-F1 at 0.5")
    left.legend(fontsize=7)
    return save_figure(figure, path)


def plot_sweep(
    values: Sequence[float],
    scores: Mapping[str, Sequence[float]],
    axis: str,
    title: str,
    path: Path,
) -> Path:
    """Draw scores along a parameter of a merge, a panel a score; returns `path`.

    Args:
        values: of the parameter, ascending.
        scores: one a value, by the score's name.
        axis: the parameter's name.
        title: of the figure.
        path: PNG.
    """  # fmt: skip
    figure = new_figure(4 * len(scores), 3.5)
    panels = figure.subplots(1, len(scores), squeeze=False)[0]
    for panel, (name, mine) in zip(panels, scores.items(), strict=True):
        panel.plot(values, mine, marker="o")
        panel.set(xlabel=shown(axis), ylabel=name)
    panels[0].set_title(shown(title), fontsize=9)
    return save_figure(figure, path)


def plot_scatter(
    points: Mapping[str, tuple[str, float, float]], x: str, y: str, title: str, path: Path
) -> Path:
    """Draw a score here against a score elsewhere, a dot a model (Wortsman et al. 2022, fig. 1).

    Args:
        points: name -> kind (`ingredient`, `merge`, `ensemble`), score here, score elsewhere.
        x, y: what the scores are.
        title: of the figure.
        path: PNG; returned.
    """
    figure = new_figure(7, 6)
    axes: Axes = figure.subplots()
    for kind in COLOURS:
        mine = [(a, b) for k, a, b in points.values() if k == kind]
        if mine:
            axes.scatter(*zip(*mine, strict=True), color=COLOURS[kind], marker=MARKS[kind],
                         s=140 if kind == "merge" else 50, label=kind, alpha=0.8)  # fmt: skip
    for name, (_, a, b) in points.items():
        axes.annotate(shown(name, 24), (a, b), fontsize=7, xytext=(4, 4),
                      textcoords="offset points")  # fmt: skip
    axes.set(title=shown(title), xlabel=shown(x), ylabel=shown(y))
    axes.legend(fontsize=8)
    return save_figure(figure, path)
