"""Bytes to pixels: the one decoder and the one resize that training and prediction share.

And the remedy of a metadata audit: every picture is stored the same way before it is used.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from src.config import FaceConfig, InputSpec
from src.data.pixels.decode import decode
from src.errors import UserError

# Interpolation when enlarging; shrinking always averages (INTER_AREA), which does not alias.
INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
}
GEOMETRIES = ("squash", "short_side", "native")
SUBSAMPLING = "420"  # of chroma, as nearly every JPEG of the web
CHROMA = {
    "420": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "422": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "444": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
}
LONGEST = 16  # times the short side; `short_side` leaves the rest of a thin strip aside at once


class Canvas(NamedTuple):
    """Side and way of resizing of a square that images are brought to."""

    size: int
    geometry: str
    interpolation: str
    reencode: int | None = None  # quality of a JPEG that the square then passes through
    face: FaceConfig | None = None  # cut out before (`src.data.pixels.faces`)

    @classmethod
    def of(cls, spec: InputSpec) -> "Canvas":
        """Return the canvas that a model's preprocessing starts from."""
        return cls(spec.canvas, spec.geometry, spec.interpolation, spec.reencode, spec.face)

    def draw(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring an image (uint8 RGB, height, width, 3) to this canvas: (size, size, 3)."""
        square = resize_image(image, self.size, self.geometry, self.interpolation)
        return square if self.reencode is None else reencode(square, self.reencode)

    def draw_mask(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring a mask (uint8, height, width) to this canvas: (size, size).

        It is enlarged by straight lines: bicubic ones would ring beside every edge.
        """
        return resize_image(mask, self.size, self.geometry, "bilinear")


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Decode an image file's bytes at full size; of a damaged picture what could be decoded.

    Raises:
        UnreadableImageError: see `decode`.
    """
    return decode(data, [None]).pixels[0]


def make_canvases(
    data: bytes,
    canvases: Sequence[Canvas],
    cut: Callable[[Canvas, NDArray[np.uint8]], NDArray[np.uint8]] | None = None,
) -> tuple[list[NDArray[np.uint8]], str]:
    """Bring an image file's bytes to each canvas; and "" or what is wrong with the picture.

    What a canvas holds depends on the file and that canvas alone, whatever others are asked for:
    a JPEG is decoded once for each scale that they need. `cut` cuts out of the picture what a
    canvas with a `face` shows.

    Raises:
        UnreadableImageError: see `decode`.
    """
    # Only JPEGs are decoded at a smaller scale: where formats must not show, none is.
    whole = [
        c.geometry == "native" or c.face is not None or c.reencode is not None for c in canvases
    ]
    sides = [None if w else canvas.size for w, canvas in zip(whole, canvases, strict=True)]
    decoded, problem = decode(data, sides)
    if cut is not None:
        decoded = [cut(canvas, image) for canvas, image in zip(canvases, decoded, strict=True)]
    return [canvas.draw(image) for image, canvas in zip(decoded, canvases, strict=True)], problem


def resize_image(
    image: NDArray[np.uint8], size: int, geometry: str, interpolation: str
) -> NDArray[np.uint8]:
    """Bring an image (uint8, height, width[, 3]) to a square canvas (size, size[, 3]), contiguous.

    `squash` ignores the aspect ratio; `short_side` keeps it and cuts the middle; `native` cuts the
    middle out of the pixels as they are, and continues an image that is smaller by reflection
    (again and again where it is much smaller). `interpolation` is for enlarging.

    Raises:
        UserError: unknown geometry.
    """
    height, width = image.shape[:2]
    if geometry == "squash":
        return resize(image, size, size, interpolation)
    if geometry == "native":
        return _reflect(_center(image, min(height, size), min(width, size)), size)
    if geometry != "short_side":
        raise UserError(f"unknown geometry {geometry!r}; known: {', '.join(GEOMETRIES)}")
    short = min(height, width)
    if max(height, width) > LONGEST * short:  # else its enlarged strip would not fit into memory
        image = _center(image, min(height, LONGEST * short), min(width, LONGEST * short))
        height, width = image.shape[:2]
    scale = size / short
    image = resize(
        image, max(size, round(height * scale)), max(size, round(width * scale)), interpolation
    )
    return center_crop(image, size)


def center_crop(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Cut the central (size, size) square out of an image at least that large."""
    return np.ascontiguousarray(_center(image, size, size))


def _center(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def _reflect(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Continue an image of at most (size, size) on all sides until it is that large."""
    high, wide = size - image.shape[0], size - image.shape[1]
    edges = (high // 2, high - high // 2, wide // 2, wide - wide // 2)
    if any(edges):
        image = np.asarray(cv2.copyMakeBorder(image, *edges, cv2.BORDER_REFLECT_101), np.uint8)
    return np.ascontiguousarray(image)


def resize(
    image: NDArray[np.uint8], height: int, width: int, interpolation: str
) -> NDArray[np.uint8]:
    """Bring an image (uint8, height, width[, 3]) to another height and width."""
    # One side may shrink while the other grows: each has its own way.
    low, narrow = min(height, image.shape[0]), min(width, image.shape[1])
    if image.shape[:2] != (low, narrow):
        image = np.asarray(cv2.resize(image, (narrow, low), interpolation=cv2.INTER_AREA), np.uint8)
    if image.shape[:2] != (height, width):
        method = INTERPOLATIONS[interpolation]
        image = np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)
    return np.ascontiguousarray(image)


def to_jpeg(pixels: NDArray[np.uint8], quality: int, chroma: str = SUBSAMPLING) -> bytes:
    """Return a picture (uint8 RGB) as a JPEG: baseline, the IJG's tables, Pillow's pixels.

    `quality` is 1 to 100 on the scale of libjpeg (IJG, 1991), `chroma` is `420`, `422` or `444`.
    """
    # Not by simplejpeg, which reads them: below quality 96 it stores with a coarser DCT than files
    # of the web have, whatever `fastdct` says (`findings/simplejpeg_encodes_by_the_fast_dct.sh`).
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    how = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, CHROMA[chroma]]
    return cv2.imencode(".jpg", bgr, how)[1].tobytes()


def reencode(
    pixels: NDArray[np.uint8], quality: int, chroma: str = SUBSAMPLING
) -> NDArray[np.uint8]:
    """Return the pixels that are left of a picture when it was stored by `to_jpeg`.

    Whatever the file was, its pixels now lie on one grid of blocks with one table. What an earlier
    compression took away, detail and colour alike, stays away.
    """
    return simplejpeg.decode_jpeg(to_jpeg(pixels, quality, chroma), "RGB")


def webp(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Return the pixels that are left of a picture (uint8 RGB) when it was stored as WebP."""
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    data = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8)
