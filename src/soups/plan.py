"""A file of merges as written down: its name, its recipes, and what is chosen on held-out rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field, Strict
from pydantic.dataclasses import dataclass as checked_dataclass

from src.config import check_stem, model_names
from src.ensemble.extra import refuse_extra_name
from src.errors import UserError
from src.merging.recipe import MergeRecipe, RecipeKeys, read_recipes
from src.metrics import DEFAULT, tuned_name
from src.strict_yaml import STRICT, Count, Float, Int, Keys

TRIALS = 20
ITEMS = 1024  # that BatchNorm is estimated on


@checked_dataclass(frozen=True, config=STRICT)
class Range(Keys):
    """The values of a parameter that a search looks at."""

    values: tuple[Any, ...] = ()  # these, where given
    low: Float | None = None  # else all from here
    high: Float | None = None  # to here
    each: Literal["all", "model"] = "all"  # one value for all models, or one a model
    knots: Count = 1  # values over depth, interpolated between (1: one for the whole net)

    @property
    def bounds(self) -> tuple[float, float]:
        """Return `low` and `high`; raises UserError where they are not given, or not in order."""
        if self.low is None or self.high is None:
            raise UserError("want both low and high, or a list of values")
        if not self.low < self.high:
            raise UserError(f"low {self.low:g} is not below high {self.high:g}")
        return self.low, self.high

    def draw(self, rng: np.random.Generator) -> Any:  # noqa: ANN401 - as written
        """Return a random value."""
        if self.values:
            return self.values[int(rng.integers(len(self.values)))]
        return float(rng.uniform(*self.bounds))


@checked_dataclass(frozen=True, config=STRICT)
class OwnKeys(Keys):
    """What the last document of a file of merges holds beside mergekit's keys."""

    # training items that BatchNorm is estimated anew on; 0 keeps what was merged
    batchnorm: Literal[0] | Annotated[Int, Field(ge=2)] = ITEMS
    # position embeddings of other image sizes are resized
    resize_pos_embed: Annotated[bool, Strict()] = False
    select: Literal["greedy", "learned"] | None = None  # of the models, on held-out rows
    # parameters whose values are tried on held-out rows, and these values
    search: Annotated[dict[str, tuple[Any, ...] | Range], Field(min_length=1)] | None = None
    trials: Count | None = None  # of a search
    knots: Count | None = None  # of `learned`: weights over depth
    metric: Annotated[str, AfterValidator(tuned_name)] | None = None  # what decides


@checked_dataclass(frozen=True, config=STRICT)
class PlanKeys(OwnKeys, RecipeKeys):
    """A document of a file of merges."""


@dataclass(frozen=True)
class Selection:
    """What is chosen on held-out rows."""

    how: str = "fixed"  # `greedy`, `learned`, `search`; `fixed` chooses nothing
    metric: str = DEFAULT  # by what
    trials: int = TRIALS  # of a search
    knots: int = 1  # of `learned`: weights over depth
    space: Mapping[str, Range] = field(default_factory=dict)  # of a search


@dataclass(frozen=True)
class MergePlan:
    """A file of merges."""

    name: str  # of the merge, as a member of an ensemble: the file's
    recipes: tuple[MergeRecipe, ...]  # in the order to carry them out; the last one is the merge
    selection: Selection  # of the last one
    batchnorm: int = ITEMS  # see `OwnKeys`
    resize_pos_embed: bool = False  # see `OwnKeys`

    @property
    def final(self) -> MergeRecipe:
        """Return the last recipe, the one whose result is kept."""
        return self.recipes[-1]


def read_plan(path: Path) -> MergePlan:
    """Read a file of merges.

    Raises:
        UserError: see `read_recipes`; a wrong value of one of our own keys; something to choose in
            another document than the last; a name that is no plain one.
    """
    check_stem(path)
    recipes = tuple(read_recipes(path, PlanKeys))
    for recipe in recipes[:-1]:
        for key in recipe.more:
            raise UserError(f"{path}: {key} belongs into the last document, not {recipe.name!r}")
    keys = OwnKeys(**recipes[-1].more)
    try:
        selection = _selection(recipes[-1], keys)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return MergePlan(path.stem, recipes, selection, keys.batchnorm, keys.resize_pos_embed)


def check_name(name: str, dataset: str, scheme: str) -> None:
    """Raise a UserError where the name of a merge is that of a model, or of another member."""
    if name in model_names():
        raise UserError(f"{name} is the name of a model; give the merge's file another name")
    refuse_extra_name(dataset, scheme, name)


def _selection(recipe: MergeRecipe, keys: OwnKeys) -> Selection:
    trials, metric, knots = keys.trials or TRIALS, keys.metric or DEFAULT, keys.knots or 1
    if keys.select is not None and keys.search is not None:
        raise UserError("`select` and `search` are two ways to choose; give one")
    if keys.search is not None:
        space = {name: _range(recipe, name, value) for name, value in keys.search.items()}
        return Selection("search", metric, trials, 1, space)
    if keys.select is not None:
        wanted = {"greedy": "uniform", "learned": "linear"}[keys.select]
        if recipe.merge_method != wanted:
            raise UserError(f"select: {keys.select} goes with merge_method: {wanted}")
        if len(recipe.models) < 2:
            raise UserError(f"select: {keys.select} wants two or more models")
        return Selection(keys.select, metric, trials, knots)
    for key in ("metric", "trials", "knots"):
        if key in recipe.more:
            raise UserError(f"{key} goes with `select` or `search`")
    return Selection()


def _range(recipe: MergeRecipe, name: str, wanted: tuple[Any, ...] | Range) -> Range:
    wanted = wanted if isinstance(wanted, Range) else Range(wanted)
    try:
        parameter = recipe.method.parameter(name)
        if wanted.each == "model" and not parameter.per_model:
            raise UserError(f"{name} of {recipe.merge_method} is one for all models")
        if isinstance(parameter.default, bool) and (wanted.knots > 1 or not wanted.values):
            raise UserError(f"{name} is true or false: give both as a list")
        if wanted.values:
            values = tuple(parameter.checked(one) for one in wanted.values)
            return replace(wanted, values=values, low=None, high=None)
        for bound in wanted.bounds:
            parameter.checked(bound)
    except UserError as error:
        raise UserError(f"search: {name}: {error}") from None
    return wanted
