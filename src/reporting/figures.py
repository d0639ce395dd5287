"""Figures without a screen and without global state: made, written whole, text of any name."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from src.artifacts.atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 100


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of `width` x `height` inches, laid out by itself."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: "Figure", path: Path) -> Path:
    """Write a figure as PNG, whole or not at all; returns `path`."""
    with warnings.catch_warnings(), atomic_path(path) as temporary:
        # Of file names in scripts that the font lacks: a box stands for such a letter.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        warnings.filterwarnings("ignore", ".* does not support .* natively", UserWarning)
        figure.savefig(temporary, format="png", dpi=DPI)
    return path


def shown(text: str, longest: int = 60) -> str:
    """Return text that a figure can hold: one line, cut in its middle, `$` no formula."""
    plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    if len(plain) > longest:
        head = longest // 3
        plain = f"{plain[:head]}…{plain[head + 1 - longest :]}"
    return plain.replace("$", r"\$")
