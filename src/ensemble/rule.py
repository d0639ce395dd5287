"""A rule: how it votes, from members' logits to a decision an item, and as stages of a recipe."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.artifacts.recipes import Recipe
from src.ensemble.calibration import Curve
from src.ensemble.pooling import POOLING
from src.errors import UserError
from src.metrics import sigmoid
from src.registry import Registry

FloatArray = NDArray[np.float64]
TIE = 1e-9  # a share of votes this close to one half is a tie: weights are rounded floats
# of a recipe's stages
ORDER = ("pooling", "deliveries", "fold_calibration", "calibration", "voting", "threshold")
OPTIONAL = ORDER[:4]
FoldCurves = dict[str, Curve]  # fold (as a string) -> what its model's logits go through


class Deliveries(NamedTuple):
    """How else an item is looked at: the mean of its logits as it is and at these levels counts."""

    levels: tuple[str, ...]  # names of levels, one at least
    seed: int  # of the draws of levels that are random


@dataclass(frozen=True)
class Rule:
    """How members' logits become decisions."""

    voting: str  # name in `VOTING`
    # (m,) float64; members of weight 0 are skipped. Only the ratios count, and none is negative,
    # except with voting `stack`, where they are coefficients.
    weights: FloatArray
    thresholds: FloatArray  # (m,) float64, each member's own decision threshold (hard voting)
    threshold: float  # what the voted prob is held against
    intercept: float = 0.0  # added to the voted logit (stack)
    curves: tuple[Curve, ...] = ()  # one a member, applied to its logits first; empty: none
    by: str = ""  # `kind` or `domain` where `cuts` holds thresholds by it, else empty
    # value of `by` -> threshold; values not seen when it was fitted have `threshold` (cross-
    # fitting), and are refused in prediction
    cuts: dict[str, float] = field(default_factory=dict)
    # one name in `POOLING` a member: how its frames' logits became the logits that the rule was
    # fitted on; empty where there are no clips. Voting does not look at it.
    pools: tuple[str, ...] = ()
    # what else each member looked at for the logits that the rule was fitted on, likewise
    deliveries: Deliveries | None = None
    # member -> curves of its folds' models, where these score on different scales: what their
    # logits went through before, likewise
    folds: dict[str, FoldCurves] = field(default_factory=dict)

    def used(self) -> NDArray[np.bool_]:
        """Return (m,) which members have a say."""
        return self.weights != 0

    def threshold_of(self, values: NDArray[np.object_] | None, n: int) -> FloatArray:
        """Return (n,) thresholds of items whose kind or domain is `values`."""
        found = np.full(n, self.threshold)
        if self.by and values is not None:
            for value, cut in self.cuts.items():
                found[values == value] = cut
        return found


def plain_rule(voting: str, weights: FloatArray, **rest: Any) -> Rule:  # noqa: ANN401 - fields
    """Return the rule of these weights with every threshold at 0.5."""
    return Rule(voting, weights, np.full(weights.size, 0.5), 0.5, **rest)


def equal_weights(n_members: int) -> FloatArray:
    """Return (m,) weights of sum 1."""
    return np.full(n_members, 1.0 / n_members)


class Members(NamedTuple):
    """What a voting sees of the members that have a say."""

    logits: FloatArray  # (m, n) float64, after their curves
    probs: FloatArray  # (m, n) float64, likewise
    weights: FloatArray  # (m,) float64, of sum 1 unless the voting is free
    thresholds: FloatArray  # (m,) float64
    intercept: float  # of the rule


class Votes(NamedTuple):
    """(n,) float64 prob and (n,) int64 decision."""

    prob: FloatArray
    pred: NDArray[np.int64]


class Ballot(NamedTuple):
    """(n,) float64 prob, and where given (n,) bool decisions that no threshold makes."""

    prob: FloatArray
    decided: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Voting:
    """A rule of voting."""

    count: Callable[[Members], Ballot]
    free: bool = False  # weights are coefficients: any sign, not brought to sum 1


VOTING: Registry[Voting] = Registry("voting")


def weighted_sum(weights: FloatArray, rows: FloatArray) -> FloatArray:
    """Return the weighted sum of (m, n) rows, (n,).

    Members are added one after the other: a matrix product may round equal columns differently,
    and a threshold could then part two copies of one image.
    """
    total = np.zeros(rows.shape[1])
    for weight, row in zip(weights, rows, strict=True):
        total += weight * row
    return total


def mean_prob(weights: FloatArray, probs: FloatArray) -> FloatArray:
    """Return the weighted mean of (m, n) probs by weights of sum 1, (n,) in [0, 1]."""
    return np.clip(weighted_sum(weights, probs), 0.0, 1.0)


def _soft(members: Members) -> Ballot:
    return Ballot(mean_prob(members.weights, members.probs))


