"""Occlusion: how much of the verdict is lost where a part of the picture is hidden.

Zeiler and Fergus, ECCV 2014, sec. 4.2. Hidden is a window of two cells a side, around each cell of
a grid of 8 x 8, so that windows overlap by half: 65 forward passes a picture. What hides it is the
picture itself, blurred (`hide`), for a grey square is a sight of its own.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from src.explain.hide import blurred, hidden
from src.explain.maps import MAPS, Pixels, Towards, logits_of
from src.models.classifier import Classifier

GRID = 8  # windows a side


@MAPS.register("occlusion")
def occlusion(model: Classifier, _: str, pixels: Pixels, towards: Towards) -> NDArray[np.float32]:
    """What the verdict's logit loses, float (n, 8, 8); below 0 where hiding a place adds to it."""
    logits = logits_of(model, _hidden(pixels)).reshape(len(pixels), -1)
    lost = towards[:, None] * (logits[:, :1] - logits[:, 1:])
    return lost.reshape(len(pixels), GRID, GRID).astype(np.float32)


def _hidden(pixels: Pixels) -> Iterator[Pixels]:
    """Yield each picture, then it with each window hidden."""
    size = pixels.shape[1]
    edges = np.rint(np.linspace(0, size, 2 * GRID + 1)).astype(int)
    for picture in pixels:
        yield picture
        soft = blurred(picture)
        for row in range(GRID):
            for column in range(GRID):
                window = np.zeros((size, size), bool)
                down, across = (
                    slice(edges[max(2 * k - 1, 0)], edges[min(2 * k + 3, 2 * GRID)])
                    for k in (row, column)
                )
                window[down, across] = True
                yield hidden(picture, soft, window)
