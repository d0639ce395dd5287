"""The remedy of a metadata audit: every picture is stored the same way before it is used."""

import numpy as np
import simplejpeg
from numpy.typing import NDArray

SUBSAMPLING = "420"  # as nearly every JPEG of the web


def to_jpeg(pixels: NDArray[np.uint8], quality: int, chroma: str = SUBSAMPLING) -> bytes:
    """Return a picture as a JPEG: baseline, the IJG's tables.

    Args:
        pixels: uint8 RGB (height, width, 3).
        quality: 1 to 100, on the scale of libjpeg (IJG, 1991).
        chroma: subsampling, `420`, `422` or `444`.
    """
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, colorsubsampling=chroma)


def reencode(
    pixels: NDArray[np.uint8], quality: int, chroma: str = SUBSAMPLING
) -> NDArray[np.uint8]:
    """Return the pixels that are left of a picture when it was stored by `to_jpeg`.

    Whatever the file was, its pixels now lie on one grid of blocks with one table. What an earlier
    compression took away, detail and colour alike, stays away.

    Returns:
        uint8 RGB of the same shape.
    """
    return simplejpeg.decode_jpeg(to_jpeg(pixels, quality, chroma), "RGB")
