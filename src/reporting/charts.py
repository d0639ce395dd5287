"""Figures without a screen: made, written whole, with text of any name; and charts of scores.

Of merges, the way between two models, and scores here against scores elsewhere; Optuna's own plots
of a search; cross-fitted against public scores.
"""

import itertools
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from src import paths
from src.artifacts.atomic import atomic_path
from src.artifacts.packages import is_installed

if TYPE_CHECKING:
    import optuna
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"ingredient": "tab:grey", "merge": "tab:blue", "ensemble": "tab:green"}
MARKS = {"ingredient": "o", "merge": "*", "ensemble": "D"}
LINE = {"linewidth": 0.8, "linestyle": "--", "color": "grey"}
DPI = 100
PLOTS = ("optimization_history", "param_importances", "slice")
FEWEST = 3  # trials below which importances say nothing


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of `width` x `height` inches, laid out by itself."""
    _keep_fonts_here()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _keep_fonts_here() -> None:
    """Let matplotlib keep its list of fonts beside our caches: a home may not be writable."""
    os.environ.setdefault("MPLCONFIGDIR", str(paths.cache_dir() / "matplotlib"))


def save_figure(figure: "Figure", path: Path, scale: float = 1.0) -> Path:
    """Write a figure as PNG of `scale` times `DPI`, whole or not at all; returns `path`."""
    with warnings.catch_warnings(), atomic_path(path) as temporary:
        # Of file names in scripts that the font lacks: a box stands for such a letter.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        warnings.filterwarnings("ignore", ".* does not support .* natively", UserWarning)
        figure.savefig(temporary, format="png", dpi=scale * DPI)
    return path


def shown(text: str, longest: int = 60) -> str:
    """Return text that a figure can hold: one line, cut in its middle, `$` no formula."""
    plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    if len(plain) > longest:
        head = longest // 3
        plain = f"{plain[:head]}…{plain[head + 1 - longest :]}"
    return plain.replace("$", r"\$")


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
    """Draw the log loss and macro-F1 on the straight lines between models; returns `path`."""
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
        title, path: of the figure.
    """
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
        title, path: of the figure; the path is returned.
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


def plot_study(study: "optuna.Study", folder: Path, name: str) -> list[Path]:
    """Save history, importances and slices of a finished study, and HTML where plotly is installed.

    The last parts of its name name the files, which are returned; none for a study of fewer than
    `FEWEST` trials.
    """
    if len(study.get_trials(deepcopy=False)) < FEWEST:
        return []
    stem = name.split("/")[-2]
    draws = {"png": _png}
    if is_installed("plotly"):
        draws["html"] = _html
    files = []
    for plot, (suffix, draw) in itertools.product(PLOTS, draws.items()):
        files.append(folder / f"{stem}.{plot}.{suffix}")
        with atomic_path(files[-1]) as temporary:
            draw(study, plot, temporary)
    return files


def _png(study: "optuna.Study", plot: str, path: Path) -> None:
    _keep_fonts_here()
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from optuna.visualization import matplotlib as drawn

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "experimental", on every call
        axes: Any = getattr(drawn, f"plot_{plot}")(study)
    figure = axes.flat[0].figure if hasattr(axes, "flat") else axes.figure
    figure.set_size_inches(max(8, 2 * len(study.best_params)) if plot == "slice" else 8, 5)
    figure.savefig(path, format="png", dpi=100, bbox_inches="tight")
    plt.close(figure)


def _html(study: "optuna.Study", plot: str, path: Path) -> None:
    from optuna import visualization

    figure = getattr(visualization, f"plot_{plot}")(study)
    figure.write_html(str(path), include_plotlyjs="cdn")


def plot_log(table: pd.DataFrame, path: Path) -> Path:
    """Draw public over cross-fitted scores, with intervals, beside the diagonal.

    `table`: `recipe, metric, cross_fitted, low, high, public`, all but the interval known; of one
    metric.
    """
    figure = new_figure(6, 6)
    axes = figure.subplots()
    known = table["low"].notna() & table["high"].notna()
    low = (table["cross_fitted"] - table["low"]).where(known, 0.0)
    high = (table["high"] - table["cross_fitted"]).where(known, 0.0)
    axes.errorbar(
        table["cross_fitted"], table["public"], xerr=[low.clip(lower=0), high.clip(lower=0)],
        fmt="o", capsize=3,
    )  # fmt: skip
    for record in table.itertuples():
        axes.annotate(str(record.recipe), (record.cross_fitted, record.public), fontsize=8)  # type: ignore[arg-type]
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    both = [min(left, low), max(right, high)]
    axes.plot(both, both, color="grey", linewidth=0.8)
    axes.set(
        xlabel=f"cross-fitted {table['metric'].iloc[0]} (95 % interval)", ylabel="public score"
    )
    return save_figure(figure, path)
