"""From stored predictions of items without labels to decisions: what prediction does."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from src.artifacts.oof import CLEAN, UNREADABLE, VIEW_COLUMNS, WHOLE, split_delivery
from src.artifacts.recipes import Recipe
from src.ensemble.pooling import DEFAULT, frame_of, pool_table
from src.ensemble.rule import FoldCurves, rule_of, vote
from src.errors import UserError


def pool_views(
    views: pd.DataFrame, pool: str = DEFAULT, curves: FoldCurves | None = None
) -> pd.Series:
    """Pool one member's view-level logits: mean over views, frames pooled, mean over folds.

    Where there are views of delivered pictures too, this is done at each level, and each fold's
    mean over them, and over the picture as it is, stands for the fold.

    Args:
        views: `item_id, fold, view, logit`; the logit is NaN where the item is unreadable.
        pool: name in `POOLING`; of no account for items of one frame.
        curves: fold -> what its logits go through before the mean over folds; None: nothing.

    Returns:
        float64 logits by item_id, sorted; NaN for unreadable items.

    Raises:
        UserError: a view twice, an infinite logit, an item that some fold has not predicted, or
            not at every level, or that is readable in one view and not in another.
    """
    views = views[VIEW_COLUMNS]
    twice = views.duplicated(["item_id", "fold", "view"])
    if twice.any():
        item, fold, view = views.loc[twice, ["item_id", "fold", "view"]].iloc[0]
        raise UserError(f"item {item!r}, fold {fold}: view {view!r} is there twice")
    infinite = np.isinf(views["logit"])
    if infinite.any():
        item, fold = views.loc[infinite, ["item_id", "fold"]].iloc[0]
        raise UserError(f"item {item!r}, fold {fold}: the logit is infinite; predict it again")
    per_fold = _over_levels(views, pool)
    if curves is not None:
        for fold in views["fold"].unique():
            here = per_fold.index.get_level_values("fold") == fold
            per_fold.loc[here, "mean"] = curves[str(fold)].logit(
                per_fold.loc[here, "mean"].to_numpy(np.float64)
            )
    per_item = per_fold.groupby("item_id").agg(
        folds=("size", "size"), seen=("count", "sum"), views=("size", "sum"), logit=("mean", "mean")
    )
    short = per_item.index[per_item["folds"] < views["fold"].nunique()]
    if len(short):
        raise UserError(f"item {short[0]!r} was not predicted by every fold; predict it again")
    mixed = per_item.index[(per_item["seen"] > 0) & (per_item["seen"] < per_item["views"])]
    if len(mixed):
        raise UserError(
            f"item {mixed[0]!r} is readable in one view and unreadable in another; predict it again"
        )
    return per_item["logit"].astype("float64")


def _over_levels(views: pd.DataFrame, pool: str) -> pd.DataFrame:
    """Return `_per_fold`, the mean over the levels at which there are views."""
    split = {view: split_delivery(view) for view in views["view"].unique()}
    if all(level == CLEAN for level, _ in split.values()):
        return _per_fold(views, pool)
    level = views["view"].map({view: level for view, (level, _) in split.items()})
    plain = views.assign(view=views["view"].map({view: rest for view, (_, rest) in split.items()}))
    each = [_per_fold(part, pool) for _, part in plain.groupby(level)]
    per_fold = pd.concat(each).groupby(level=["item_id", "fold"]).agg(
        levels=("size", "size"), mean=("mean", "mean"), count=("count", "sum"),
        size=("size", "sum"),
    )  # fmt: skip
    short = per_fold.index[(per_fold["levels"] < len(each)) & (per_fold["count"] > 0)]
    if len(short):
        raise UserError(f"item {short[0][0]!r} was not predicted at every level; predict it again")
    return per_fold


def _per_fold(views: pd.DataFrame, pool: str) -> pd.DataFrame:
    """Return `mean, count, size` by item_id and fold: its logit, its views read, and all views."""
    per_fold = views.groupby(["item_id", "fold"])["logit"].agg(["mean", "count", "size"])
    frames = {view: frame_of(view) for view in views["view"].unique()}
    if len(set(frames.values()) - {UNREADABLE}) > 1:
        clips = views[views["view"].map(frames) != WHOLE]
        for fold, part in clips[clips["logit"].notna()].groupby("fold"):
            pooled = pool_table(part, pool)
            places = pd.MultiIndex.from_product([pooled.index, [fold]])
            per_fold.loc[places, "mean"] = pooled.to_numpy()
    return per_fold


def apply_recipe(
    recipe: Recipe,
    logits: Mapping[str, pd.Series],
    fallback_prob: float,
    values: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Vote on items that have no label.

    Args:
        recipe: members and stages.
        logits: model -> logits by item_id, in any order (see `pool_views`); needed for every
            member of weight > 0.
        fallback_prob: prob of an item that no member could read (NaN in any of them): the share of
            label 1 in the fold file; it is held against the same threshold.
        values: `kind` and `domain` by item_id, needed where the recipe has thresholds by one.

    Returns:
        `item_id` str, `prob` float64, `pred` int64, `fallback` bool, `threshold` float64 (what
        prob was held against; of no account in hard voting); sorted by item_id.

    Raises:
        UserError: a kind or domain that the recipe has no threshold for; a member is missing, has
            an id twice, lacks an id that another has, or has an infinite logit.
    """
    rule = rule_of(recipe)
    models = [member.model for member in recipe.members if member.weight != 0]
    joined = _join(models, logits)
    unreadable = joined.isna().any(axis=1).to_numpy()
    group = None
    if rule.by:
        if values is None:
            raise UserError(f"the recipe has thresholds by {rule.by}, which is not known here")
        group = values.loc[joined.index, rule.by].to_numpy(dtype=object)
        unknown = sorted(set(group) - set(rule.cuts))
        if unknown:
            raise UserError(
                f"the recipe has thresholds for the {rule.by}s {', '.join(map(repr, rule.cuts))}, "
                f"and a test item is of {unknown[0]!r}: tune without them"
            )
    prob = np.full(len(joined), float(fallback_prob))
    thresholds = rule.threshold_of(group, len(joined))
    pred = (prob >= thresholds).astype(np.int64)
    if not unreadable.all():
        readable = ~unreadable
        some = None if group is None else group[readable]
        used = rule.used()
        own = replace(
            rule,
            weights=rule.weights[used],
            thresholds=rule.thresholds[used],
            curves=tuple(c for c, say in zip(rule.curves, used, strict=False) if say),
        )
        votes = vote(own, joined.to_numpy()[readable], some)
        prob[readable], pred[readable] = votes
    return pd.DataFrame(
        {
            "item_id": joined.index,
            "prob": prob,
            "pred": pred,
            "fallback": unreadable,
            "threshold": thresholds,
        }
    )


def _join(models: Sequence[str], logits: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Put the members side by side, by id: (n, m) float64, sorted by item_id."""
    for model in models:
        if model not in logits:
            raise UserError(f"the recipe's member {model!r} has no predictions of these items")
        series = logits[model]
        if not series.index.is_unique:
            twice = series.index[series.index.duplicated()][0]
            raise UserError(f"{model} predicted item {twice!r} twice")
        if np.isinf(series).any():
            raise UserError(f"{model}: the logit of item {series.index[np.isinf(series)][0]!r} "
                            "is infinite; predict it again")  # fmt: skip
    ids = logits[models[0]].index.sort_values()
    for model in models[1:]:
        for some, other in ((models[0], model), (model, models[0])):
            lacking = logits[some].index.difference(logits[other].index)
            if len(lacking):
                raise UserError(
                    f"item {lacking[0]!r} was predicted by {some} and not by {other} "
                    f"({len(lacking)} such items); predict again"
                )
    return pd.DataFrame({model: logits[model].loc[ids] for model in models}, index=ids)
