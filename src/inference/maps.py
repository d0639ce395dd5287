"""Where a net says that pictures were manipulated: its boundary maps, of one size."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from src.compute.device import autocast, inference_precision
from src.compute.memory import Pieces, advised
from src.compute.request import Compute
from src.errors import UserError
from src.inference.predict import WAYS_OUT
from src.models.classifier import Classifier
from src.models.intermediates import check_intermediates

KIND = "boundary"
Maps = NDArray[np.float16]


class MapPredictor:
    """Predicts the boundary maps of pictures.

    Args:
        model: whose net shows a boundary map.
        name: of the model.
        side: of the maps.
        compute: where and how fast.

    Raises:
        UserError: the net shows none; says which models' do.
    """

    def __init__(self, model: Classifier, name: str, side: int, compute: Compute) -> None:
        chip = compute.chip
        self.model, self.name, self.side, self.chip = model.to(chip).eval(), name, side, chip
        check_intermediates(model.net, [KIND], model.spec.image_size, name)
        self._precision = inference_precision(chip, compute.precision)
        self._pieces = Pieces(compute.batch_size, shrinks=compute.auto_batch, device=chip)

    def __call__(self, pixels: NDArray[np.uint8]) -> Maps:
        """Return the maps (n, side, side) of pictures as the net takes them, (n, s, s, 3).

        Raises:
            UserError: memory ran out, or a map is not of numbers.
        """
        size, given = self.model.spec.image_size, torch.from_numpy(pixels).to(self.chip)
        with torch.inference_mode(), advised(self.chip, self._pieces.size, size, WAYS_OUT):
            maps = self._pieces(self._forward, given).cpu().numpy()
        if not np.isfinite(maps).all():
            raise UserError(f"{self.name}: its boundary maps hold NaN: it was not trained well")
        return maps

    def _forward(self, pixels: Tensor) -> Tensor:
        with autocast(self.chip, self._precision):
            maps: Tensor = self.model({"pixels": pixels}, also=(KIND,))[KIND]
        return to_grid(maps.float(), self.side).clamp(-6e4, 6e4).half()


def to_grid(maps: Tensor, side: int) -> Tensor:
    """Bring float maps (n, h, w) to (n, side, side): means of cells, or straight lines between."""
    larger = max(maps.shape[1:]) < side
    way: Callable[..., Tensor] = partial(functional.adaptive_avg_pool2d, output_size=side)
    if larger:
        way = partial(functional.interpolate, size=(side, side), mode="bilinear")
    return way(maps[:, None])[:, 0]
