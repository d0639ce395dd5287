"""What a student learns from a teacher, by name: a function each of what both nets show of a batch.

A setting is a keyword of its function: a key of `distil.NAME` in a model's YAML, with that range
and that default. What a net shows is named in `models/intermediates`; a new term is one function.

Whatever reads a config reads this, so that torch is imported where something is computed.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from src.registry import Registry
from src.strict_yaml import Int, NotNegative, Positive, keywords_of, make_keys

if TYPE_CHECKING:
    from torch import Tensor
else:
    Tensor = Any

Shown = Mapping[str, Any]  # `logit` float (n,), and what `models/intermediates` names
Most = Annotated[Int, Field(ge=3)]
LEAST_ITEMS = 3  # of which an angle can be taken
_TINY = 1e-12  # of a squared distance, whose root has no slope at 0


@dataclass(frozen=True)
class Term:
    """A loss between what a student and what a teacher show."""

    # (student, teacher, **settings) -> float32 (), or (k,) of k layers, whose mean is the loss
    loss: Callable[..., Tensor]
    # what both must show; where a setting `kind` decides, by its value
    needs: str | Mapping[str, str]
    # a layer, trained along, brings the student's `features` to the teacher's width before
    projects: bool = False
    of_pairs: bool = False  # it looks at pairs of items

    def needed(self, settings: Any) -> str:  # noqa: ANN401 - a model that `distil_keys` made
        """Return what both nets must show."""
        return self.needs if isinstance(self.needs, str) else self.needs[settings.kind]

    def wants_whole(self, settings: Any) -> bool:  # noqa: ANN401
        """Tell whether a batch may not come in pieces: items are held against each other."""
        return self.of_pairs or self.needed(settings) == "head_tokens"


DISTIL: Registry[Term] = Registry("distillation term")


def distils(
    needs: str | Mapping[str, str], *, projects: bool = False, of_pairs: bool = False
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Return a decorator that files a term under its function's name; see `Term`."""

    def add(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        DISTIL.register(function.__name__)(Term(function, needs, projects, of_pairs))
        return function

    return add


def distil_keys() -> dict[str, tuple[Any, Any]]:
    """Return kind and default of the key of each term: its settings and its `weight`, or None."""
    found = {}
    for name in DISTIL:
        keys = {"weight": (Positive, 1.0)} | keywords_of(DISTIL.get(name).loss)
        found[name] = (make_keys(f"{name}_settings", keys) | None, None)
    return found


def asked_of(config: object) -> dict[str, Any]:
    """Return the terms that a `DistilConfig` asks for, name -> settings."""
    return {name: found for name in DISTIL if (found := getattr(config, name)) is not None}


@distils("logit")
def logit(student: Shown, teacher: Shown, *, temperature: Positive = 4.0) -> Tensor:
    """Divergence of softened probabilities (Hinton et al. 2015, sec. 2), times temperature squared.

    The two classes have logits 0 and ours, so that KL(teacher || student) is that of two coins.
    """
    from torch.nn import functional

    own, given = student["logit"].float() / temperature, teacher["logit"].float() / temperature
    said = functional.binary_cross_entropy_with_logits(own, given.sigmoid())
    surprise = functional.binary_cross_entropy_with_logits(given, given.sigmoid())
    return temperature**2 * (said - surprise)


@distils("features", projects=True)
def feature(student: Shown, teacher: Shown, *, normalize: bool = True) -> Tensor:
    """Squared distance of features, the student's projected (FitNets, Romero et al. 2015, eq. 3).

    With `normalize` of features of length 1, 0 to 4, the mean over items; without it the mean over
    their numbers too.
    """
    from torch.nn import functional

    own, given = _points(student), _points(teacher)
    if not normalize:
        return functional.mse_loss(own, given)
    own, given = functional.normalize(own, dim=1), functional.normalize(given, dim=1)
    return (own - given).square().sum(1).mean()


@distils("features", of_pairs=True)
def relation(
    student: Shown,
    teacher: Shown,
    *,
    distance: NotNegative = 1.0,
    angle: NotNegative = 2.0,
    most: Most = 64,
) -> Tensor:
    """Distances and angles between the items of a batch (RKD, Park et al. 2019, eq. 5 and 8).

    `distance` and `angle` are their weights. Distances are relative to their own mean over pairs
    apart; both are compared by smooth L1. Angles of n items are n^3 numbers, so that only the first
    `most` items of a batch are looked at. A batch of fewer than 3 teaches nothing.
    """
    from torch.nn import functional

    own, given = _points(student)[:most], _points(teacher)[:most]
    if len(own) < LEAST_ITEMS:
        return own.sum() * 0
    total = own.new_zeros(())
    if distance:
        pair = _distances(own), _distances(given)
        total = total + distance * functional.smooth_l1_loss(*pair)
    if angle:
        total = total + angle * functional.smooth_l1_loss(_angles(own), _angles(given))
    return total


@distils({"map": "mean_attention", "head_correlation": "head_tokens"})
def attention(
    student: Shown, teacher: Shown, *, kind: Literal["map", "head_correlation"] = "map"
) -> Tensor:
    """Self-attention, layer i of the student held against layer round(i L_t / L_s) of the teacher.

    `map`: squared distance of the maps, heads averaged, as T-FLIP takes it; in units of a uniform
    map, since the numbers of one of 197 tokens are .005 and their differences vanish: the plain
    mean squared error times the number of tokens squared. `head_correlation`: the teacher's class
    tokens, all heads side by side and each item's of length 1, rebuilt from the student's through
    their product over the batch, so that no number of heads need agree (HaTFAS 2024, its published
    code; items in a batch should outnumber the student's width, else any student rebuilds much).
    """
    import torch

    if kind == "map":
        own, given = student["mean_attention"], teacher["mean_attention"]
        pairs = matched(own, given)
        return torch.stack(
            [(len(a[0]) * (a.float() - b.float())).square().mean() for a, b in pairs]
        )
    pairs = matched(student["head_tokens"], teacher["head_tokens"])
    return torch.stack([_rebuilt(a, b) for a, b in pairs])


@distils("stages")
def channel_attention(student: Shown, teacher: Shown) -> Tensor:
    """Where feature maps are strong (Zagoruyko and Komodakis, ICLR 2017, eq. 2; sum of squares).

    Squared distance of unit vectors, 0 to 2: the mean of their published code times the number of
    places. Resolutions that differ are brought to the student's.
    """
    import torch

    pairs = matched(student["stages"], teacher["stages"])
    return torch.stack([
        (_places(own, own.shape[2:]) - _places(given, own.shape[2:])).square().sum(1).mean()
        for own, given in pairs
    ])  # fmt: skip


def matched(student: list[Tensor], teacher: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return each layer of a student with that of the teacher at the same share of the depth."""
    ratio = len(teacher) / len(student)
    places = [max(1, math.floor(i * ratio + 0.5)) for i in range(1, len(student) + 1)]
    return [(own, teacher[place - 1]) for own, place in zip(student, places, strict=True)]


def _points(shown: Shown) -> Tensor:
    return shown["features"].flatten(1).float()


def _distances(points: Tensor) -> Tensor:
    """Return distances (n, n) over their mean; the diagonal is exactly 0, as `cdist`'s is not."""
    squares = (points[None] - points[:, None]).square().sum(2)
    apart = squares > 0
    found = squares.clamp(min=_TINY).sqrt() * apart
    return found / (found.sum() / apart.sum().clamp(min=1)).clamp(min=_TINY)


def _angles(points: Tensor) -> Tensor:
    """Return the cosines (n, n, n) at each item between the directions to any two others."""
    from torch.nn import functional

    directions = functional.normalize(points[None] - points[:, None], dim=2)
    return directions @ directions.mT


def _rebuilt(own: Tensor, given: Tensor) -> Tensor:
    from torch.nn import functional

    own = functional.normalize(own.float(), dim=1)
    given = functional.normalize(given.float(), dim=1)
    return (given - own @ (own.mT @ given)).square().mean()


def _places(maps: Tensor, size: Any) -> Tensor:  # noqa: ANN401 - a torch.Size
    """Return the mean over channels of squares, (n, h * w) of length 1, at a resolution."""
    from torch.nn import functional

    strength = maps.float().square().mean(1, keepdim=True)
    if strength.shape[2:] != size:
        strength = functional.adaptive_avg_pool2d(strength, size)
    return functional.normalize(strength.flatten(1), dim=1)
