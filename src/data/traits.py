"""Cheap traits of an image file, enough for a small model to tell where it comes from."""

import io
import warnings
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from src.data.formats import file_format
from src.data.images import UnreadableImageError, decode_image
from src.data.sources import read_bytes

BANDS = 8  # rings of the spectrum
CROP = 256  # side of the largest central square whose spectrum is taken
NONE = -1.0  # stands for a trait that this kind of file does not have
FORMATS = ("jpeg", "png", "webp", "gif", "bmp", "tiff")
FILE = (
    "bytes", "width", "height", "aspect", "bytes per pixel", "format", "jpeg quantisation",
    "jpeg chroma subsampling",
)  # fmt: skip
CHANNELS = ("red", "green", "blue")
PIXELS = (
    *(f"{what} of {channel}" for channel in CHANNELS for what in ("mean", "spread")),
    "saturation", "clipped", "sharpness", "blockiness",
    *(f"spectrum {band + 1}/{BANDS}" for band in range(BANDS)),
)  # fmt: skip
NAMES = (*FILE, *PIXELS)


def traits_of(root: Path, path: str) -> NDArray[np.float64]:
    """Return the traits of one image, (len(NAMES),) float64; all NaN where it cannot be read.

    The traits of the file (`FILE`) say how it was stored, those of the pixels (`PIXELS`) what is
    to be seen: colours, sharpness, jumps at the borders of 8x8 blocks, and the share of power at
    each of `BANDS` spatial frequencies, low to high.
    """
    try:
        data = read_bytes(root, path)
        pixels = decode_image(data)
    except UnreadableImageError:
        return np.full(len(NAMES), np.nan)
    return np.concatenate([_file_traits(data, pixels), _pixel_traits(pixels)])


def _file_traits(data: bytes, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    height, width = pixels.shape[:2]
    kind = file_format(data)
    number = FORMATS.index(kind) if kind in FORMATS else len(FORMATS)
    table, subsampling = _jpeg_header(data) if kind == "jpeg" else (NONE, NONE)
    size = len(data)
    return np.array(
        [size, width, height, width / height, size / (width * height), number, table, subsampling]
    )


def _jpeg_header(data: bytes) -> tuple[float, float]:
    """Return the mean of the luma quantisation table, and the mean of subsampling factors."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd EXIF is not this function's matter
            image = Image.open(io.BytesIO(data))
            tables = getattr(image, "quantization", {})
            layers = getattr(image, "layer", [])
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        return NONE, NONE
    table = float(np.mean(tables[min(tables)])) if tables else NONE
    factors = [layer[1] * layer[2] for layer in layers]
    return table, float(np.mean(factors)) if factors else NONE


def _pixel_traits(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    square = _central(pixels)
    grey = cv2.cvtColor(square, cv2.COLOR_RGB2GRAY).astype(np.float64)
    small = np.asarray(cv2.resize(pixels, (32, 32), interpolation=cv2.INTER_AREA), np.float64)
    colours = small.reshape(-1, 3)
    means, spreads = colours.mean(0), colours.std(0)
    saturation = (colours.max(1) - colours.min(1)).mean()
    clipped = np.mean((square == 0) | (square == 255))
    sharpness = np.abs(cv2.Laplacian(grey, cv2.CV_64F)).mean()
    first = np.stack([means, spreads], axis=1).ravel()
    rest = [saturation, clipped, sharpness, blockiness(grey)]
    return np.concatenate([first, rest, spectrum(grey)])


def _central(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a central part of at most CROP x CROP that begins on the grid of JPEG blocks."""
    top, left = (max(0, side - CROP) // 16 * 8 for side in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + CROP, left : left + CROP])


def blockiness(grey: NDArray[np.float64]) -> float:
    """Return the mean step across the borders of 8x8 blocks over the mean step elsewhere.

    Args:
        grey: (height, width), beginning at a block's corner; 1.0 where it is under 16 wide or high.
    """
    if min(grey.shape) < 16:
        return 1.0
    at = elsewhere = 0.0
    for axis in (0, 1):
        steps = np.abs(np.diff(grey, axis=axis)).mean(1 - axis)
        border = np.arange(len(steps)) % 8 == 7
        at, elsewhere = at + steps[border].mean(), elsewhere + steps[~border].mean()
    return (at + 1e-3) / (elsewhere + 1e-3)


def spectrum(grey: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log10 of the mean power in rings of equal width, the mean (frequency 0) left out.

    Args:
        grey: (height, width).

    Returns:
        (BANDS,) relative to the power of all rings together, so that contrast plays no part; 0
        where there is no ring or no power.
    """
    height, width = grey.shape
    power = np.abs(np.fft.rfft2(grey - grey.mean())) ** 2
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    ring = np.minimum((radius * 2 * BANDS).astype(int), BANDS - 1)
    count = np.bincount(ring.ravel(), minlength=BANDS)
    mean = np.bincount(ring.ravel(), power.ravel(), BANDS) / np.maximum(count, 1)
    total = mean.sum()
    if total <= 1e-9 * grey.size:
        return np.zeros(BANDS)
    return np.where(count > 0, np.log10(mean / total + 1e-12), 0.0)
