"""Cross-fitted against public scores."""

from pathlib import Path

import pandas as pd

from src.artifacts.files import atomic_path


def plot_log(table: pd.DataFrame, path: Path) -> Path:
    """Draw public over cross-fitted scores, with intervals, beside the diagonal.

    Args:
        table: `recipe, cross_fitted, low, high, public`, all but the interval known.
        path: of the PNG.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 6))
    known = table["low"].notna() & table["high"].notna()
    low = (table["cross_fitted"] - table["low"]).where(known, 0.0)
    high = (table["high"] - table["cross_fitted"]).where(known, 0.0)
    axes.errorbar(
        table["cross_fitted"], table["public"], xerr=[low.clip(lower=0), high.clip(lower=0)],
        fmt="o", capsize=3,
    )  # fmt: skip
    for record in table.itertuples():
        axes.annotate(str(record.recipe), (record.cross_fitted, record.public), fontsize=8)  # type: ignore[arg-type]
    both = [
        min(axes.get_xlim()[0], axes.get_ylim()[0]),
        max(axes.get_xlim()[1], axes.get_ylim()[1]),
    ]
    axes.plot(both, both, color="grey", linewidth=0.8)
    axes.set(xlabel="cross-fitted macro-F1 (95 % interval)", ylabel="public score")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100, bbox_inches="tight")
    plt.close(figure)
    return path
