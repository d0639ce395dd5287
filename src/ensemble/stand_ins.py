"""Out-of-fold logits that stand in for the members' own where those would not be honest.

Of pictures as they are, where what predicts may not look at mirror images; and of merges as the
other half of the rows chose them, where a merge was chosen on these very rows.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src import paths
from src.artifacts.files import parse_column, read_csv, sha256_file
from src.artifacts.oof import CROSS_FITTED
from src.artifacts.runs import has_run, read_run
from src.ensemble.align import Aligned
from src.ensemble.pooling import pool_table, read_plain_views


def one_view(aligned: Aligned) -> Aligned:
    """Return the members' logits of one view of each picture, frame or face.

    Raises:
        UserError: the stored views of a member are gone, or not those of its run.
    """
    logit = aligned.logit.copy()
    pooled = {name: rows.copy() for name, rows in aligned.pooled.logits.items()}
    for column, model in enumerate(aligned.models):
        found = read_plain_views(aligned.dataset, aligned.scheme, model, aligned.folds_of(model))
        if found is None:
            continue
        table, own = found
        logit[:, column] = _pooled(table, own, aligned)
        for name, rows in pooled.items():
            rows[:, column] = _pooled(table, name, aligned)
    return replace(aligned, logit=logit, pooled=replace(aligned.pooled, logits=pooled))


def chosen_elsewhere(aligned: Aligned, *, one_view: bool) -> tuple[Aligned, list[str]]:
    """Return logits by which merges that were chosen on these rows can be scored, and their names.

    Each half of the rows is as the merge said it that the other half chose. A merge without such
    logits keeps its own: its fold had too few groups, or `one_view` is wanted and it looks twice.
    """
    logit, found = aligned.logit.copy(), []
    for column, model in enumerate(aligned.models):
        runs = _runs(aligned, model)
        if not any((run["merged_from"] or {}).get("chosen") for run in runs):
            continue
        parts = [_other_half(run) for run in runs]
        if any(part is None for part in parts) or (one_view and _looks_twice(runs)):
            continue
        logit[:, column] = pd.concat(parts).reindex(aligned.item_id).to_numpy()
        found.append(model)
    # Poolings of frames would bring back the merges' own logits.
    pooled = replace(aligned.pooled, logits={})
    left = [model for model in aligned.selected_on if model not in found]
    return replace(aligned, logit=logit, pooled=pooled, selected_on=left), found


def _runs(aligned: Aligned, model: str) -> list[dict[str, Any]]:
    names = (aligned.dataset, aligned.scheme, model)
    folds = aligned.folds_of(model)
    return [read_run(*names, fold) for fold in folds if has_run(*names, fold)]


def _looks_twice(runs: Sequence[dict[str, Any]]) -> bool:
    return any(run["config"]["tta"] == "flip" for run in runs)


def _other_half(run: dict[str, Any]) -> "pd.Series[float] | None":
    """Return a fold's logits by item_id, of each half as the other one chose; None without them."""
    path = paths.cross_fitted_csv(run["dataset"], run["scheme"], run["model"], run["fold"])
    sha256 = (run["merged_from"] or {}).get("cross_fitted_sha256")
    if not path.is_file() or sha256_file(path) != sha256:
        return None
    table = read_csv(path, CROSS_FITTED, what="file of cross-fitted logits")
    half = parse_column(table, "half", int, path).to_numpy()
    logits = [parse_column(table, f"logit_{k}", float, path).to_numpy() for k in (0, 1)]
    return pd.Series(np.where(half == 0, logits[1], logits[0]), pd.Index(table["item_id"]))


def _pooled(table: pd.DataFrame, pool: str, aligned: Aligned) -> NDArray[np.float64]:
    return pool_table(table, pool).reindex(aligned.item_id).to_numpy()
