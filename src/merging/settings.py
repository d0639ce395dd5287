"""Values of parameters as recipes write them: one number, a gradient over depth, or by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from src.errors import UserError, unknown_name
from src.merging.depth import Depth, depth_by_name
from src.merging.methods import Parameter

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


def _parse_choice(content: Any, parameter: Parameter, where: str) -> Choice:  # noqa: ANN401
    if not isinstance(content, dict):
        raise UserError(
            f"parameter {parameter.name!r}: {content!r} stands among `{{filter, value}}` entries; "
            "the one for all other tensors has a value and no filter"
        )
    for key in content:
        if key not in ("filter", "value"):
            raise unknown_name(f"key of parameter {parameter.name!r}", key, ("filter", "value"))
    if "value" not in content:
        raise UserError(f"parameter {parameter.name!r}: the entry {content!r} has no value")
    word = content.get("filter") or ""
    if not isinstance(word, str):
        raise UserError(f"parameter {parameter.name!r}: filter {word!r} is not a text")
    value = content["value"]
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
