"""What stored predictions say together: each member's logit of every item, as a recipe pools them.

This module loads no torch, as `stored`.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from src.artifacts.oof import (
    CLEAN,
    DELIVERY_SEED,
    MIRRORED,
    UNREADABLE,
    Levels,
    read_views,
    split_delivery,
)
from src.artifacts.recipes import Recipe
from src.ensemble.extra import is_extra, read_extra_test
from src.ensemble.pooling import DEFAULT
from src.ensemble.rule import deliveries_of, fold_curves_of, pools_of
from src.ensemble.shift.delivered import check_ours
from src.ensemble.shift.few import first
from src.ensemble.vote import pool_views
from src.errors import UserError
from src.inference.stored import (
    ItemsToPredict,
    Part,
    as_delivered,
    metadata_of,
    missing_levels,
    stored_predictions,
)


def levels_of(recipe: Recipe, count: int | None = None) -> Levels | None:
    """Return at which levels items are to be seen: those of a recipe, and the `count` first ones.

    Raises:
        UserError: a damaged stage; a count that there is not (`few.first`).
    """
    stage, more = deliveries_of(recipe), () if count is None else first(count)
    if stage is None:
        return Levels(more, DELIVERY_SEED) if more else None
    return Levels(tuple(dict.fromkeys([*stage.levels, *more])), stage.seed)


def member_logits(
    recipe: Recipe, parts: Sequence[Part], items: ItemsToPredict
) -> dict[str, pd.Series]:
    """Return logits of the items by member of some weight: stored ones pooled, and extra ones.

    Of a member without any checkpoint among `parts` there are none. Where the recipe looks at every
    item at some levels too (`deliveries_of`), these count as it says.

    Raises:
        UserError: predictions that are not complete, or of other ids than the test items, or not
            at all of the recipe's levels.
    """
    stage, views = deliveries_of(recipe), _stored_views(recipe, parts, items)
    if stage is not None:
        for model, found in _delivered_views(recipe, parts, items, Levels(*stage)).items():
            readable = found[found["view"] != UNREADABLE]  # the rest is in the clean ones already
            views[model] = pd.concat([views[model], readable], ignore_index=True)
    return _pooled(recipe, parts, items, views)


def logits_at(
    recipe: Recipe, parts: Sequence[Part], items: ItemsToPredict, levels: Levels | None
) -> dict[str, dict[str, pd.Series]]:
    """Return the members' logits of the items at each level alone, and as they are (`CLEAN`).

    Raises:
        UserError: as `member_logits`; a member came from elsewhere.
    """
    found = {CLEAN: _pooled(recipe, parts, items, _stored_views(recipe, parts, items))}
    if levels is None:
        return found
    delivered = _delivered_views(recipe, parts, items, levels)
    for level in levels.names:
        views = {model: at_level(table, level) for model, table in delivered.items()}
        found[level] = _pooled(recipe, parts, items, views)
    return found


def at_level(views: pd.DataFrame, level: str) -> pd.DataFrame:
    """Return the views at a level, without its name, and those of items that cannot be read."""
    split = {view: split_delivery(view) for view in views["view"].unique()}
    names = {view: rest for view, (at, rest) in split.items() if at == level or view == UNREADABLE}
    some = views[views["view"].isin(names)]
    return some.assign(view=some["view"].map(names))


def _stored_views(
    recipe: Recipe, parts: Sequence[Part], items: ItemsToPredict
) -> dict[str, pd.DataFrame]:
    """Return the views of members of some weight that have any checkpoint among `parts`."""
    found = {}
    for model in (member.model for member in recipe.members if member.weight != 0):
        tables = [stored_predictions(part, items) for part in parts if part.model == model]
        if tables:
            known = [table for table in tables if table is not None]
            found[model] = pd.concat(known, ignore_index=True)
    return found


def _delivered_views(
    recipe: Recipe, parts: Sequence[Part], items: ItemsToPredict, levels: Levels
) -> dict[str, pd.DataFrame]:
    """Return the views of the same members at some levels."""
    check_ours(recipe.dataset, recipe.scheme, [m.model for m in recipe.members if m.weight])
    found: dict[str, list[pd.DataFrame]] = {}
    for part in (as_delivered(part, levels) for part in parts):
        lacking = missing_levels(part, items)
        if lacking:
            raise UserError(
                f"{part.views} has no predictions of these items at {', '.join(lacking)}, and the "
                f"recipe looks at them so too: python predict_ensemble.py --data {recipe.dataset}"
            )
        table = read_views(part.views)[0]
        names = table["view"].unique()
        wanted = [one for one in names
                  if one == UNREADABLE or (split_delivery(one)[0] in levels.names
                  and not (part.one_view and one.endswith(MIRRORED)))]  # fmt: skip
        found.setdefault(part.model, []).append(table[table["view"].isin(wanted)])
    return {model: pd.concat(tables, ignore_index=True) for model, tables in found.items()}


def _pooled(
    recipe: Recipe,
    parts: Sequence[Part],
    items: ItemsToPredict,
    views: Mapping[str, pd.DataFrame],
) -> dict[str, pd.Series]:
    """Return logits by member of some weight: its views pooled as the recipe says, or its own."""
    extra = {
        member.model: _extra_logits(recipe, member.model, items)
        for member in recipe.members
        if member.weight != 0 and is_extra(recipe.dataset, recipe.scheme, member.model)
    }
    return extra | pool_members(recipe, views, default_pools(parts))


def pool_members(
    recipe: Recipe, views: Mapping[str, pd.DataFrame], defaults: Mapping[str, str]
) -> dict[str, pd.Series]:
    """Return logits by member of some weight that has views, pooled as the recipe says.

    Args:
        recipe: its poolings and curves.
        views: model -> its views, of all its folds.
        defaults: model -> the pooling of its config.
    """
    pools, curves = {**defaults, **pools_of(recipe)}, fold_curves_of(recipe)
    said = [member.model for member in recipe.members if member.weight != 0]
    return {
        model: pool_views(views[model], pools[model], curves.get(model))
        for model in said
        if model in views and not is_extra(recipe.dataset, recipe.scheme, model)
    }


def default_pools(parts: Sequence[Part]) -> dict[str, str]:
    """Return model -> the pooling of frames that its predictions name: its config's."""
    return {part.model: str(metadata_of(part).get("pool", DEFAULT)) for part in parts}


def _extra_logits(recipe: Recipe, model: str, items: ItemsToPredict) -> pd.Series:
    series = read_extra_test(recipe.dataset, recipe.scheme, model)
    lacking = pd.Index(items.item_ids).difference(series.index)
    unknown = series.index.difference(pd.Index(items.item_ids))
    if len(lacking) or len(unknown):
        what = f"lack {lacking[0]!r}" if len(lacking) else f"name {unknown[0]!r}, no test item"
        raise UserError(
            f"the test predictions of {model} {what} ({len(lacking)} missing, {len(unknown)} "
            f"unknown); import complete ones: tune.py --extra {model}=OOF.csv,TEST.csv"
        )
    return series
