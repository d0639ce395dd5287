"""The out-of-fold rows that a recipe was tuned on, read again."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src import paths
from src.artifacts.folds import read_folds
from src.artifacts.oof import read_oof
from src.artifacts.recipes import Recipe
from src.artifacts.runs import oof_file


def oof_of(recipe: Recipe) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the labels and the members' logits that a recipe was tuned on, (n,) and (n, m).

    Members of weight 0 are read too, so that columns are members.
    """
    table = read_folds(paths.readable(paths.folds_csv(recipe.dataset, recipe.scheme)))
    items = table[table["fold"].isin(recipe.folds)].set_index("item_id")
    columns = []
    for member in recipe.members:
        names = (recipe.dataset, recipe.scheme, member.model)
        parts = [read_oof(oof_file(*names, fold), table, fold) for fold in recipe.folds]
        logit = pd.concat(parts).set_index("item_id")["logit"]
        columns.append(logit.loc[items.index].to_numpy(np.float64))
    return items["label"].to_numpy(np.int64), np.stack(columns, axis=1)
