"""Members whose predictions of delivered items are stored, made with the real writers."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from src import paths
from src.artifacts.files import sha256_file
from src.artifacts.folds import write_folds
from src.artifacts.oof import delivered, write_oof, write_views
from tests.ensemble.synthetic import DATA, SCHEME
from tests.records import make_record

# level -> what is added to a logit, and by how much it is multiplied first
LEVELS = {"blur1": (-1.5, 0.7), "jpeg50": (-1.0, 0.8), "noise0.05": (-0.5, 0.5)}


def make_member(
    folds: pd.DataFrame,
    model: str,
    *,
    levels: Mapping[str, tuple[float, float]] = LEVELS,
    only: Iterable[int] = (0, 1, 2),
    scheme: str = SCHEME,
    noise: float = 1.0,
    own_noise: float = 0.3,
    by: tuple[float, ...] = (),
    seed: int = 0,
) -> dict[str, pd.Series]:
    """Write a member's predictions of some folds, as they are and at levels; returns the logits.

    Level (`clean` for none) -> logits by item_id, of all folds; `by` is added to each fold's.
    """
    rng = np.random.default_rng(seed)
    base = 1.5 * (2 * folds["label"] - 1) + noise * rng.normal(size=len(folds))
    if by:
        base += np.asarray(by)[folds["fold"]]
    ids = pd.Index(folds["item_id"])
    logits = {"clean": pd.Series(base.to_numpy(), ids)}
    for level, (shift, scale) in levels.items():
        values = scale * base + shift + own_noise * rng.normal(size=len(folds))
        logits[level] = pd.Series(values.to_numpy(), ids)
    for fold in only:
        names = (DATA, scheme, model, fold)
        part = folds[folds["fold"] == fold]
        write_clean(folds, names, logits["clean"])
        views = [
            part.assign(
                view=delivered(level, "full"), logit=logits[level].loc[part["item_id"]].to_numpy()
            )
            for level in levels
        ]
        if views:
            metadata = {"checkpoint_sha256": sha256_file(paths.checkpoint(*names)), "seed": 42}
            metadata["levels"] = list(levels)
            path = paths.delivered_views(DATA, scheme, model, 42, fold)
            write_views(path, pd.concat(views, ignore_index=True), metadata)
    return logits


def write_clean(folds: pd.DataFrame, names: tuple[str, str, str, int], logit: pd.Series) -> None:
    """Write out-of-fold predictions, with something for a checkpoint and its record."""
    part = folds[folds["fold"] == names[-1]]
    own = part.assign(logit=logit.loc[part["item_id"]].to_numpy())
    write_oof(paths.oof_csv(*names), own)
    checkpoint = paths.checkpoint(*names)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text(" ".join(map(str, names)))
    make_record(*names)


def make_other_scheme(folds: pd.DataFrame, scheme: str, k: int, seed: int = 0) -> pd.DataFrame:
    """Write the same groups under another scheme, dealt anew to `k` folds; returns its table."""
    names = np.unique(folds["group"])
    fold = dict(zip(names, np.random.default_rng(seed).permutation(names.size) % k, strict=True))
    table = folds.assign(fold=folds["group"].map(fold))
    write_folds(paths.folds_csv(DATA, scheme), table)
    return table
