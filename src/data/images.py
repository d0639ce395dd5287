"""Bytes to pixels: the one decoder and the one resize that training and prediction share."""

import cv2
import numpy as np
from numpy.typing import NDArray

from src.errors import UserError

# Interpolation when enlarging; shrinking always averages (INTER_AREA), which does not alias.
INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
}
GEOMETRIES = ("squash", "short_side")


class UnreadableImageError(ValueError):
    """The bytes are not an image that can be decoded."""


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Decode an image file's bytes.

    EXIF orientation is applied; grey, palette, alpha and 16-bit images become 8-bit RGB.

    Returns:
        uint8 RGB of shape (height, width, 3).

    Raises:
        UnreadableImageError: empty, or not an image OpenCV can decode.
    """
    if not data:
        raise UnreadableImageError("the file is empty (0 bytes)")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise UnreadableImageError(f"not decodable: {error.err or error}") from None
    if image is None:
        raise UnreadableImageError("not an image (no known format)")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def resize_image(
    image: NDArray[np.uint8], size: int, geometry: str, interpolation: str
) -> NDArray[np.uint8]:
    """Bring an image to a square canvas.

    Args:
        image: uint8 RGB (height, width, 3).
        size: side of the canvas in pixels.
        geometry: `squash` ignores the aspect ratio; `short_side` keeps it and cuts the middle.
        interpolation: used when enlarging (`INTERPOLATIONS`).

    Returns:
        uint8 RGB (size, size, 3), contiguous.

    Raises:
        UserError: unknown geometry.
    """
    height, width = image.shape[:2]
    if geometry == "squash":
        return _resize(image, size, size, interpolation)
    if geometry != "short_side":
        raise UserError(f"unknown geometry {geometry!r}; known: {', '.join(GEOMETRIES)}")
    scale = size / min(height, width)
    image = _resize(
        image, max(size, round(height * scale)), max(size, round(width * scale)), interpolation
    )
    return center_crop(image, size)


def center_crop(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Cut the central (size, size) square out of an image at least that large."""
    top = (image.shape[0] - size) // 2
    left = (image.shape[1] - size) // 2
    return np.ascontiguousarray(image[top : top + size, left : left + size])


def _resize(
    image: NDArray[np.uint8], height: int, width: int, interpolation: str
) -> NDArray[np.uint8]:
    # One side may shrink while the other grows: each has its own way.
    low, narrow = min(height, image.shape[0]), min(width, image.shape[1])
    if image.shape[:2] != (low, narrow):
        image = np.asarray(cv2.resize(image, (narrow, low), interpolation=cv2.INTER_AREA), np.uint8)
    if image.shape[:2] != (height, width):
        method = INTERPOLATIONS[interpolation]
        image = np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)
    return np.ascontiguousarray(image)
