"""Fold files and out-of-fold predictions, made with the real writers."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from src import paths
from src.artifacts.folds import write_folds
from src.artifacts.oof import write_oof

DATA, SCHEME = "toy", "sgkf3_s0"


def make_folds(n: int = 240, k: int = 3, groups: int = 80, seed: int = 0) -> pd.DataFrame:
    """Write a fold file of `groups` pure groups, dealt to `k` folds in turn; return it."""
    rng = np.random.default_rng(seed)
    group = np.arange(n) % groups
    label = (np.arange(groups) // k % 5 < 2).astype(int)[group]  # 40 % fake in every fold
    table = pd.DataFrame(
        {
            "item_id": [f"{rng.integers(10**6):06d}/{i:04d}.jpg" for i in range(n)],
            "label": label,
            "group": [f"g{g:03d}" for g in group],
            "domain": "d",
            "kind": "image",
            "fold": group % k,
        }
    )
    write_folds(paths.folds_csv(DATA, SCHEME), table)
    return table


def make_oof(
    folds: pd.DataFrame,
    model: str = "a",
    *,
    only: Iterable[int] | None = None,
    noise: float = 1.0,
    shift: float = 0.0,
    seed: int = 0,
) -> pd.Series:
    """Write a model's predictions of some folds (default: all); return its logits by item_id."""
    rng = np.random.default_rng(seed)
    logit = (folds["label"] * 2 - 1) + shift + noise * rng.normal(size=len(folds))
    table = folds.assign(logit=logit)
    for fold in sorted(set(folds["fold"])) if only is None else only:
        write_oof(oof_path(model, fold), table[table["fold"] == fold])
    return table.set_index("item_id")["logit"]


def oof_path(model: str = "a", fold: int = 0) -> Path:
    return paths.oof_csv(DATA, SCHEME, model, fold)


def edit_csv(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Break a CSV behind the writer's back."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    change(table).to_csv(path, index=False)


def set_cell(column: str, value: str, row: int = 0) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Return a change that puts a value into a row of a column."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[row, column] = value
        return table

    return change
