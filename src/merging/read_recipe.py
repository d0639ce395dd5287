"""Merges written down in YAML: mergekit's schema where it applies, several stages in one file.

    merge_method: ties
    base_model: start
    models:
      - {model: a, parameters: {weight: 1, density: [0.3, 0.9]}}
      - {model: b, parameters: {weight: [{filter: head, value: 0}, {value: 1}]}}
    parameters: {normalize: true}
    dtype: float32

What a model's name stands for (a file, a model of the zoo) is the caller's matter, but for the
`name:` of an earlier or later document of the file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.dataclasses import dataclass as checked_dataclass

from src.errors import UserError
from src.merging.methods import METHODS, Method
from src.merging.recipe import Ingredient, MergeRecipe, Setting, parse_setting
from src.merging.sources import SUFFIXES
from src.strict_yaml import STRICT, Int, Keys, Plain, Word, checked, parse_documents, read_text

Dtype = Literal["float64", "float32", "bfloat16", "float16"]


def _no_file(name: str) -> str:
    if name.endswith(SUFFIXES):
        raise ValueError("want a plain name, not the name of a file of weights")
    return name


def _spelled_out(entry: Any) -> Any:  # noqa: ANN401 - whatever a YAML holds
    if not isinstance(entry, dict):
        return {"model": entry} if isinstance(entry, str) else entry
    files = {name for method in METHODS for name in METHODS.get(method).companions} & entry.keys()
    own = {key: entry[key] for key in entry if key not in files}
    return own | {"companions": {key: entry[key] for key in files}} if files else own


@checked_dataclass(frozen=True, config=STRICT)
class ModelKeys(Keys):
    """A model of a merge as written down."""

    model: Word  # a file, a model, or the name of another document
    parameters: dict[str, Any] | None = None  # its own settings
    # its further files; they are written beside the other keys, as the method calls them
    companions: dict[str, Word] = field(default_factory=dict)


@checked_dataclass(frozen=True, config=STRICT)
class RecipeKeys(Keys):
    """A merge as written down; see `MergeRecipe`."""

    merge_method: Word
    models: Annotated[
        list[Annotated[ModelKeys, BeforeValidator(_spelled_out)]], Field(min_length=1)
    ]
    name: Annotated[Plain, AfterValidator(_no_file)] | None = None
    base_model: Word | None = None
    parameters: dict[str, Any] | None = None
    dtype: Dtype | None = None
    out_dtype: Dtype | None = None
    seed: Annotated[Int, Field(ge=0)] = 0


_REFUSED = {
    "slices": "this merges models of one architecture whole; for another value a layer, give a "
    "parameter as a list (a gradient over depth) or as {filter, value} entries",
    "modules": "this merges models of one architecture whole; for another value a part, give a "
    "parameter as {filter, value} entries",
    "tokenizer": "image models have no tokenizer; take it out",
    "tokenizer_source": "image models have no tokenizer; take it out",
    "chat_template": "image models have no chat template; take it out",
}


def read_recipes(path: Path, kind: type[RecipeKeys] = RecipeKeys) -> list[MergeRecipe]:
    """Read a file of one or several merges, in the order in which they can be carried out.

    Args:
        path: YAML, documents separated by `---`.
        kind: `RecipeKeys`, or with further keys that the caller understands; those end up in
            `more`, as read.

    Raises:
        UserError: not readable, an unknown key, method or parameter (with the nearest known one),
            a value out of range, documents that refer to each other in a circle.
    """
    return parse_recipes(read_text(path), str(path), kind)


def parse_recipes(text: str, where: str, kind: type[RecipeKeys] = RecipeKeys) -> list[MergeRecipe]:
    """Read merges from YAML text; see `read_recipes`."""
    documents = parse_documents(text, where)
    if not documents:
        raise UserError(f"{where}: no merge in it")
    recipes = []
    for number, document in enumerate(documents, 1):
        place = where if len(documents) == 1 else f"{where}, document {number}"
        recipes.append(_parse_recipe(document, place, kind))
    return in_order(recipes, where)


def _parse_recipe(content: Any, where: str, kind: type[RecipeKeys]) -> MergeRecipe:  # noqa: ANN401
    given = content if isinstance(content, dict) else {}
    for key in _REFUSED.keys() & given.keys():
        raise UserError(f"{where}: {key!r} is not for image models here: {_REFUSED[key]}")
    keys = checked(content, kind, where, "`merge_method` and `models`, a list of `- model: NAME`")
    ours = RecipeKeys.__dataclass_fields__
    try:
        method = METHODS.get(keys.merge_method)
        base = keys.base_model or ""
        if method.base == "no" and base in [one.model for one in keys.models]:
            base = ""  # mergekit asks for one of every method; here it is one of the models
        models = [_ingredient(one, n, method) for n, one in enumerate(keys.models, 1)]
        recipe = MergeRecipe(
            merge_method=method.name,
            # mergekit lists the base among the models too, and merges it nowhere
            models=tuple(one for one in models if one.model != base),
            base_model=base,
            parameters=_settings(keys.parameters, method, "parameters"),
            dtype=keys.dtype or "",
            out_dtype=keys.out_dtype or "",
            seed=keys.seed,
            name=keys.name or "",
            more={key: given[key] for key in given if key not in ours},
        )
        method.check_models(len(recipe.models), bool(base))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return recipe


def in_order(recipes: Sequence[MergeRecipe], where: str) -> list[MergeRecipe]:
    """Sort merges so that each comes after those that it refers to.

    Raises:
        UserError: a name twice, several without one, or a circle.
    """
    names = [recipe.name for recipe in recipes]
    for name in names:
        if names.count(name) > 1:
            what = f"two documents have the name {name!r}" if name else "two documents have no name"
            raise UserError(f"{where}: {what}; give every one but the last its own `name:`")
    waiting, ready = list(recipes), list[MergeRecipe]()
    while waiting:
        missing = {recipe.name for recipe in waiting}
        free = [recipe for recipe in waiting if not missing.intersection(recipe.sources)]
        if not free:
            raise UserError(
                f"{where}: {', '.join(sorted(missing))} refer to each other in a circle"
            )
        ready += free
        waiting = [recipe for recipe in waiting if recipe not in free]
    return sorted(ready, key=lambda recipe: not recipe.name)


def _ingredient(keys: ModelKeys, number: int, method: Method) -> Ingredient:
    for name in method.companions:
        if name not in keys.companions:
            raise UserError(f"{method.name} needs `{name}: FILE` of every model")
    for name in keys.companions:
        if name not in method.companions:
            raise UserError(f"model {number}: {method.name} reads no {name!r}")
    where = f"model {number} ({keys.model})"
    settings = _settings(keys.parameters, method, where, own=True)
    return Ingredient(keys.model, settings, keys.companions)


def _settings(
    content: Mapping[str, Any] | None, method: Method, where: str, *, own: bool = False
) -> dict[str, Setting]:
    settings = {}
    for name, value in (content or {}).items():
        try:
            parameter = method.parameter(name)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        if own and not parameter.per_model:
            raise UserError(
                f"{where}: {name!r} of {method.name} is one for all models; put it under the "
                "recipe's `parameters`"
            )
        settings[parameter.name] = parse_setting(value, parameter, where)
    return settings
