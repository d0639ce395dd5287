"""Out-of-fold predictions of delivered items: stored once, joined to the clean ones by item_id."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from src import paths
from src.artifacts.oof import CLEAN, DELIVERY_SEED, MIRRORED, read_views, split_delivery
from src.artifacts.recipes import Recipe
from src.ensemble.align import Aligned
from src.ensemble.extra import is_extra
from src.ensemble.pooling import DEFAULT, Pooled, pool_table
from src.ensemble.rule import deliveries_of, pools_of
from src.errors import UserError


@dataclass(frozen=True)
class Delivered:
    """The same items and members, clean and at several levels."""

    clean: Aligned  # as they are
    levels: Mapping[str, Aligned]  # level -> the same rows, logits of the pictures it delivers

    def at(self, level: str) -> Aligned:
        """Return the rows at a level; `CLEAN` are those as they are."""
        return self.clean if level == CLEAN else self.levels[level]


def read_delivered(
    aligned: Aligned,
    levels: Sequence[str] | None = None,
    seed: int = DELIVERY_SEED,
    *,
    one_view: bool = False,
) -> Delivered:
    """Read what the members predicted of the rows as each level delivers them.

    Every level's rows are pooled in all ways in which the clean ones are. `levels`: None takes
    all that any member has. `one_view` leaves mirror images out.

    Raises:
        UserError: a member lacks a level, or all of them; its predictions are of other weights.
            The message says what to run.
    """
    tables = {
        model: _read_member(aligned, model, seed, one_view=one_view) for model in aligned.models
    }
    if levels is None:
        levels = list(dict.fromkeys(level for found, _ in tables.values() for level in found))
    for model, (found, _) in tables.items():
        lacking = [level for level in levels if level not in found]
        if lacking:
            raise UserError(
                f"{model} has no predictions at level {lacking[0]!r} with seed {seed}; "
                + _way_out(aligned, model, seed, lacking)
            )
    return Delivered(aligned, {level: _at_level(aligned, tables, level, seed) for level in levels})


def check_ours(dataset: str, scheme: str, models: Sequence[str]) -> None:
    """Raise a UserError for a member from elsewhere, which nothing here can show pictures."""
    for model in models:
        if is_extra(dataset, scheme, model):
            raise UserError(
                f"{model} came from elsewhere (--extra): nothing here can show it delivered "
                "pictures; leave it out (--models)"
            )


def command_for(aligned: Aligned, model: str, seed: int, levels: Sequence[str] = ()) -> str:
    """Return the command that predicts a member's items as levels deliver them; none: all."""
    words = f"python -m src robustness --data {aligned.dataset} --model {model}"
    words += f" --scheme {aligned.scheme}"
    words += f" --levels {' '.join(levels)}" if levels else ""
    words += f" --seed {seed}" if seed != DELIVERY_SEED else ""
    return words


def _way_out(aligned: Aligned, model: str, seed: int, levels: Sequence[str] = ()) -> str:
    words = command_for(aligned, model, seed, levels)
    return f"make them: {words}; or leave it out (--models)"


def seen_by(recipe: Recipe, aligned: Aligned) -> Aligned:
    """Return a recipe's rows as it sees them: frames pooled its way, the mean over deliveries.

    Raises:
        UserError: a damaged stage; see `read_delivered`.
    """
    pools, looked = pools_of(recipe), deliveries_of(recipe)
    rows = aligned.pooled_as(pools)
    if looked is None:
        return rows
    read = read_delivered(aligned, looked.levels, looked.seed, one_view=recipe.one_view)
    logits = [rows.logit, *(read.at(one).pooled_as(pools).logit for one in looked.levels)]
    return replace(rows, logit=np.mean(logits, axis=0))


def _read_member(
    aligned: Aligned, model: str, seed: int, *, one_view: bool
) -> tuple[dict[str, pd.DataFrame], str]:
    """Return level -> a member's views of all its folds, without the level; and its pooling."""
    names = (aligned.dataset, aligned.scheme, model)
    check_ours(aligned.dataset, aligned.scheme, [model])
    found, pool, ordered = [], DEFAULT, {}
    for fold in aligned.folds_of(model):
        path = paths.readable(paths.delivered_views(*names, seed, fold))
        if not path.is_file():
            raise UserError(
                f"{path}: no predictions of delivered pictures; {_way_out(aligned, model, seed)}"
            )
        views, metadata = read_views(path)
        known = aligned.checkpoint_sha256[model].get(str(fold))
        if known is None or metadata.get("checkpoint_sha256") != known:
            raise UserError(
                f"{path}: made by other weights than the out-of-fold predictions beside it; "
                + _way_out(aligned, model, seed)
            )
        pool = str(metadata.get("pool", DEFAULT))
        ordered |= dict.fromkeys(metadata.get("levels", []))
        found.append(views[~views["view"].str.endswith(MIRRORED)] if one_view else views)
    table = pd.concat(found, ignore_index=True)
    split = {view: split_delivery(view) for view in table["view"].unique()}
    level = table["view"].map({view: one for view, (one, _) in split.items()})
    table["view"] = table["view"].map({view: rest for view, (_, rest) in split.items()})
    parts = {str(one): part for one, part in table.groupby(level) if one != CLEAN}
    return {one: parts[one] for one in ordered if one in parts}, pool


def _at_level(
    aligned: Aligned,
    tables: Mapping[str, tuple[dict[str, pd.DataFrame], str]],
    level: str,
    seed: int,
) -> Aligned:
    """Return the rows at a level that every member has, pooled in every way the clean ones are."""
    pools = list(aligned.pooled.logits)
    logit = np.full_like(aligned.logit, np.nan)
    pooled = {pool: logit.copy() for pool in pools}
    for column, model in enumerate(aligned.models):
        parts, own = tables[model]
        views = parts[level]
        for name in dict.fromkeys([own, *pools]):
            values = pool_table(views, name).reindex(aligned.item_id).to_numpy()
            if name == own:
                logit[:, column] = values
            if name in pooled:
                pooled[name][:, column] = values
    lost = np.isnan(logit) & ~np.isnan(aligned.logit)
    if lost.any():
        row, column = np.argwhere(lost)[0]
        raise UserError(
            f"{aligned.models[column]} has no prediction of {aligned.item_id[row]!r} at level "
            f"{level!r}; {_way_out(aligned, aligned.models[column], seed, [level])}"
        )
    return replace(aligned, logit=logit, pooled=Pooled(aligned.pooled.defaults, pooled))
