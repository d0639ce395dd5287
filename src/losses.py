"""Losses by name, and terms on features that are added to any of them; each with its settings.

A setting is a keyword of its function: a key of `loss` in a model's YAML, with that range and that
default. A term has its name as a key, too: its weight. Labels may lie between 0 and 1 (mixup): an
item then costs what its parts cost, at a weight between those of the classes.

Whatever reads a config reads this, so that torch is imported where something is computed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from src.registry import Registry
from src.strict_yaml import NotNegative, Positive, keywords_of

if TYPE_CHECKING:
    from torch import Tensor
else:
    Tensor = Any

SPREAD = 2.0  # t of Wang and Isola


@dataclass(frozen=True)
class Items:
    """What a loss sees of a batch."""

    batch: Mapping[str, Tensor]  # `label`, int or float (n,) in [0, 1]
    outputs: Mapping[str, Tensor]  # `logit`, float (n,); `features`, float (n, ...), for terms
    class_weights: Tensor  # float (2,), of real and of fake
    smoothing: float = 0.0  # `label_smoothing`

    @property
    def logit(self) -> Tensor:
        """The logits, float32 (n,), whatever they were computed in."""
        return self.outputs["logit"].float()

    @property
    def label(self) -> Tensor:
        """The labels as float32."""
        return self.batch["label"].float()

    @property
    def target(self) -> Tensor:
        """The labels smoothed (Szegedy et al. 2016, sec. 7), float32 (n,)."""
        return self.label * (1 - self.smoothing) + 0.5 * self.smoothing

    @property
    def weight(self) -> Tensor:
        """Weights (n,); a mixed item's lies between those of the classes."""
        return (1 - self.label) * self.class_weights[0] + self.label * self.class_weights[1]


LOSSES: Registry[Callable[..., Tensor]] = Registry("loss")
TERMS: dict[str, Callable[..., Tensor]] = {}  # of points, float32 (n, d) of length 1, and labels
OF_PAIRS: list[str] = []  # terms of pairs of one label, which must be 0 or 1


def term(*, pairs: bool) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Return a decorator that files a term under its name; `pairs` looks at pairs of one label."""

    def add(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        TERMS[function.__name__] = function
        OF_PAIRS.extend([function.__name__] * pairs)
        return function

    return add


def all_settings() -> dict[str, tuple[Any, Any]]:
    """Return kind and default of every key of `loss` that belongs to one loss or term."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in LOSSES:
        found |= keywords_of(LOSSES.get(name))
    for name, function in TERMS.items():
        found |= {name: (NotNegative, 0.0)} | keywords_of(function)
    return found


def asked_terms(config: object) -> list[str]:
    """Return the terms on `features` that a `LossConfig` asks for."""
    return [name for name in TERMS if getattr(config, name) > 0]


def total_loss(
    batch: Mapping[str, Tensor],
    outputs: Mapping[str, Tensor],
    config: Any,  # noqa: ANN401 - a `LossConfig`, which is made of what stands here
    class_weights: Tensor,
) -> Tensor:
    """Return the loss that a config names, with its terms: a float32 scalar; see `Items`."""
    items = Items(batch, outputs, class_weights, config.label_smoothing)
    loss, asked = _call(LOSSES.get(config.name), config, items), asked_terms(config)
    if not asked:
        return loss
    from torch.nn import functional

    points = functional.normalize(outputs["features"].flatten(1).float(), dim=1)
    total = points.new_zeros(())
    for name in asked:
        total = total + getattr(config, name) * _call(TERMS[name], config, points, batch["label"])
    return loss + total


def _call(function: Callable[..., Tensor], config: object, *arguments: object) -> Tensor:
    return function(*arguments, **{key: getattr(config, key) for key in keywords_of(function)})


@LOSSES.register("bce")
def bce(items: Items) -> Tensor:
    """Binary cross-entropy on one logit, the mean over the batch."""
    from torch.nn import functional

    return functional.binary_cross_entropy_with_logits(items.logit, items.target, items.weight)


