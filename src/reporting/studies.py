"""Optuna's own plots of a search, as PNG (and HTML where plotly is installed)."""

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.artifacts.files import atomic_path

if TYPE_CHECKING:
    import optuna

PLOTS = ("optimization_history", "param_importances", "slice")
FEWEST = 3  # trials below which importances say nothing


def plot_study(study: "optuna.Study", folder: Path, name: str) -> list[Path]:
    """Save history, importances and slices of a finished study.

    Args:
        study: the study.
        folder: where to.
        name: of the study; its last parts name the files.

    Returns:
        The files written; none for a study of fewer than `FEWEST` trials.
    """
    if len(study.get_trials(deepcopy=False)) < FEWEST:
        return []
    stem = name.split("/")[-2]
    files = []
    for plot in PLOTS:
        files.append(
            _save(folder / f"{stem}.{plot}.png", lambda path, p=plot: _png(study, p, path))
        )
        if importlib.util.find_spec("plotly") is not None:
            html = folder / f"{stem}.{plot}.html"
            files.append(_save(html, lambda path, p=plot: _html(study, p, path)))
    return files


def _save(path: Path, draw: Callable[[Path], None]) -> Path:
    with atomic_path(path) as temporary:
        draw(temporary)
    return path


def _png(study: "optuna.Study", plot: str, path: Path) -> None:
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
