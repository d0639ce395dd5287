"""`--budget "2 GMAC, 6 M, 5 MB"`: limits on what a model may cost, and which of them it keeps."""

import math
import re
from dataclasses import dataclass

from src.errors import UserError
from src.inference.cost import Cost

# unit -> what it limits, its size in that thing's own unit
UNITS = {
    "GMAC": ("macs", 1e9),
    "MMAC": ("macs", 1e6),
    "M": ("parameters", 1e6),
    "k": ("parameters", 1e3),
    "MB": ("file_bytes", 1e6),
    "KB": ("file_bytes", 1e3),
    "ms": ("warm_seconds", 1e-3),
    "images/s": ("images_per_second", 1.0),
}
_SPELLED = {unit.lower(): unit for unit in UNITS} | {"gmacs": "GMAC", "mmacs": "MMAC"}
AT_LEAST = "images_per_second"


@dataclass(frozen=True)
class Limit:
    """One limit."""

    text: str  # as it was given
    what: str  # a value of `UNITS`
    value: float  # at most; at least, of `AT_LEAST`

    def kept(self, cost: Cost) -> bool:
        """Tell whether a model keeps it."""
        found = {
            "macs": cost.macs,
            "parameters": cost.parameters,
            "file_bytes": cost.file_bytes,
            "warm_seconds": cost.fresh.warm_seconds,
            "images_per_second": cost.turns.median,
        }[self.what]
        return found >= self.value if self.what == AT_LEAST else found <= self.value


def read_budget(text: str) -> list[Limit]:
    """Return the limits that a text names, separated by commas.

    Raises:
        UserError: none, no positive number, an unknown unit, or one thing limited twice.
    """
    limits: dict[str, Limit] = {}
    for part in text.split(","):
        words = part.strip()
        match = re.fullmatch(r"([0-9.eE+-]+?)\s*([A-Za-z][A-Za-z/]*)", words)
        unit = _SPELLED.get(match[2].lower()) if match else None
        if match is None or unit is None:
            raise UserError(
                f"--budget {words!r}: want a number and a unit, one of {', '.join(UNITS)}; "
                'such as "2 GMAC, 6 M, 5 MB"'
            )
        what, size = UNITS[unit]
        try:
            value = float(match[1]) * size
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise UserError(f"--budget {words!r}: want a number above 0")
        if what in limits:
            raise UserError(f"--budget: {limits[what].text} and {words} limit the same thing")
        limits[what] = Limit(words, what, value)
    return list(limits.values())


def broken(cost: Cost, limits: list[Limit]) -> list[str]:
    """Return the limits that a model does not keep, as they were given."""
    return [limit.text for limit in limits if not limit.kept(cost)]
