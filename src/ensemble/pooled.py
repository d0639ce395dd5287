"""Members' logits under every pooling of frames: what the pooling stage is chosen from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src import paths
from src.artifacts.oof import read_views
from src.artifacts.runs import check_views, has_run, read_run
from src.ensemble.extra import is_extra
from src.ensemble.pooling import DEFAULT, POOLING, pool_table
from src.errors import UserError

FloatArray = NDArray[np.float64]
SAME = 1e-6  # between a pooled logit in the CSV and the one of its views


@dataclass(frozen=True)
class Pooled:
    """What the members' logits are under each pooling.

    Attributes:
        defaults: one a member: the pooling of its OOF CSV; "" for one without views (an extra
            member), whose logits are the same under every pooling. Empty where no item can have
            several frames or faces.
        logits: pooling -> (n, m) float64, rows and columns as `Aligned.logits`.
    """

    defaults: tuple[str, ...] = ()
    logits: dict[str, FloatArray] = field(default_factory=dict)

    def names(self, pool: str) -> tuple[str, ...]:
        """Return the members' poolings where those that have a choice take `pool` ("": theirs)."""
        return tuple((pool or own) if own else "" for own in self.defaults)


def show_everyone(dataset: str, scheme: str, models: Sequence[str], folds: Sequence[int]) -> bool:
    """Tell from the run records whether a member judges every face of an item by itself.

    Then an image, too, may have several views to pool. Views themselves are not read for it.
    """
    for model in models:
        for fold in folds:
            if not has_run(dataset, scheme, model, fold):  # a member from elsewhere
                continue
            config = read_run(dataset, scheme, model, fold)["config"]
            crop = config.get("input", {}).get("crop")
            if crop == "face" and config.get("face", {}).get("which") == "all":
                return True
    return False


def read_pooled(
    dataset: str,
    scheme: str,
    models: Sequence[str],
    folds: Sequence[int],
    ids: NDArray[np.object_],
    logits: FloatArray,
) -> Pooled:
    """Read the members' views and pool them in every way there is.

    Args:
        dataset, scheme, models, folds: which predictions.
        ids: (n,) the items.
        logits: (n, m) float64 of the OOF CSVs.

    Raises:
        UserError: views that do not belong to the CSV beside them.
    """
    found = {pool: logits.copy() for pool in POOLING}
    defaults = []
    for column, model in enumerate(models):
        views = [_views(dataset, scheme, model, fold) for fold in folds]
        if is_extra(dataset, scheme, model) or not all(path.is_file() for path in views):
            defaults.append("")
            continue
        tables, metadata = zip(*(read_views(path) for path in views), strict=True)
        defaults.append(str(metadata[0].get("pool", DEFAULT)))
        table = pd.concat(tables, ignore_index=True)
        for pool, rows in found.items():
            rows[:, column] = pool_table(table, pool).reindex(ids).to_numpy()
        _check(found[defaults[-1]][:, column], logits[:, column], ids, views)
    return Pooled(tuple(defaults), found) if any(defaults) else Pooled()


def _views(dataset: str, scheme: str, model: str, fold: int) -> Path:
    """Return where a fold's views are; those that are there are held against the run's record."""
    path = paths.oof_views(dataset, scheme, model, fold)
    if path.is_file() and has_run(dataset, scheme, model, fold):
        check_views(read_run(dataset, scheme, model, fold))
    return path


def _check(
    pooled: FloatArray, stored: FloatArray, ids: NDArray[np.object_], views: list[Path]
) -> None:
    same = np.abs(pooled - stored) <= SAME * np.maximum(1.0, np.abs(stored))
    if not same.all():
        item = ids[int((~same).argmax())]
        raise UserError(
            f"{views[0]} and its like do not belong to the CSVs beside them (item {item!r}): "
            "delete them to tune without a pooling stage, or train those folds again (--overwrite)"
        )