def _hard(members: Members) -> Ballot:
    votes = (members.probs >= members.thresholds[:, None]).astype(np.float64)
    share = mean_prob(members.weights, votes)
    tie = np.abs(share - 0.5) <= TIE
    share[tie] = 0.5
    fake = np.where(tie, mean_prob(members.weights, members.probs) >= 0.5, share > 0.5)
    return Ballot(share, fake)


def _logit(members: Members) -> Ballot:
    return Ballot(sigmoid(weighted_sum(members.weights, members.logits) + members.intercept))


VOTING.register("soft")(Voting(_soft))  # the weighted mean of probs against the threshold
# The weighted majority of own decisions. A tie is fake if the weighted mean of probs is >= 0.5; the
# prob is the weighted share of votes for fake, exactly 0.5 in a tie.
VOTING.register("hard")(Voting(_hard))
VOTING.register("rank")(Voting(_soft))  # soft, of curves that turn logits into ranks
VOTING.register("logit")(Voting(_logit))  # the weighted mean of logits
VOTING.register("stack")(Voting(_logit, free=True))  # a logistic regression on logits


def can_vote(rule: Rule, logits: FloatArray) -> NDArray[np.bool_]:
    """Return (n,) which items a rule can decide: a member that has a say predicted them.

    With coefficients (stack) all such members must have, for those of the rest would not do.
    """
    there = ~np.isnan(logits[:, rule.used()])
    return np.asarray(there.all(axis=1) if VOTING.get(rule.voting).free else there.any(axis=1))


def vote(rule: Rule, logits: FloatArray, values: NDArray[np.object_] | None = None) -> Votes:
    """Decide items: what tuning scores and what prediction submits.

    Args:
        rule: weights, thresholds, voting.
        logits: (n, m); columns of members of weight 0 are not looked at. NaN where a member did not
            predict an item: the weights of the others are brought to sum 1 there.
        values: (n,) kind or domain of the items, where the rule has thresholds by it.

    Raises:
        ValueError: another number of members, an infinite logit, or an item that the rule cannot
            decide (`can_vote`).
        UserError: unknown voting.
    """
    voting = VOTING.get(rule.voting)
    if logits.ndim != 2 or logits.shape[1] != rule.weights.size:
        raise ValueError(f"logits {logits.shape} are not (n, {rule.weights.size})")
    if np.isinf(logits[:, rule.used()]).any() or not can_vote(rule, logits).all():
        raise ValueError("a logit is infinite, or an item has none")
    prob, pred = np.empty(len(logits)), np.empty(len(logits), dtype=np.int64)
    thresholds = rule.threshold_of(values, len(logits))
    for rows, there in _patterns(~np.isnan(logits) & rule.used()):
        voters = replace(rule, weights=np.where(there, rule.weights, 0.0))
        ballot = voting.count(_members(voters, logits[rows], free=voting.free))
        decided = ballot.decided
        prob[rows] = ballot.prob
        pred[rows] = ballot.prob >= thresholds[rows] if decided is None else decided
    return Votes(prob, pred)


def _patterns(
    there: NDArray[np.bool_],
) -> Iterator[tuple[slice | NDArray[np.intp], NDArray[np.bool_]]]:
    """Yield the rows of each distinct row of (n, m) flags, and those flags, (m,)."""
    if not len(there):
        return
    if (there == there[0]).all():
        yield slice(None), there[0]
        return
    _, first, code = np.unique(
        np.packbits(there, axis=1), axis=0, return_index=True, return_inverse=True
    )
    for k, row in enumerate(first):
        yield np.flatnonzero(code.reshape(-1) == k), there[row]


def _members(rule: Rule, logits: FloatArray, *, free: bool) -> Members:
    used = rule.used()
    rows = np.ascontiguousarray(logits[:, used].T)
    weights = rule.weights[used]
    if not free:
        weights = weights / weights.sum()
    if rule.curves:
        curves = [curve for curve, say in zip(rule.curves, used, strict=True) if say]
        probs = np.stack([curve.prob(row) for curve, row in zip(curves, rows, strict=True)])
        rows = np.stack([curve.logit(row) for curve, row in zip(curves, rows, strict=True)])
    else:
        probs = sigmoid(rows)
    return Members(rows, probs, weights, rule.thresholds[used], rule.intercept)


def stages_of(rule: Rule, models: Sequence[str]) -> list[dict[str, Any]]:
    """Return a recipe's `stages` for a rule of these members."""
    stages: list[dict[str, Any]] = []
    if rule.pools:
        pools = {m: pool for m, pool in zip(models, rule.pools, strict=True) if pool}
        stages.append({"name": "pooling", "params": {"pools": pools}})
    if rule.deliveries:
        levels, seed = rule.deliveries
        stages.append({"name": "deliveries", "params": {"levels": list(levels), "seed": seed}})
    if rule.folds:
        by_fold = {m: {k: asdict(c) for k, c in each.items()} for m, each in rule.folds.items()}
        stages.append({"name": "fold_calibration", "params": {"curves": by_fold}})
    if rule.curves:
        curves = {m: asdict(curve) for m, curve in zip(models, rule.curves, strict=True)}
        stages.append({"name": "calibration", "params": {"curves": curves}})
    voting: dict[str, Any] = {"rule": rule.voting}
    if VOTING.get(rule.voting).free:
        voting["intercept"] = rule.intercept
    threshold: dict[str, Any] = {"value": rule.threshold}
    if rule.by:
        threshold |= {"by": rule.by, "values": dict(rule.cuts)}
    stages.append({"name": "voting", "params": voting})
    return [*stages, {"name": "threshold", "params": threshold}]


