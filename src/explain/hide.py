"""How a part of a picture is hidden: blurred until only rough colours are left, behind a soft edge.

The edge matters here. A net that looks for seams takes a hard edge between sharp and blurred for
one, so that hiding what it found makes its verdict surer (figures in docs/explain.md).
"""

import cv2
import numpy as np
from numpy.typing import NDArray

BLUR = 0.2  # sigma, as a share of the side
EDGE = 0.06  # the same, of what softens the region's edge

Picture = NDArray[np.uint8]  # RGB (s, s, 3)


def blurred(picture: Picture) -> Picture:
    """Return a picture of which only rough colours are left."""
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), BLUR * len(picture)), np.uint8)


def hidden(picture: Picture, soft: Picture, region: NDArray[np.bool_]) -> Picture:
    """Return a picture with a region (s, s) of it hidden; `soft` is the picture, `blurred`."""
    share = cv2.GaussianBlur(region.astype(np.float32), (0, 0), EDGE * len(picture))[:, :, None]
    return np.rint(share * soft + (1 - share) * picture).astype(np.uint8)
