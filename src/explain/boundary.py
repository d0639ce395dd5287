"""The localisation map of nets that have one: where they say that two pictures meet."""

import numpy as np
import torch
from numpy.typing import NDArray

from src.explain.maps import MAPS, Pixels, Towards, batches, chip_of
from src.models.classifier import Classifier
from src.models.intermediates import check_intermediates

KIND = "boundary"


@MAPS.register(KIND)
def boundary(model: Classifier, name: str, pixels: Pixels, _: Towards) -> NDArray[np.float32]:
    """Boundary maps (n, h, w), about 0 to 1: what speaks for fake alone (`FAKE_ONLY`)."""
    size, found = model.spec.image_size, []
    check_intermediates(model.net, [KIND], size, name)
    with torch.inference_mode():
        for batch in batches(pixels, size):
            given = torch.from_numpy(batch).to(chip_of(model))
            found.append(model({"pixels": given}, also=(KIND,))[KIND].float().cpu().numpy())
    return np.concatenate(found)