def rule_of(recipe: Recipe) -> Rule:
    """Return the rule that a recipe's members and stages spell out.

    Raises:
        UserError: a stage that this version does not know, a missing one, or a value of a wrong
            kind.
    """
    names = [stage.get("name") for stage in recipe.stages]
    if names != [name for name in ORDER if name in names or name not in OPTIONAL]:
        raise UserError(
            f"the recipe's stages are {names}, this version knows {list(ORDER)} (the first four "
            "may be absent); run tune.py again"
        )
    try:
        return _build(recipe, calibrated="calibration" in names)
    except KeyError as error:
        raise UserError(f"a stage of the recipe lacks {error}; run tune.py again") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"a stage of the recipe is damaged ({error}); run tune.py again") from None


def pools_of(recipe: Recipe) -> dict[str, str]:
    """Return model -> pooling of its frames, for the members that the recipe has one for.

    Raises:
        UserError: a damaged stage, or an unknown pooling.
    """
    if not any(stage["name"] == "pooling" for stage in recipe.stages):
        return {}
    pools = recipe.stage("pooling").get("pools")
    if not isinstance(pools, dict):
        raise UserError("the pooling stage of the recipe is damaged; run tune.py again")
    for pool in pools.values():
        POOLING.get(str(pool))
    return {str(model): str(pool) for model, pool in pools.items()}


def deliveries_of(recipe: Recipe) -> Deliveries | None:
    """Return how else a recipe looks at every item, None where it does not.

    Each member's logit of an item is then the mean over the item as it is and every level; at each
    its frames are pooled, and its folds averaged, as the item's as it is are.

    Raises:
        UserError: a damaged stage.
    """
    if not any(stage["name"] == "deliveries" for stage in recipe.stages):
        return None
    params = recipe.stage("deliveries")
    levels, seed = params.get("levels"), params.get("seed")
    if not isinstance(levels, list) or not levels or not all(isinstance(a, str) for a in levels):
        raise UserError("the deliveries stage of the recipe names no levels; run tune.py again")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise UserError("the deliveries stage of the recipe has no seed; run tune.py again")
    return Deliveries(tuple(levels), seed)


def fold_curves_of(recipe: Recipe) -> dict[str, FoldCurves]:
    """Return model -> curves of its folds' models, for the members that have some.

    Raises:
        UserError: a damaged stage, or a fold that predicts and has no curve.
    """
    if not any(stage["name"] == "fold_calibration" for stage in recipe.stages):
        return {}
    try:
        stored = recipe.stage("fold_calibration")["curves"].items()
        return {m: {str(k): _curve(c) for k, c in each.items()} for m, each in stored}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(
            "the fold calibration stage of the recipe is damaged; run tune.py again"
        ) from None


def _build(recipe: Recipe, *, calibrated: bool) -> Rule:
    voting, threshold = recipe.stage("voting"), recipe.stage("threshold")
    pools = pools_of(recipe)
    curves: tuple[Curve, ...] = ()
    if calibrated:
        stored = recipe.stage("calibration")["curves"]
        curves = tuple(_curve(stored[member.model]) for member in recipe.members)
    cuts = {str(value): float(cut) for value, cut in threshold.get("values", {}).items()}
    numbers = [threshold["value"], voting.get("intercept", 0.0), *cuts.values()]
    if not np.isfinite(np.array(numbers, dtype=np.float64)).all():
        raise ValueError(f"{numbers} are not all finite")
    return Rule(
        voting=voting["rule"],
        weights=np.array([member.weight for member in recipe.members], dtype=np.float64),
        thresholds=np.array([member.threshold for member in recipe.members], dtype=np.float64),
        threshold=float(threshold["value"]),
        intercept=float(voting["intercept"]) if VOTING.get(voting["rule"]).free else 0.0,
        curves=curves,
        by=threshold.get("by", ""),
        cuts=cuts,
        pools=tuple(pools.get(member.model, "") for member in recipe.members) if pools else (),
        deliveries=deliveries_of(recipe),
        folds=fold_curves_of(recipe),
    )


def _curve(stored: dict[str, Any]) -> Curve:
    numbers = tuple(map(float, stored["x"])), tuple(map(float, stored["y"]))
    return Curve(float(stored["slope"]), float(stored["intercept"]), *numbers)
