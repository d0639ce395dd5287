"""Terms of the loss on features: they spread images over a sphere, and draw a class together.

Features are brought to length 1 first. Two of the terms look at pairs of one label, which must be
0 or 1: a config that has them and mixes images is refused (`src/config/schema.py`).
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from src.config import LossConfig

SPREAD = 2.0  # t of Wang and Isola


def wants_features(config: LossConfig) -> bool:
    """Tell whether a loss looks at `features`."""
    return max(config.supcon, config.uniformity, config.alignment) > 0


def feature_terms(
    batch: Mapping[str, Tensor], outputs: Mapping[str, Tensor], config: LossConfig
) -> Tensor | None:
    """Return the weighted sum of the terms that a config asks for; None where it asks for none.

    Args:
        batch: `label`, (n,) of 0/1.
        outputs: `features`, float (n, ...).
        config: the terms' weights, and the temperature.

    Returns:
        float32 scalar.
    """
    if not wants_features(config):
        return None
    points = functional.normalize(outputs["features"].flatten(1).float(), dim=1)
    label = batch["label"]
    total = points.new_zeros(())
    if config.supcon > 0:
        total = total + config.supcon * supervised_contrastive(points, label, config.temperature)
    if config.uniformity > 0:
        total = total + config.uniformity * uniformity(points)
    if config.alignment > 0:
        total = total + config.alignment * alignment(points, label)
    return total


def supervised_contrastive(points: Tensor, label: Tensor, temperature: float) -> Tensor:
    """Return the supervised contrastive loss (Khosla et al. 2020, eq. 2), one view an item.

    Args:
        points: float32 (n, d) of length 1.
        label: (n,); items of one label are each other's positives.
        temperature: > 0.

    Returns:
        The mean over the items that have a positive; 0 where none has.
    """
    others = ~torch.eye(len(points), dtype=torch.bool, device=points.device)
    positive = (label[:, None] == label) & others
    alike = (points @ points.T / temperature).masked_fill(~others, float("-inf"))
    log_share = alike - alike.logsumexp(1, keepdim=True)
    count = positive.sum(1)
    means = log_share.masked_fill(~positive, 0.0).sum(1) / count.clamp(min=1)
    return -means.sum() / (count > 0).sum().clamp(min=1)


def uniformity(points: Tensor) -> Tensor:
    """Return log E exp(-2 |x - y|^2) over pairs (Wang and Isola 2020, sec. 4.1); 0 without one.

    Args:
        points: float32 (n, d) of length 1.
    """
    squares = _squared_distances(points)
    pairs = torch.ones_like(squares, dtype=torch.bool).triu(1)
    if len(points) < 2:
        return points.sum() * 0
    return (
        torch.where(pairs, -SPREAD * squares, float("-inf")).logsumexp((0, 1)) - pairs.sum().log()
    )


def alignment(points: Tensor, label: Tensor) -> Tensor:
    """Return the mean of |x - y|^2 over pairs of one label, as GenD (WACV 2026) uses it.

    Wang and Isola 2020, sec. 4.1, with alpha 2; their pairs are two views of one image.

    Args:
        points: float32 (n, d) of length 1.
        label: (n,).

    Returns:
        0 where no two labels are equal.
    """
    pairs = (label[:, None] == label).triu(1)
    total = (_squared_distances(points) * pairs).sum()
    return total / pairs.sum().clamp(min=1)


def _squared_distances(points: Tensor) -> Tensor:
    return (2 - 2 * points @ points.T).clamp(min=0)
