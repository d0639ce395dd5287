"""SimCLR beside the labels: two views of an image are alike, those of different images are not."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from src.config import SimclrConfig
from src.models.classifier import Classifier
from src.models.intermediates import check_intermediates
from src.training.auxiliary import Auxiliary, Batch, Shown

VIEWS = "views"  # of a batch, uint8 (n, 2, s, s, 3); of what is shown, float32 (2, n, d)


class SimCLR(Auxiliary):
    """InfoNCE between two views of a batch, behind a projector that is trained along.

    Chen et al. 2020, eq. 1; the projector is FLIP's: features, 4096, 4096, 256, BatchNorm and ReLU
    between.
    """

    wants = frozenset({"features"})

    def __init__(self, config: SimclrConfig, model: Classifier, name: str) -> None:
        super().__init__()
        self.config = config
        seen = check_intermediates(model.net, self.wants, model.spec.image_size, name)
        sizes = [seen["features"].flatten(1).shape[1], config.hidden, config.hidden]
        layers: list[nn.Module] = []
        for wide, out in pairwise(sizes):
            layers += [nn.Linear(wide, out), nn.BatchNorm1d(out), nn.ReLU(inplace=True)]
        self.projector = nn.Sequential(*layers, nn.Linear(config.hidden, config.width))

    def forward(
        self, batch: Batch, shown: Shown, again: Callable[[Batch], Shown]
    ) -> dict[str, Tensor]:
        """Return `simclr`, times its weight; see `Auxiliary`."""
        points = self.projector(features_of_views(batch, shown, again).flatten(0, 1))
        first, second = functional.normalize(points, dim=1).chunk(2)
        return {"simclr": self.config.weight * info_nce(first, second, self.config.temperature)}


def info_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return the mean over 2 n views of -log of the share that an image's other view has (eq. 1).

    `first` and `second` are the views, float32 (n, d), of length 1.
    """
    points, n = torch.cat([first, second]), len(first)
    alike = (points @ points.T / temperature).fill_diagonal_(float("-inf"))
    other = torch.arange(2 * n, device=points.device).roll(n)
    return functional.cross_entropy(alike, other)


def features_of_views(batch: Batch, shown: Shown, again: Callable[[Batch], Shown]) -> Tensor:
    """Return the features of both views of a batch, float32 (2, n, d): one pass for all terms."""
    if VIEWS not in shown:
        views = batch[VIEWS].transpose(0, 1).flatten(0, 1)
        asked: dict[str, Any] = {"pixels": views, "item": batch["item"].repeat(2)}
        shown[VIEWS] = again(asked)["features"].flatten(1).float().unflatten(0, (2, -1))
    return shown[VIEWS]
