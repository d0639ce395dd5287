"""Perceptual hashes of a picture and of its mirror image."""

import cv2
import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SMALL = 64  # larger pictures are shrunk to this square before the (slow) perceptual hash
# Below this mean distance of grey values (0..255) from their mean, a hash is noise and rounding.
MIN_SPREAD = 1.5


def perceptual_hashes(pixels: NDArray[np.uint8]) -> tuple[int, int, bool]:
    """Return the 64-bit hash of an image and of its mirror image, and whether they mean anything.

    Args:
        pixels: uint8 RGB (height, width, 3).
    """
    if max(pixels.shape[:2]) > SMALL:
        shrunk = cv2.resize(pixels, (SMALL, SMALL), interpolation=cv2.INTER_AREA)
        pixels = np.asarray(shrunk, np.uint8)
    grey = Image.fromarray(pixels).convert("L")
    values = np.asarray(grey)
    mirrored = Image.fromarray(np.ascontiguousarray(values[:, ::-1]))
    spread = float(np.abs(values - values.mean()).mean())
    return _hash(grey), _hash(mirrored), spread >= MIN_SPREAD


def _hash(image: Image.Image) -> int:
    bits = np.packbits(imagehash.phash(image).hash.ravel())
    return int.from_bytes(bits.tobytes(), "big")
