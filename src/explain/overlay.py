"""Maps as colours on the picture that a net saw."""

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # RGB (s, s, 3)
SHARE = 0.6  # of the colours in a picture, the rest is what the net sees
FAINT = 0.75  # the same where a map is largest, if its least places are to stay as they are
HOTTEST = 0.2  # share of the pixels that is checked, and outlined
LINE = (255, 255, 255), (0, 0, 0)  # a line that is seen on light and on dark


def overlay(picture: Picture, where: NDArray[np.floating]) -> Picture:
    """Return a picture under the colours of a map, the hottest 20 % outlined.

    Smooth, the stronger the larger the map is: where it is least the picture is as it was.

    Args:
        picture: uint8 (s, s, 3).
        where: (s, s), or of another size, to be brought to it; 0 to 1.
    """
    where = enlarged(where, len(picture))
    grey = np.rint(255 * where.clip(0, 1)).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    share = FAINT * where.clip(0, 1)[:, :, None]
    mixed = np.rint(share * colours + (1 - share) * picture).astype(np.uint8)
    outlines, _ = cv2.findContours(
        hottest(where).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
    )
    width = max(1, len(picture) // 150)
    for colour, wider in zip(LINE[::-1], (2, 0), strict=True):
        cv2.drawContours(mixed, outlines, -1, colour, width + wider)
    return mixed


def enlarged(where: NDArray[np.floating], size: int) -> NDArray[np.float32]:
    """Return a map as float (size, size), straight lines between its cells."""
    given = np.ascontiguousarray(where, np.float32)
    return np.asarray(cv2.resize(given, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)


def hottest(where: NDArray[np.floating], share: float = HOTTEST) -> NDArray[np.bool_]:
    """Return which pixels of a map (s, s) are its largest, exactly a share of them.

    Of equal ones (a map that is zero but for a few cells) those near larger ones.
    """
    size, most = len(where), max(1, round(share * where.size))
    wide = cv2.GaussianBlur(where.astype(np.float32), (0, 0), size / 8)
    order = np.lexsort((-wide.ravel(), -where.ravel()))
    mask = np.zeros(where.size, bool)
    mask[order[:most]] = True
    return mask.reshape(where.shape)


def heat(
    picture: Picture, where: NDArray[np.floating], limits: tuple[float, float] | None = None
) -> Picture:
    """Return a picture under the colours of a map (side, side), from its least to its largest.

    With `limits` from and to these values, which maps of several pictures share.
    """
    low, high = limits or (float(where.min()), float(where.max()))
    scaled = ((where - low) / (high - low) if high > low else np.zeros_like(where)).clip(0, 1)
    size = picture.shape[1], picture.shape[0]
    grey = cv2.resize((255 * scaled).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    colours = cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    mixed = SHARE * colours.astype(np.float64) + (1 - SHARE) * picture
    return np.rint(mixed).astype(np.uint8)
