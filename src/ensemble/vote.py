"""From members' logits to one decision an item: the one path that tuning and prediction share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.artifacts.oof import VIEW_COLUMNS
from src.artifacts.recipes import Recipe
from src.errors import UserError
from src.metrics import sigmoid
from src.registry import Registry

FloatArray = NDArray[np.float64]
TIE = 1e-9  # a share of votes this close to one half is a tie: weights are rounded floats


@dataclass(frozen=True)
class Rule:
    """How members' logits become decisions.

    Attributes:
        voting: name in `VOTING`.
        weights: (m,) float64 >= 0; only their ratios count; members of weight 0 are skipped.
        thresholds: (m,) float64, each member's own decision threshold (hard voting).
        threshold: what the voted prob is held against.
    """

    voting: str
    weights: FloatArray
    thresholds: FloatArray
    threshold: float

    def used(self) -> NDArray[np.bool_]:
        """Return (m,) which members have a say."""
        return self.weights > 0


class Votes(NamedTuple):
    """(n,) float64 prob and (n,) int64 decision."""

    prob: FloatArray
    pred: NDArray[np.int64]


Voter = Callable[[Rule, FloatArray], Votes]
VOTING: Registry[Voter] = Registry("voting")


def mean_prob(weights: FloatArray, probs: FloatArray) -> FloatArray:
    """Return the weighted mean of (m, n) probs, (n,) in [0, 1].

    Members are added one after the other: a matrix product may round equal columns differently,
    and a threshold could then part two copies of one image.
    """
    total = np.zeros(probs.shape[1])
    for weight, prob in zip(weights, probs, strict=True):
        total += weight * prob
    return np.clip(total, 0.0, 1.0)


@VOTING.register("soft")
def soft(rule: Rule, probs: FloatArray) -> Votes:
    """Hold the weighted mean of probs against the threshold."""
    prob = mean_prob(rule.weights, probs)
    return Votes(prob, (prob >= rule.threshold).astype(np.int64))


@VOTING.register("hard")
def hard(rule: Rule, probs: FloatArray) -> Votes:
    """Take the weighted majority of the members' own decisions.

    A tie is decided by the weighted mean of probs: fake if it is >= 0.5. The prob returned is the
    weighted share of votes for fake, exactly 0.5 in a tie.
    """
    share = mean_prob(rule.weights, (probs >= rule.thresholds[:, None]).astype(np.float64))
    tie = np.abs(share - 0.5) <= TIE
    share[tie] = 0.5
    pred = np.where(tie, mean_prob(rule.weights, probs) >= 0.5, share > 0.5)
    return Votes(share, pred.astype(np.int64))


def vote(rule: Rule, logits: FloatArray) -> Votes:
    """Decide items: what tuning scores and what prediction submits.

    Args:
        rule: weights, thresholds, voting.
        logits: (n, m); columns of members of weight 0 are not looked at.

    Raises:
        ValueError: another number of members, or a logit that is not finite.
        UserError: unknown voting.
    """
    voter = VOTING.get(rule.voting)
    if logits.ndim != 2 or logits.shape[1] != rule.weights.size:
        raise ValueError(f"logits {logits.shape} are not (n, {rule.weights.size})")
    used = rule.used()
    logits = logits[:, used]
    if not np.isfinite(logits).all():
        raise ValueError("a logit is not finite")
    weights = rule.weights[used] / rule.weights[used].sum()
    return voter(
        Rule(rule.voting, weights, rule.thresholds[used], rule.threshold),
        sigmoid(np.ascontiguousarray(logits.T)),
    )


def stages_of(rule: Rule) -> list[dict[str, Any]]:
    """Return a recipe's `stages` for a rule."""
    return [
        {"name": "voting", "params": {"rule": rule.voting}},
        {"name": "threshold", "params": {"value": rule.threshold}},
    ]


def rule_of(recipe: Recipe) -> Rule:
    """Return the rule that a recipe's members and stages spell out.

    Raises:
        UserError: a stage that this version does not know, or a missing one.
    """
    names = [stage.get("name") for stage in recipe.stages]
    if names != ["voting", "threshold"]:
        raise UserError(
            f"the recipe's stages are {names}, this version knows ['voting', 'threshold']; "
            "run tune.py again"
        )
    try:
        voting, threshold = recipe.stage("voting")["rule"], recipe.stage("threshold")["value"]
    except KeyError as error:
        raise UserError(f"a stage of the recipe lacks {error}; run tune.py again") from None
    if not isinstance(voting, str) or not _is_number(threshold):
        raise UserError(
            f"the recipe's stages are {recipe.stages}, want a rule's name and a finite threshold; "
            "run tune.py again"
        )
    return Rule(
        voting=voting,
        weights=np.array([member.weight for member in recipe.members], dtype=np.float64),
        thresholds=np.array([member.threshold for member in recipe.members], dtype=np.float64),
        threshold=float(threshold),
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(float(value)))


def pool_views(views: pd.DataFrame) -> pd.Series:
    """Pool one member's view-level logits: mean over views, then mean over folds.

    Args:
        views: `item_id, fold, view, logit`; the logit is NaN where the item is unreadable.

    Returns:
        float64 logits by item_id, sorted; NaN for unreadable items.

    Raises:
        UserError: a view twice, an infinite logit, an item that some fold has not predicted, or
            that is readable in one view and not in another.
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
    per_fold = views.groupby(["item_id", "fold"])["logit"].agg(["mean", "count", "size"])
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


def apply_recipe(
    recipe: Recipe, logits: Mapping[str, pd.Series], fallback_prob: float
) -> pd.DataFrame:
    """Vote on items that have no label.

    Args:
        recipe: members and stages.
        logits: model -> logits by item_id, in any order (see `pool_views`); needed for every
            member of weight > 0.
        fallback_prob: prob of an item that no member could read (NaN in any of them): the share of
            label 1 in the fold file; it is held against the same threshold.

    Returns:
        `item_id` str, `prob` float64, `pred` int64, `fallback` bool; sorted by item_id.

    Raises:
        UserError: a member is missing, has an id twice, lacks an id that another has, or has an
            infinite logit.
    """
    rule = rule_of(recipe)
    models = [member.model for member in recipe.members if member.weight > 0]
    joined = _join(models, logits)
    unreadable = joined.isna().any(axis=1).to_numpy()
    used = rule.used()
    small = Rule(rule.voting, rule.weights[used], rule.thresholds[used], rule.threshold)
    prob = np.full(len(joined), float(fallback_prob))
    pred = (prob >= rule.threshold).astype(np.int64)
    if not unreadable.all():
        prob[~unreadable], pred[~unreadable] = vote(small, joined.to_numpy()[~unreadable])
    return pd.DataFrame(
        {"item_id": joined.index, "prob": prob, "pred": pred, "fallback": unreadable}
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
