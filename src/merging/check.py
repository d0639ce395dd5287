"""What makes a merge hopeless, said before or while it is made, by the name of the tensor."""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from src.errors import UserError
from src.merging.sources import Source

SHOWN = 5


def check_alike(sources: Sequence[Source]) -> list[str]:
    """Check that all sources hold the same tensors, and return their names.

    Raises:
        UserError: a tensor is missing somewhere, or has another shape or kind of numbers; names
            the tensors, the sources and what differs.
    """
    first = sources[0]
    for other in sources[1:]:
        for some, its in ((first, other), (other, first)):
            held = set(its.names)
            lacking = [name for name in some.names if name not in held]
            if lacking:
                raise UserError(
                    f"{its.label} lacks {_count(lacking)} of {some.label}: {_some(lacking)}; only "
                    "models of one architecture can be merged"
                )
    for other in sources[1:]:
        differing = [name for name in first.names if first.shape(name) != other.shape(name)]
        if differing:
            name = differing[0]
            raise UserError(
                f"{_count(differing)} of {first.label} and {other.label} differ in shape, the "
                f"first is {name!r}: {first.shape(name)} and {other.shape(name)}; models with "
                "other heads or image sizes cannot be merged as they are"
            )
        for name in first.names:
            one, two = first.dtype(name), other.dtype(name)
            if one.is_floating_point != two.is_floating_point:
                raise UserError(
                    f"tensor {name!r} is {one} in {first.label} and {two} in {other.label}"
                )
    return first.names


def check_finite(tensor: Tensor, name: str, source: Source) -> None:
    """Raise a UserError where a tensor holds NaN or infinity; names it and its source."""
    # One sum is quicker than a mask; only where it overflows is every element looked at.
    if not bool(tensor.sum().isfinite() or tensor.isfinite().all()):
        bad = int((~tensor.isfinite()).sum())
        raise UserError(
            f"{source.label}: tensor {name!r} holds NaN or infinity at {bad} of {tensor.numel()} "
            "places; nothing merged with it would work"
        )


class MergeRefusedError(UserError):
    """A method does not take these values of its parameters together."""


class Sameness:
    """Finds sources that are equal in every tensor, at the cost of a comparison a source.

    Args:
        sources: to compare.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._equal = set(combinations(range(len(sources)), 2))

    @property
    def decided(self) -> bool:
        """Whether no two can be equal any more."""
        return not self._equal

    def look(self, tensors: Sequence[Tensor]) -> None:
        """Take in one tensor of every source, in their order; frozen ones prove nothing."""
        self._equal = {(a, b) for a, b in self._equal if torch.equal(tensors[a], tensors[b])}

    def warnings(self, base: Source | None = None) -> list[str]:
        """Return a line for each pair that was equal throughout.

        Args:
            base: of them, the common ancestor.
        """
        lines = []
        for a, b in sorted(self._equal):
            one, other = self._sources[a], self._sources[b]
            if base in (one, other):
                model = other if one is base else one
                lines.append(
                    f"{model.label} equals the base {base.label}: it has learnt nothing to merge"
                )
            else:
                lines.append(f"{one.label} and {other.label} are the same weights")
        return lines


def _count(names: Sequence[str]) -> str:
    return "1 tensor" if len(names) == 1 else f"{len(names)} tensors"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:SHOWN])
    return shown + (", ..." if len(names) > SHOWN else "")
