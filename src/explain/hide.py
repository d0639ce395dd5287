"""How a part of a picture is hidden, behind a soft edge: blurred until only rough colours are left,
or with cells of the same picture that were shuffled.

The edge matters here. A net that looks for seams takes a hard edge between sharp and blurred for
one, so that hiding what it found makes its verdict surer (figures in docs/explain.md).
"""

import cv2
import numpy as np
from numpy.typing import NDArray

BLUR = 0.2  # sigma, as a share of the side
EDGE = 0.06  # the same, of what softens the region's edge
CELLS = 16  # a side, of what is shuffled

Picture = NDArray[np.uint8]  # RGB (s, s, 3)


def blurred(picture: Picture) -> Picture:
    """Return a picture of which only rough colours are left."""
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), BLUR * len(picture)), np.uint8)


def shuffled(picture: Picture) -> Picture:
    """Return a picture of which the cells of a grid lie elsewhere, always in the same order."""
    size = len(picture)
    side = max(1, round(size / CELLS))
    more = -size % side
    framed = cv2.copyMakeBorder(picture, 0, more, 0, more, cv2.BORDER_REFLECT)
    wide = np.asarray(framed, np.uint8)
    n = len(wide) // side
    cells = wide.reshape(n, side, n, side, 3).transpose(0, 2, 1, 3, 4).reshape(-1, side, side, 3)
    cells = cells[np.random.default_rng(0).permutation(n * n)].reshape(n, n, side, side, 3)
    return cells.transpose(0, 2, 1, 3, 4).reshape(wide.shape)[:size, :size]


def hidden(picture: Picture, other: Picture, region: NDArray[np.bool_]) -> Picture:
    """Return a picture with a region (s, s) of it hidden: by `other`, `blurred` or `shuffled`."""
    share = cv2.GaussianBlur(region.astype(np.float32), (0, 0), EDGE * len(picture))[:, :, None]
    return np.rint(share * other + (1 - share) * picture).astype(np.uint8)
