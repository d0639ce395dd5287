"""A rule as the stages of a recipe, and back."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from src.artifacts.recipes import Recipe
from src.ensemble.calibration import Curve
from src.ensemble.pooling import POOLING
from src.ensemble.rule import VOTING, Rule
from src.errors import UserError

ORDER = ("pooling", "calibration", "voting", "threshold")
OPTIONAL = ORDER[:2]


def stages_of(rule: Rule, models: Sequence[str]) -> list[dict[str, Any]]:
    """Return a recipe's `stages` for a rule of these members."""
    stages: list[dict[str, Any]] = []
    if rule.pools:
        pools = {m: pool for m, pool in zip(models, rule.pools, strict=True) if pool}
        stages.append({"name": "pooling", "params": {"pools": pools}})
    if rule.curves:
        curves = {m: asdict(curve) for m, curve in zip(models, rule.curves, strict=True)}
        stages.append({"name": "calibration", "params": {"curves": curves}})
    voting = {"rule": rule.voting}
    if VOTING.get(rule.voting).free:
        voting["intercept"] = rule.intercept  # type: ignore[assignment]
    stages.append({"name": "voting", "params": voting})
    threshold: dict[str, Any] = {"value": rule.threshold}
    if rule.by:
        threshold |= {"by": rule.by, "values": dict(rule.cuts)}
    stages.append({"name": "threshold", "params": threshold})
    return stages


def rule_of(recipe: Recipe) -> Rule:
    """Return the rule that a recipe's members and stages spell out.

    Raises:
        UserError: a stage that this version does not know, a missing one, or a value of a wrong
            kind.
    """
    names = [stage.get("name") for stage in recipe.stages]
    if names != [name for name in ORDER if name in names or name not in OPTIONAL]:
        raise UserError(
            f"the recipe's stages are {names}, this version knows {list(ORDER)} (the first two may "
            "be absent); run tune.py again"
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
    )


def _curve(stored: dict[str, Any]) -> Curve:
    return Curve(
        float(stored["slope"]),
        float(stored["intercept"]),
        tuple(float(x) for x in stored["x"]),
        tuple(float(y) for y in stored["y"]),
    )
