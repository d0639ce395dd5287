"""A merge as written down: which models, by which method, with which settings of each tensor.

Values of parameters as recipes write them: one number, a gradient over depth, or by name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pydantic.dataclasses import dataclass as checked_dataclass

from src.errors import UserError
from src.merging.depth import Depth, depth_by_name
from src.merging.methods import METHODS, Method, Parameter
from src.strict_yaml import STRICT, Keys, checked

__all__ = [
    "Choice",
    "Depth",
    "Setting",
    "depth_by_name",
    "filters_of",
    "is_gradient",
    "parse_setting",
    "value_at",
]

Scalar = float | int | bool


@dataclass(frozen=True)
class Choice:
    """A value for the tensors whose name contains `filter`; an empty filter is every tensor."""

    filter: str
    value: "Setting"


Setting = Scalar | tuple[float, ...] | tuple[Choice, ...]


def parse_setting(content: Any, parameter: Parameter, where: str) -> Setting:  # noqa: ANN401
    """Read a parameter's value, with all that it holds checked.

    Args:
        content: a scalar, a list of numbers, or a list of `{filter, value}`.
        parameter: what it is a value of.
        where: for messages.

    Raises:
        UserError: neither of these, or a value out of the parameter's range.
    """
    try:
        if not isinstance(content, list):
            return parameter.checked(content)
        if not content:
            raise UserError(f"parameter {parameter.name!r}: the list is empty")
        if any(isinstance(one, dict) for one in content):
            return tuple(_parse_choice(one, parameter, where) for one in content)
        if isinstance(parameter.default, bool):
            raise UserError(f"parameter {parameter.name!r} is true or false: it has no gradient")
        return tuple(float(parameter.checked(one)) for one in content)
    except UserError as error:
        raise error if str(error).startswith(where) else UserError(f"{where}: {error}") from None


@checked_dataclass(frozen=True, config=STRICT)
class _ChoiceKeys(Keys):
    value: Any
    filter: str | None = None  # a part of the tensor's name; none and `*` are every tensor


def _parse_choice(content: Any, parameter: Parameter, where: str) -> Choice:  # noqa: ANN401
    want = "entries {filter, value}; the one for all other tensors has no filter"
    keys = checked(content, _ChoiceKeys, f"parameter {parameter.name!r}", want)
    word, value = keys.filter or "", keys.value
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        raise UserError(f"parameter {parameter.name!r}: a filter inside a filter; write one list")
    return Choice("" if word == "*" else word, parse_setting(value, parameter, where))


def value_at(setting: Setting, name: str, depth: float) -> Scalar | None:
    """Return the value for a tensor, None where no filter fits.

    Args:
        setting: of the first fitting filter; a gradient is interpolated linearly.
        name: of the tensor.
        depth: 0 (input) to 1 (output).
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
    if not isinstance(setting, tuple) or not isinstance(setting[0], Choice):
        return []
    return [one.filter for one in setting if isinstance(one, Choice) and one.filter]


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

    def values(self, tensor: str, depth: float) -> dict[str, Any]:
        """Return the method's parameters for one tensor; per-model ones as lists.

        A model's own setting comes before the recipe's, and that before the method's default.

        Args:
            tensor: its name.
            depth: 0 to 1.

        Raises:
            UserError: a parameter without default has no value for this tensor.
        """
        found: dict[str, Any] = {}
        for parameter in self.method.parameters:
            common = self.parameters.get(parameter.name)
            value = None if common is None else value_at(common, tensor, depth)
            value = parameter.default if value is None else value
            if not parameter.per_model:
                each = [value]
            else:
                own = [one.parameters.get(parameter.name) for one in self.models]
                each = [None if o is None else value_at(o, tensor, depth) for o in own]
                each = [value if one is None else one for one in each]
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
