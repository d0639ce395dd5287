"""A recipe: the members, weights, threshold and voting that tune found, and how good they are."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from src import paths
from src.artifacts.files import read_json, write_json
from src.artifacts.fingerprints import fingerprint_of
from src.errors import UserError

SCHEMA = 1
STRICT = {"extra": "forbid", "allow_inf_nan": False}
NAME = "name"


@dataclass(frozen=True)
class Member:
    """A model in an ensemble."""

    __pydantic_config__: ClassVar = STRICT

    model: str  # name of the model
    # share of the vote, >= 0, of sum 1; with voting `stack` a coefficient of any sign
    weight: float
    threshold: float  # the member's own decision threshold, used by hard voting
    # the folds whose checkpoints predict, by their mean logit: those it was tuned on, or fewer
    # where fewer ship; `all` is the model that was trained on every row
    folds: list[paths.FoldName]
    # fold number (as a string, as JSON keys are) -> SHA-256 of its OOF file: the rows it was tuned
    # on
    oof_sha256: dict[str, str] = field(default_factory=dict)
    # the same of the checkpoints that made these; none of a member whose predictions came from
    # elsewhere
    checkpoint_sha256: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PartRule:
    """How a part of the rows is decided in the cross-fitted score: as was fitted without it."""

    __pydantic_config__: ClassVar = STRICT

    weights: dict[str, float]  # of each model it was fitted on
    thresholds: dict[str, float]  # likewise
    stages: list[dict[str, Any]]  # as the recipe's


@dataclass(frozen=True)
class Recipe:
    """What tune writes and predict reads."""

    __pydantic_config__: ClassVar = STRICT

    dataset: str  # data set it was tuned on
    scheme: str  # fold scheme
    folds: list[int]  # folds whose out-of-fold rows were used; who predicted them: `members`
    folds_sha256: str  # SHA-256 of the fold file
    members: list[Member]  # the models
    stages: list[dict[str, Any]]  # ordered `{"name": ..., "params": {...}}`: voting, threshold
    metric: str = "macro_f1"  # what it was tuned for, by its name in `src.metrics`
    # that metric's `in_sample, cross_fitted, interval, incumbent` and what they stand on
    scores: dict[str, Any] = field(default_factory=dict)
    # `sampler, trials, seed` and the strategy that won
    search: dict[str, Any] = field(default_factory=dict)
    ships: str = "ensemble"  # which kind of thing predicts: a name in `src.ensemble.offers`
    # rules of the competition that it was made for, as in dataset.yaml; empty: none
    rules: dict[str, Any] = field(default_factory=dict)
    # part of the rows (a fold; of a single fold, a number of `crossfit.make_parts`) -> the rule
    # that was fitted without it; empty where there were too few groups
    crossfit: dict[str, PartRule] = field(default_factory=dict)

    def stage(self, name: str) -> dict[str, Any]:
        """Return the parameters of a stage; raises KeyError where there is none."""
        for stage in self.stages:
            if stage["name"] == name:
                return stage["params"]
        raise KeyError(name)

    def runs(
        self, folds: Sequence[paths.FoldName] | None = None
    ) -> list[tuple[Member, paths.FoldName]]:
        """Return the runs that predict, of the members that have a say, each with its fold.

        `folds`: only these of each member's own (None: all of them). `all` alone takes of each
        member the model that was trained on every row.
        """
        refits = folds is not None and list(folds) == [paths.ALL]
        return [
            (member, fold)
            for member in self.members
            for fold in ([paths.ALL] if refits else member.folds)
            if member.weight != 0 and (folds is None or fold in folds)
        ]

    @property
    def one_view(self) -> bool:
        """Whether pictures are looked at as they are alone, whatever the models' `tta` says."""
        return self.rules.get("tta") is False

    @property
    def looks(self) -> int:
        """How often a net looks at a picture: as it is, and as each level of a stage delivers it.

        Mirror images come on top.
        """
        stages = [stage["params"] for stage in self.stages if stage["name"] == "deliveries"]
        levels = stages[0].get("levels") if stages else None
        return 1 + (len(levels) if isinstance(levels, list) else 0)

    @property
    def is_stack(self) -> bool:
        """Tell whether the members' weights are coefficients, which may be negative."""
        return any(
            stage["name"] == "voting" and stage["params"].get("rule") == "stack"
            for stage in self.stages
        )


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Write a recipe as JSON, with the name under which it lies."""
    write_json(path, {"schema": SCHEMA, NAME: path.stem, **asdict(recipe)}, seal=True)


def read_recipe(path: Path) -> Recipe:
    """Read a recipe and check its shape.

    Raises:
        UserError: missing, unreadable, keys unknown or missing, a value of another kind, weights
            that are negative or sum to 0; written under another name.
    """
    keys = [NAME, *(each.name for each in fields(Recipe))]
    record = read_json(path, schema=SCHEMA, what="recipe", keys=keys, sealed=True)
    record.pop("schema")
    written = record.pop(NAME)
    if written != path.stem:  # else two recipes that were exchanged would answer for each other
        raise UserError(
            f"{path}: this is the recipe {str(written)[:80]!r} under another name; put it back "
            f"under its own, and make this one again (tune.py --recipe {path.stem})"
        )
    return _checked(record, path)


def check_recipe_fresh(recipe: Recipe) -> None:
    """Hold a recipe against the fold file and the OOF files it was tuned on.

    Raises:
        UserError: one of them is gone or has changed since; names it.
    """
    want = {paths.folds_csv(recipe.dataset, recipe.scheme): recipe.folds_sha256}
    for member in recipe.members:
        for fold, sha256 in member.oof_sha256.items():
            path = paths.oof_csv(recipe.dataset, recipe.scheme, member.model, int(fold))
            want[path] = sha256
    for path, sha256 in want.items():
        path = paths.readable(path)
        if not path.exists() or fingerprint_of(path) != sha256:
            what = "has changed" if path.exists() else "is gone"
            raise UserError(f"{path} {what} since the recipe was tuned on it; run tune.py again")


def read_fresh_recipe(path: Path, scheme: str) -> Recipe:
    """Read a recipe whose members are to label or teach within the folds of a scheme.

    Raises:
        UserError: as `read_recipe` and `check_recipe_fresh`; or it is of another scheme.
    """
    recipe = read_recipe(path)
    check_recipe_fresh(recipe)
    if recipe.scheme != scheme:
        raise UserError(
            f"{path} was tuned on the folds of {recipe.scheme}, not {scheme}: models that never "
            "saw a fold of one saw parts of it in the other"
        )
    return recipe


def _checked(record: dict[str, Any], path: Path) -> Recipe:
    """Return a recipe whose values are of the kinds that its classes name."""
    from src.strict_yaml import checked  # slow to import

    try:
        recipe: Recipe = checked(record, Recipe, str(path))
    except UserError as error:
        raise UserError(f"{error}; run tune.py again") from None
    names = {"dataset": recipe.dataset, "scheme": recipe.scheme}
    names |= {f"members.{n}.model": member.model for n, member in enumerate(recipe.members)}
    for key, name in names.items():
        paths.check_plain(name, f"{path}: {key}")
    for stage in recipe.stages:
        if not isinstance(stage.get("name"), str) or not isinstance(stage.get("params"), dict):
            raise UserError(f"{path}: stage {stage} has no name or no params; run tune.py again")
    for member in recipe.members:
        if member.weight < 0 and not recipe.is_stack:
            raise UserError(f"{path}: member {member.model!r} has weight {member.weight}")
        if not all(fold.isdecimal() for fold in member.oof_sha256):
            raise UserError(f"{path}: member {member.model!r} has folds {list(member.oof_sha256)}")
        names = [fold for fold in member.folds if isinstance(fold, str) and fold != paths.ALL]
        if names or not member.folds:
            raise UserError(f"{path}: member {member.model!r} predicts with folds {member.folds}")
    _check_crossfit(recipe, path)
    total = sum(abs(member.weight) for member in recipe.members)
    if not (math.isfinite(total) and total > 0):
        raise UserError(f"{path}: the members' weights sum to {total}; run tune.py again")
    return recipe


def _check_crossfit(recipe: Recipe, path: Path) -> None:
    for part, rule in recipe.crossfit.items():
        models = {member.model for member in recipe.members}
        if not part.isdecimal() or not models <= rule.weights.keys() & rule.thresholds.keys():
            raise UserError(f"{path}: crossfit.{part} is of other members; run tune.py again")
