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

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.errors import UserError, unknown_name
from src.merging.methods import METHODS, Method
from src.merging.recipe import Ingredient, MergeRecipe, Setting, parse_setting
from src.merging.sources import SUFFIXES
from src.strict_yaml import parse_yaml, read_text

DTYPES = ("float64", "float32", "bfloat16", "float16")
KEYS = ("name", "merge_method", "base_model", "models", "parameters", "dtype", "out_dtype", "seed")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_REFUSED = {
    "slices": "this merges models of one architecture whole; for another value a layer, give a "
    "parameter as a list (a gradient over depth) or as {filter, value} entries",
    "modules": "this merges models of one architecture whole; for another value a part, give a "
    "parameter as {filter, value} entries",
    "tokenizer": "image models have no tokenizer; take it out",
    "tokenizer_source": "image models have no tokenizer; take it out",
    "chat_template": "image models have no chat template; take it out",
}


def read_recipes(path: Path, more_keys: Collection[str] = ()) -> list[MergeRecipe]:
    """Read a file of one or several merges, in the order in which they can be carried out.

    Args:
        path: YAML, documents separated by `---`.
        more_keys: keys that the caller understands; they end up in `more`.

    Raises:
        UserError: not readable, an unknown key, method or parameter (with the nearest known one),
            a value out of range, documents that refer to each other in a circle.
    """
    return parse_recipes(read_text(path), str(path), more_keys)


def parse_recipes(text: str, where: str, more_keys: Collection[str] = ()) -> list[MergeRecipe]:
    """Read merges from YAML text; see `read_recipes`."""
    documents = [part for part in _documents(text) if part.strip()]
    if not documents:
        raise UserError(f"{where}: no merge in it")
    single = len(documents) == 1
    recipes = []
    for number, document in enumerate(documents, 1):
        place = where if single else f"{where}, document {number}"
        recipes.append(parse_recipe(parse_yaml(document, place), place, more_keys))
    return in_order(recipes, where)


def _documents(text: str) -> list[str]:
    documents: list[list[str]] = [[]]
    for line in text.splitlines(keepends=True):
        if line.startswith("---") and not line[3:].split("#")[0].strip():
            documents.append([])
        else:
            documents[-1].append(line)
    only_comments = ("#", "%")
    return [
        "".join(lines)
        for lines in documents
        if any(line.strip() and not line.startswith(only_comments) for line in lines)
    ]


def parse_recipe(content: Any, where: str, more_keys: Collection[str] = ()) -> MergeRecipe:  # noqa: ANN401
    """Check one merge, given as plain containers; see `read_recipes` for what is refused."""
    if not isinstance(content, dict):
        raise UserError(f"{where}: want keys and values, found {type(content).__name__}")
    for key in content:
        if key in _REFUSED:
            raise UserError(f"{where}: {key!r} is not for image models here: {_REFUSED[key]}")
        if key not in KEYS and key not in more_keys:
            raise _at(where, unknown_name("key", str(key), [*KEYS, *more_keys]))
    for key in ("merge_method", "models"):
        if key not in content:
            raise UserError(f"{where}: `{key}` is missing")
    try:
        method = METHODS.get(_text(content, "merge_method", where))
    except UserError as error:
        raise _at(where, error) from None
    base = _text(content, "base_model", where)
    if method.base == "no" and base and base in _listed(content["models"]):
        base = ""  # mergekit asks for one of every method; here it is one of the models
    recipe = MergeRecipe(
        merge_method=method.name,
        models=_ingredients(content["models"], method, base, where),
        base_model=base,
        parameters=_settings(content.get("parameters"), method, f"{where}: parameters"),
        dtype=_dtype(content, "dtype", where),
        out_dtype=_dtype(content, "out_dtype", where),
        seed=_seed(content, where),
        name=_name(content, where),
        more={key: content[key] for key in content if key in more_keys},
    )
    try:
        method.check_models(len(recipe.models), bool(base))
    except UserError as error:
        raise _at(where, error) from None
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


def _ingredients(content: Any, method: Method, base: str, where: str) -> tuple[Ingredient, ...]:  # noqa: ANN401
    if not isinstance(content, list) or not content:
        raise UserError(f"{where}: `models` is a list of `- model: NAME`")
    found = []
    for number, entry in enumerate(content, 1):
        place = f"{where}: model {number}"
        entry = {"model": entry} if isinstance(entry, str) else entry
        if not isinstance(entry, dict) or not isinstance(entry.get("model"), str):
            raise UserError(f"{place}: want `model: NAME`, found {entry!r}")
        known = ("model", "parameters", *method.companions)
        for key in entry:
            if key not in known:
                raise _at(place, unknown_name("key", str(key), known))
        lacking = [name for name in method.companions if not isinstance(entry.get(name), str)]
        if lacking:
            raise UserError(f"{place}: {method.name} needs `{lacking[0]}: FILE` of every model")
        name = entry["model"]
        settings = _settings(entry.get("parameters"), method, f"{place} ({name})", own=True)
        if name != base:  # mergekit lists the base among the models too, and merges it nowhere
            found.append(Ingredient(name, settings, {c: entry[c] for c in method.companions}))
    return tuple(found)


def _settings(
    content: Any,  # noqa: ANN401
    method: Method,
    where: str,
    *,
    own: bool = False,
) -> dict[str, Setting]:
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{where}: want parameters as keys and values, found {content!r}")
    settings = {}
    for name, value in content.items():
        try:
            parameter = method.parameter(str(name))
        except UserError as error:
            raise _at(where, error) from None
        if own and not parameter.per_model:
            raise UserError(
                f"{where}: {name!r} of {method.name} is one for all models; put it under the "
                "recipe's `parameters`"
            )
        settings[parameter.name] = parse_setting(value, parameter, where)
    return settings


def _text(content: Mapping[str, Any], key: str, where: str) -> str:
    value = content.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or not value:
        raise UserError(f"{where}: {key} {value!r} is not a name")
    return value


def _listed(models: Any) -> list[Any]:  # noqa: ANN401
    entries = models if isinstance(models, list) else []
    return [entry.get("model") if isinstance(entry, dict) else entry for entry in entries]


def _name(content: Mapping[str, Any], where: str) -> str:
    name = _text(content, "name", where)
    if name and (not _PLAIN.fullmatch(name) or name.endswith(SUFFIXES)):
        raise UserError(
            f"{where}: name {name!r} is not a plain one; want letters, digits, '.', '_' and '-', "
            "and not the name of a file of weights"
        )
    return name


def _dtype(content: Mapping[str, Any], key: str, where: str) -> str:
    value = _text(content, key, where)
    if value and value not in DTYPES:
        raise _at(where, unknown_name(key, value, DTYPES))
    return value


def _seed(content: Mapping[str, Any], where: str) -> int:
    value = content.get("seed", 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UserError(f"{where}: seed {value!r} is not a whole number from 0 on")
    return value


def _at(where: str, error: UserError) -> UserError:
    return UserError(f"{where}: {error}")
