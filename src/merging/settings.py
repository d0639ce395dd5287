"""Values of parameters as recipes write them: one number, a gradient over depth, or by name."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from src.errors import UserError, unknown_name
from src.merging.methods import Parameter

Scalar = float | int | bool
# timm: `blocks.3`, `blocks.2.1`, `stages.1.blocks.0`, `layers.0.blocks.1`, `layer1.0`; torchvision:
# `features.4`; CLIP and transformers: `resblocks.3`, `encoder.layer.3`.
_BLOCK = re.compile(
    r"(?:^|\.)(?:blocks|stages|layers?|features|resblocks|h)\.?(\d+)"
    r"(?:\.(?:blocks\.|layers\.)?(\d+))?(?:\.|$)"
)
_STEM = re.compile(
    r"(?:^|\.)(?:patch_embed|cls_token|reg_token|dist_token|class_embedding|pos_embed"
    r"|positional_embedding|rope|norm_pre|ln_pre|conv_stem|stem|conv1|bn1|embeddings?)(?:\.|$|_)"
)
Depth = Callable[[str], float]


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


def depth_by_name(names: Iterable[str]) -> Depth:
    """Return a function from a tensor's name to its depth, 0 to 1, told from the names alone.

    The first block has depth 0 and the last one 1, as layers have in mergekit, those of stages
    counted through. What lies before the blocks (embeddings, stem) has 0, what lies behind them
    (last norm, head) has 1.

    Args:
        names: of all tensors of the net.
    """
    keys = {name: _block(name) for name in names}
    blocks = sorted({key for key in keys.values() if key is not None})
    last = max(1, len(blocks) - 1)
    places = {key: index / last for index, key in enumerate(blocks)}

    def depth(name: str) -> float:
        key = keys.get(name)
        if key is not None:
            return places[key]
        return 0.0 if _STEM.search(name) else 1.0

    return depth


def _block(name: str) -> tuple[int, int] | None:
    found = _BLOCK.search(name)
    return (int(found[1]), int(found[2] or 0)) if found else None
