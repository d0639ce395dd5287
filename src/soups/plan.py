"""A file of merges as written down: its name, its recipes, and what is chosen on held-out rows."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from src import paths
from src.config import model_names
from src.ensemble.extra import refuse_extra_name
from src.errors import UserError, unknown_name
from src.merging.methods import Parameter
from src.merging.read_recipe import read_recipes
from src.merging.recipe import MergeRecipe
from src.soups.batchnorm import ITEMS

MORE_KEYS = ("batchnorm", "resize_pos_embed", "select", "search", "trials", "knots", "metric")
SELECTS = ("greedy", "learned")
METRICS = ("macro_f1", "auc", "log_loss")
EACH = ("all", "model")
TRIALS = 20


@dataclass(frozen=True)
class Range:
    """The values of a parameter that a search looks at.

    Attributes:
        values: these, where given.
        low, high: else all between.
        each: one value for all models, or one a model.
        knots: values over depth, interpolated between (1: one for the whole net).
    """

    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 1.0
    each: str = "all"
    knots: int = 1


@dataclass(frozen=True)
class Selection:
    """What is chosen on held-out rows."""

    how: str = "fixed"  # `greedy`, `learned`, `search`; `fixed` chooses nothing
    metric: str = "macro_f1"  # by what
    trials: int = TRIALS  # of a search
    knots: int = 1  # of `learned`: weights over depth
    space: Mapping[str, Range] = field(default_factory=dict)  # of a search


@dataclass(frozen=True)
class MergePlan:
    """A file of merges."""

    name: str  # of the merge, as a member of an ensemble: the file's
    recipes: tuple[MergeRecipe, ...]  # in the order to carry them out; the last one is the merge
    selection: Selection  # of the last one
    # training items that BatchNorm is estimated anew on; 0 keeps what was merged
    batchnorm: int = ITEMS
    resize_pos_embed: bool = False  # position embeddings of other image sizes are resized

    @property
    def final(self) -> MergeRecipe:
        """Return the last recipe, the one whose result is kept."""
        return self.recipes[-1]


def merge_file(word: str) -> Path:
    """Return the file of a merge, given as a path or by name; raises UserError for neither."""
    if word.endswith((".yaml", ".yml")):
        return Path(word)
    folders = [folder for folder in paths.config_dirs("merges") if folder.is_dir()]
    files = {file.stem: file for folder in folders[::-1] for file in folder.glob("*.yaml")}
    if word not in files:
        raise unknown_name("merge", word, files, "or the path of a .yaml file")
    return files[word]


def read_plan(path: Path) -> MergePlan:
    """Read a file of merges.

    Raises:
        UserError: see `read_recipes`; a wrong value of one of our own keys; something to choose in
            another document than the last; a name that is no plain one.
    """
    name = path.stem
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or paths.model_from_slug(name) != name:
        raise UserError(
            f"{path}: the file's name is the merge's; want letters, digits, '.', '_' and '-'"
        )
    recipes = tuple(read_recipes(path, MORE_KEYS))
    for recipe in recipes[:-1]:
        for key in recipe.more:
            raise UserError(f"{path}: {key} belongs into the last document, not {recipe.name!r}")
    more = recipes[-1].more
    items, resize = more.get("batchnorm", ITEMS), more.get("resize_pos_embed", False)
    if isinstance(items, bool) or not isinstance(items, int) or items < 0 or items == 1:
        raise UserError(f"{path}: batchnorm is a number of items, 2 or more, or 0; found {items!r}")
    if not isinstance(resize, bool):
        raise UserError(f"{path}: resize_pos_embed is true or false; found {resize!r}")
    return MergePlan(name, recipes, _selection(recipes[-1], str(path)), items, resize)


def check_name(name: str, dataset: str, scheme: str) -> None:
    """Raise a UserError where the name of a merge is that of a model, or of another member."""
    if name in model_names():
        raise UserError(f"{name} is the name of a model; give the merge's file another name")
    refuse_extra_name(dataset, scheme, name)


def _selection(recipe: MergeRecipe, where: str) -> Selection:
    more = recipe.more
    how, search = more.get("select"), more.get("search")
    if how is None and search is None:
        for key in ("metric", "trials", "knots"):
            if key in more:
                raise UserError(f"{where}: {key} goes with `select` or `search`")
        return Selection()
    if how is not None and search is not None:
        raise UserError(f"{where}: `select` and `search` are two ways to choose; give one")
    metric = more.get("metric", "macro_f1")
    if metric not in METRICS:
        raise UserError(f"{where}: {unknown_name('metric', str(metric), METRICS)}")
    trials = _number(more.get("trials", TRIALS), 1, f"{where}: trials")
    if how is not None:
        knots = _number(more.get("knots", 1), 1, f"{where}: knots")
        _check_select(recipe, how, where)
        return Selection(how, metric, trials, knots)
    if not isinstance(search, dict) or not search:
        raise UserError(f"{where}: `search` holds parameters and the values to try")
    space = {str(key): _range(recipe, str(key), value, where) for key, value in search.items()}
    return Selection("search", metric, trials, 1, space)


def _check_select(recipe: MergeRecipe, how: Any, where: str) -> None:  # noqa: ANN401
    if how not in SELECTS:
        raise UserError(f"{where}: {unknown_name('select', str(how), SELECTS)}")
    wanted = {"greedy": "uniform", "learned": "linear"}[how]
    if recipe.merge_method != wanted:
        raise UserError(f"{where}: select: {how} goes with merge_method: {wanted}")
    if len(recipe.models) < 2:
        raise UserError(f"{where}: select: {how} wants two or more models")


def _range(recipe: MergeRecipe, name: str, value: Any, where: str) -> Range:  # noqa: ANN401
    place = f"{where}: search: {name}"
    try:
        parameter = recipe.method.parameter(name)
    except UserError as error:
        raise UserError(f"{where}: search: {error}") from None
    content = {"values": value} if isinstance(value, list) else value
    if not isinstance(content, dict):
        raise UserError(f"{place}: want a list of values, or low and high")
    known = ("values", "low", "high", "each", "knots")
    for key in content:
        if key not in known:
            raise UserError(f"{place}: {unknown_name('key', str(key), known)}")
    each = content.get("each", "all")
    if each not in EACH:
        raise UserError(f"{place}: {unknown_name('each', str(each), EACH)}")
    if each == "model" and not parameter.per_model:
        raise UserError(f"{place}: {name} of {recipe.merge_method} is one for all models")
    knots = _number(content.get("knots", 1), 1, f"{place}: knots")
    values, low, high = _values(content, parameter, place)
    if isinstance(parameter.default, bool) and (knots > 1 or not values):
        raise UserError(f"{place}: {name} is true or false: give both as a list")
    return Range(values, low, high, each, knots)


def _values(
    content: Mapping[str, Any], parameter: Parameter, place: str
) -> tuple[tuple[Any, ...], float, float]:
    """Return the values to try, or none and the bounds between which they lie."""
    try:
        if content.get("values"):
            return tuple(parameter.checked(one) for one in content["values"]), 0.0, 1.0
        if "low" not in content or "high" not in content:
            raise UserError("want both low and high, or a list of values")
        low, high = (float(parameter.checked(content[key])) for key in ("low", "high"))
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    if not low < high:
        raise UserError(f"{place}: low {low:g} is not below high {high:g}")
    return (), low, high


def _number(value: Any, least: int, what: str) -> int:  # noqa: ANN401
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{what}: want a whole number from {least} on, found {value!r}")
    return value