@LOSSES.register("ce")
def ce(items: Items) -> Tensor:
    """Cross-entropy of two classes, whose logits are 0 and ours.

    Without class weights it is `bce`, smoothed or not. With them each class's part of a smoothed
    or mixed label has the weight of that class. The sum is divided by the number of items, not by
    their weights: pieces of a batch then add up to the batch.
    """
    import torch

    return torch.nn.functional.cross_entropy(
        torch.stack([torch.zeros_like(items.logit), items.logit], 1),
        torch.stack([1 - items.label, items.label], 1),
        items.class_weights,
        label_smoothing=items.smoothing,
    )


@LOSSES.register("focal")
def focal(items: Items, *, gamma: NotNegative = 2.0) -> Tensor:
    """Focal loss (Lin et al. 2017, eq. 4; alpha is the class weights): `gamma` for both classes."""
    return _focused(items, gamma, gamma)


@LOSSES.register("asymmetric")
def asymmetric(items: Items, *, gamma: NotNegative = 2.0, gamma_fake: NotNegative = 0.0) -> Tensor:
    """Asymmetric loss (Ridnik et al. 2021, sec. 2.2): `gamma` for reals, `gamma_fake` for fakes.

    The easy ones of the reals count less.
    """
    return _focused(items, gamma, gamma_fake)


def _focused(items: Items, gamma_real: float, gamma_fake: float) -> Tensor:
    """Weigh each class's part of the cross-entropy by (1 - its probability) ** gamma."""
    from torch.nn import functional

    target = items.target
    fake, real = functional.logsigmoid(items.logit), functional.logsigmoid(-items.logit)
    # Powers of probabilities in logarithms: 1 - p would be 0 for a sure item, and its slope nan.
    parts = target * (gamma_fake * real).exp() * fake
    parts = parts + (1 - target) * (gamma_real * fake).exp() * real
    return -(items.weight * parts).mean()


@term(pairs=True)
def supcon(points: Tensor, label: Tensor, *, temperature: Positive = 0.1) -> Tensor:
    """Supervised contrastive loss (Khosla et al. 2020, eq. 2), one view an item.

    Items of one label are each other's positives; the mean is over the items that have one, and 0
    where none has.
    """
    import torch

    others = ~torch.eye(len(points), dtype=torch.bool, device=points.device)
    positive = (label[:, None] == label) & others
    alike = (points @ points.T / temperature).masked_fill(~others, float("-inf"))
    log_share = alike - alike.logsumexp(1, keepdim=True)
    count = positive.sum(1)
    means = log_share.masked_fill(~positive, 0.0).sum(1) / count.clamp(min=1)
    return -means.sum() / (count > 0).sum().clamp(min=1)


@term(pairs=False)
def uniformity(points: Tensor, _: Tensor) -> Tensor:
    """Spread items: log E exp(-2 |x - y|^2) over pairs (Wang and Isola 2020, sec. 4.1)."""
    if len(points) < 2:
        return points.sum() * 0
    import torch

    squares = _squared_distances(points)
    pairs = torch.ones_like(squares, dtype=torch.bool).triu(1)
    spread = torch.where(pairs, -SPREAD * squares, float("-inf"))
    return spread.logsumexp((0, 1)) - pairs.sum().log()


@term(pairs=True)
def alignment(points: Tensor, label: Tensor) -> Tensor:
    """Draw a class together: mean of |x - y|^2 over pairs of one label, as GenD (WACV 2026).

    Wang and Isola 2020, sec. 4.1, with alpha 2; their pairs are two views of one image. 0 where no
    two labels are equal.
    """
    pairs = (label[:, None] == label).triu(1)
    total = (_squared_distances(points) * pairs).sum()
    return total / pairs.sum().clamp(min=1)


def _squared_distances(points: Tensor) -> Tensor:
    return (2 - 2 * points @ points.T).clamp(min=0)
