"""A merge as written down in YAML: mergekit's schema where it applies, several in one file.

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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.dataclasses import dataclass as checked_dataclass

from src.errors import UserError
from src.merging.methods import METHODS, Method, Parameter
from src.strict_yaml import STRICT, Int, Keys, Plain, Word, checked, parse_documents, read_text
from src.tensor_files import SUFFIXES

Scalar = float | int | bool


@dataclass(frozen=True)
class Choice:
    """A value for the tensors whose name contains `filter`; an empty filter is every tensor."""

    filter: str
    value: "Setting"


# One value, a gradient over depth, or values by name.
Setting = Scalar | tuple[float, ...] | tuple[Choice, ...]


def value_at(setting: Setting, name: str, depth: float) -> Scalar | None:
    """Return the value for a tensor at a depth of 0 (input) to 1 (output), None if no filter fits.

    The first fitting filter counts; a gradient is interpolated linearly.
    """
    if not isinstance(setting, tuple):
        return setting
    if isinstance(setting[0], Choice):
        for choice in setting:
            if isinstance(choice, Choice) and choice.filter in name:
                return value_at(choice.value, name, depth)
        return None
    points: Sequence[float] = setting  # type: ignore[assignment]
    place = depth * (len(points) - 1)
    low = min(int(place), len(points) - 1)
    high = min(low + 1, len(points) - 1)
    return points[low] + (place - low) * (points[high] - points[low])


def filters_of(setting: Setting) -> list[str]:
    """Return the words by which a setting chooses tensors."""
    choices = setting if isinstance(setting, tuple) else ()
    return [one.filter for one in choices if isinstance(one, Choice) and one.filter]


def is_gradient(setting: Setting) -> bool:
    """Return whether a setting, or one of its filters, has other values at other depths."""
    if not isinstance(setting, tuple):
        return False
    if isinstance(setting[0], Choice):
        return any(is_gradient(one.value) for one in setting if isinstance(one, Choice))
    return len(set(setting)) > 1


@dataclass(frozen=True)
class Ingredient:
    """A model of a merge."""

    model: str  # as written
    # its own settings, before those of the recipe
    parameters: Mapping[str, Setting] = field(default_factory=dict)
    # further files of the model by what the method calls them (`fisher`)
    companions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MergeRecipe:
    """One merge."""

    merge_method: str  # a registered method
    models: tuple[Ingredient, ...]  # without the base
    base_model: str = ""  # as written; empty where there is none
    parameters: Mapping[str, Setting] = field(default_factory=dict)  # settings for all models
    # of the maths and the output; empty keeps the output's like the inputs' (maths is float32 at
    # least)
    dtype: str = ""
    out_dtype: str = ""  # of the output, where it differs
    seed: int = 0  # of random methods
    name: str = ""  # by which other documents of the file refer to the result; empty for the last
    more: Mapping[str, Any] = field(default_factory=dict)  # the caller's keys, as read

    @property
    def method(self) -> Method:
        """Return the registered method."""
        return METHODS.get(self.merge_method)

    @property
    def sources(self) -> list[str]:
        """Return the names of all models, the base last, each once."""
        base = [self.base_model] if self.base_model else []
        return list(dict.fromkeys([one.model for one in self.models] + base))

    @property
    def settings(self) -> list[tuple[str, Setting]]:
        """Return all settings with the names of their parameters, the common ones first."""
        given = [self.parameters, *(one.parameters for one in self.models)]
        return [pair for each in given for pair in each.items()]

    def values(self, tensor: str, depth: float) -> dict[str, Any]:
        """Return the method's parameters for one tensor at a depth 0..1; per-model ones as lists.

        A model's own setting comes before the recipe's, and that before the method's default. A
        UserError where a parameter without default has no value for this tensor.
        """
        found: dict[str, Any] = {}
        for parameter in self.method.parameters:
            common = self.parameters.get(parameter.name)
            value = None if common is None else value_at(common, tensor, depth)
            each = [parameter.default if value is None else value]
            if parameter.per_model:
                own = [one.parameters.get(parameter.name) for one in self.models]
                mine = [None if o is None else value_at(o, tensor, depth) for o in own]
                each = [each[0] if one is None else one for one in mine]
            if None in each:
                whose = f" of {self.models[each.index(None)].model}" if parameter.per_model else ""
                raise UserError(
                    f"{self.merge_method} needs parameter {parameter.name!r}{whose}, and for "
                    f"tensor {tensor!r} there is no value"
                )
            found[parameter.name] = each if parameter.per_model else each[0]
        return found

    def with_parameters(self, **changes: Setting) -> "MergeRecipe":
        """Return a copy with other settings for all models, for a search over them."""
        return replace(self, parameters={**self.parameters, **changes})

    def as_dict(self) -> dict[str, Any]:
        """Return plain containers, the same for recipes that mean the same; part of records."""
        return {key: value for key, value in asdict(self).items() if key != "more"}

    def in_words(self) -> str:
        """Return one line: the method, the models, the settings that are given."""
        common = _in_words(self.parameters)
        models = [
            f"{one.model} ({_in_words(one.parameters)})" if one.parameters else one.model
            for one in self.models
        ]
        return f"{self.merge_method} of {', '.join(models)}" + (f"; {common}" if common else "")

    def doubts(self) -> list[str]:
        """Return a line for a gradient over depth that may be meant as one value a model."""
        setting = self.parameters.get("weight", 1.0)
        if (
            not isinstance(setting, tuple)
            or isinstance(setting[0], Choice)
            or not is_gradient(setting)
        ):
            return []
        values = self.values("", 0.0)
        divided = values.get("normalize", values.get("normalize_weights", True))
        cancels = divided and not any("weight" in one.parameters for one in self.models)
        if not cancels and len(setting) != len(self.models):
            return []
        return [
            f"parameter 'weight': {list(setting)} for all models is a gradient over depth, the "
            f"same for each of them{', and divided by its sum it changes nothing' * cancels}; if "
            "one value a model is meant, give each its own under `models`"
        ]


def _in_words(settings: Mapping[str, Setting]) -> str:
    return ", ".join(f"{key} {_number(value)}" for key, value in settings.items())


def _number(value: Setting | Choice) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_number, value)) + "]"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


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
class _ChoiceKeys(Keys):
    value: Any
    filter: str | None = None  # a part of the tensor's name; none and `*` are every tensor


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
    dtype: Literal["float64", "float32", "bfloat16", "float16"] | None = None
    out_dtype: Literal["float64", "float32", "bfloat16", "float16"] | None = None
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
    return _in_order(recipes, where)


def _parse_recipe(content: Any, where: str, kind: type[RecipeKeys]) -> MergeRecipe:  # noqa: ANN401
    given = content if isinstance(content, dict) else {}
    for key in _REFUSED.keys() & given.keys():
        raise UserError(f"{where}: {key!r} is not for image models here: {_REFUSED[key]}")
    keys = checked(content, kind, where, "`merge_method` and `models`, a list of `- model: NAME`")
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
            more={key: given[key] for key in given if key not in RecipeKeys.__dataclass_fields__},
        )
        method.check_models(len(recipe.models), bool(base))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return recipe


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
    try:
        for name, value in (content or {}).items():
            parameter = method.parameter(name)
            if own and not parameter.per_model:
                raise UserError(
                    f"{name!r} of {method.name} is one for all models; put it under the recipe's "
                    "`parameters`"
                )
            settings[name] = parse_setting(value, parameter)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return settings


def parse_setting(content: Any, parameter: Parameter) -> Setting:  # noqa: ANN401
    """Read a parameter's value: a scalar, a list of numbers, or a list of `{filter, value}`.

    Raises:
        UserError: none of these, or a value out of the parameter's range.
    """
    if not isinstance(content, list):
        return parameter.checked(content)
    what = f"parameter {parameter.name!r}"
    if not content:
        raise UserError(f"{what}: the list is empty")
    if any(isinstance(one, dict) for one in content):
        return tuple(_parse_choice(one, parameter, what) for one in content)
    if isinstance(parameter.default, bool):
        raise UserError(f"{what} is true or false: it has no gradient")
    return tuple(float(parameter.checked(one)) for one in content)


def _parse_choice(content: Any, parameter: Parameter, what: str) -> Choice:  # noqa: ANN401
    want = "entries {filter, value}; the one for all other tensors has no filter"
    keys = checked(content, _ChoiceKeys, what, want)
    word, value = keys.filter or "", keys.value
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        raise UserError(f"{what}: a filter inside a filter; write one list")
    return Choice("" if word == "*" else word, parse_setting(value, parameter))


def _in_order(recipes: Sequence[MergeRecipe], where: str) -> list[MergeRecipe]:
    """Sort merges so that each comes after those that it refers to; the one without name last."""
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
