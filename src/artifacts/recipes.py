"""A recipe: the members, weights, threshold and voting that tune found, and how good they are."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from src import paths
from src.artifacts.files import read_json, sha256_file, write_json
from src.errors import UserError

SCHEMA = 1


@dataclass(frozen=True)
class Member:
    """A model in an ensemble.

    Attributes:
        model: name of the model.
        weight: share of the vote, >= 0; the weights of a recipe sum to 1.
        threshold: the member's own decision threshold, used by hard voting.
        oof_sha256: fold number (as a string, as JSON keys are) -> SHA-256 of its OOF file.
    """

    model: str
    weight: float
    threshold: float
    oof_sha256: dict[str, str]


@dataclass(frozen=True)
class Recipe:
    """What tune writes and predict reads.

    Attributes:
        dataset: data set it was tuned on.
        scheme: fold scheme.
        folds: folds whose predictions were used, and whose checkpoints predict.
        folds_sha256: SHA-256 of the fold file.
        members: the models.
        stages: ordered `{"name": ..., "params": {...}}`: voting, threshold.
        scores: macro-F1 `in_sample, cross_fitted, interval, incumbent` and what they stand on.
        search: `sampler, trials, seed` and the strategy that won.
    """

    dataset: str
    scheme: str
    folds: list[int]
    folds_sha256: str
    members: list[Member]
    stages: list[dict[str, Any]]
    scores: dict[str, Any] = field(default_factory=dict)
    search: dict[str, Any] = field(default_factory=dict)

    def stage(self, name: str) -> dict[str, Any]:
        """Return the parameters of a stage; raises KeyError where there is none."""
        for stage in self.stages:
            if stage["name"] == name:
                return stage["params"]
        raise KeyError(name)


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Write a recipe as JSON."""
    write_json(path, {"schema": SCHEMA, **asdict(recipe)})


def read_recipe(path: Path) -> Recipe:
    """Read a recipe and check its shape.

    Raises:
        UserError: missing, unreadable, unknown keys, weights that are negative or sum to 0.
    """
    keys = list(Recipe.__dataclass_fields__)
    record = read_json(path, schema=SCHEMA, what="recipe", keys=keys)
    members = _read_members(record.pop("members"), path)
    record.pop("schema")
    return Recipe(members=members, **record)


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
        if not path.exists() or sha256_file(path) != sha256:
            what = "has changed" if path.exists() else "is gone"
            raise UserError(f"{path} {what} since the recipe was tuned on it; run tune.py again")


def _read_members(entries: Sequence[dict[str, Any]], path: Path) -> list[Member]:
    want = set(Member.__dataclass_fields__)
    for number, entry in enumerate(entries):
        if set(entry) != want:
            raise UserError(
                f"{path}: member {number} has keys {sorted(entry)}, want {sorted(want)}"
            )
        if not entry["weight"] >= 0:
            raise UserError(f"{path}: member {entry['model']!r} has weight {entry['weight']}")
    if not entries or not sum(entry["weight"] for entry in entries) > 0:
        raise UserError(f"{path}: the members' weights sum to 0; run tune.py again")
    return [Member(**entry) for entry in entries]
