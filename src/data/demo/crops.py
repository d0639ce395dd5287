"""Regions of the demo's photographs, crops of them, and the fakes made of the crops.

Fakes are what generators do to pixels: resampling, splicing and denoising, at random strengths.
Every function takes and returns uint8 RGB of one shape, draws only from the generator it is given,
and leaves its input alone.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from src.data.pixels.images import INTERPOLATIONS

SIDE = 64
PHOTOGRAPHS = ("china", "flower")
GRID = (5, 7)  # rows and columns of regions in a photograph
SCALES = (1.0, 1.25)  # 1.25: the picture of a camera with fewer pixels
STEP = 3  # grid of crop positions; closer ones would be near copies of each other
SMOOTH = 8.0  # a Laplacian up to this is smooth
MIN_TEXTURE = 0.2  # share of a crop's pixels that are not smooth
MIN_CROPS = 24  # a region that yields fewer is left out (sky)
TEST_SHARE = 5  # one region in so many is kept for test

Image = NDArray[np.uint8]


RESAMPLERS = ("nearest", "bilinear", "bicubic", "transposed")
DENOISERS = ("nlmeans", "bilateral", "median")


def make_fake(image: Image, donor: Image, rng: np.random.Generator) -> Image:
    """Pass a crop through one manipulation, after which it is about as sharp as before.

    A splice takes its patch from the `donor`, another crop of the same size.
    """
    kind = str(rng.choice(("resample", "splice", "denoise"), p=(0.4, 0.3, 0.3)))
    if kind == "splice":
        fake = splice(image, donor, rng)
    else:
        fake = resample(image, rng) if kind == "resample" else denoise(image, rng)
    return match_sharpness(fake, image, rng)


def resample(image: Image, rng: np.random.Generator) -> Image:
    """Shrink and enlarge again, as a decoder that draws at a lower resolution does."""
    method = str(rng.choice(RESAMPLERS))
    height, width = image.shape[:2]
    factor = 2.0 if method == "transposed" else float(rng.uniform(1.7, 2.8))
    small_size = (round(width / factor), round(height / factor))
    small = np.asarray(cv2.resize(image, small_size, interpolation=cv2.INTER_AREA), np.uint8)
    if method == "transposed":
        large = _transposed_convolution(small, (width, height), rng)
    else:
        large = cv2.resize(small, (width, height), interpolation=INTERPOLATIONS[method])
        large = np.asarray(large, np.float32)  # else a mean of uint8 is float64, and rounds apart
    share = float(rng.uniform(0.8, 1.0))
    return _to_uint8(share * large + (1 - share) * image)


def splice(image: Image, donor: Image, rng: np.random.Generator) -> Image:
    """Warp a patch of the donor into the image under a feathered mask, as face swaps do."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(
        (width / 2, height / 2), float(rng.uniform(-20, 20)), float(rng.uniform(1.3, 1.8))
    )
    patch = cv2.warpAffine(
        donor, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    ).astype(np.float32)
    # The colours are matched, so that what gives the splice away is texture and not a tint.
    patch += image.mean((0, 1)) - patch.mean((0, 1))
    mask = np.zeros((height, width), np.float32)
    centre = (round(width * rng.uniform(0.4, 0.6)), round(height * rng.uniform(0.4, 0.6)))
    axes = (round(width * rng.uniform(0.32, 0.45)), round(height * rng.uniform(0.32, 0.45)))
    cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
    mask = cv2.GaussianBlur(mask, (0, 0), float(rng.uniform(1.5, 4.0)))[..., None]
    return _to_uint8(mask * patch + (1 - mask) * image)


def denoise(image: Image, rng: np.random.Generator) -> Image:
    """Remove the sensor's texture and sharpen slightly, as restoration and diffusion models do."""
    method = str(rng.choice(DENOISERS))
    if method == "nlmeans":
        strength = float(rng.uniform(15, 30))
        clean = cv2.fastNlMeansDenoisingColored(image, None, strength, strength, 5, 11)
    elif method == "bilateral":
        clean = cv2.bilateralFilter(image, 5, float(rng.uniform(80, 150)), 3.0)
    else:
        clean = cv2.medianBlur(image, 5)
    clean = clean.astype(np.float32)
    blurred = cv2.GaussianBlur(clean, (0, 0), 1.2)
    return _to_uint8(clean + float(rng.uniform(0.2, 0.6)) * (clean - blurred))


def match_sharpness(fake: Image, real: Image, rng: np.random.Generator) -> Image:
    """Give a fake about the sharpness of the crop it came from.

    Without this the fakes are softer and so compress better: the size of a file would tell the
    class. The detail that was lost does not come back; what is left is amplified.
    """
    detail = _detail(fake)
    have, want = float(detail.std()), float(_detail(real).std())
    gain = float(np.clip(want / max(have, 1e-3), 0.5, 2.5)) * float(rng.uniform(0.85, 1.15))
    return _to_uint8(fake + (gain - 1.0) * detail)


def _detail(image: Image) -> NDArray[np.float32]:
    pixels = image.astype(np.float32)
    return pixels - cv2.GaussianBlur(pixels, (0, 0), 1.5)


def _transposed_convolution(
    small: Image, size: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Enlarge twofold by zeros and a kernel whose phases differ in gain: the checkerboard."""
    height, width = small.shape[:2]
    spread = np.zeros((2 * height, 2 * width, 3), np.float32)
    spread[::2, ::2] = small
    kernel = np.outer((1, 2, 1), (1, 2, 1)).astype(np.float32) / 4
    kernel *= rng.normal(1.0, 0.05, kernel.shape).astype(np.float32)
    kernel *= 4 / kernel.sum()
    large = cv2.filter2D(spread, -1, kernel, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(cv2.resize(large, size, interpolation=cv2.INTER_LINEAR), np.float32)


def _to_uint8(pixels: NDArray[np.floating]) -> Image:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Region:
    """A rectangle of a photograph and where crops may be cut from it."""

    name: str
    domain: str
    pixels: Image
    crops: list[tuple[float, int, int]]  # scale, top, left


def read_photographs() -> dict[str, Image]:
    """Read the photographs (uint8 RGB) from the package that ships them."""
    from sklearn.datasets import load_sample_image  # slow to import

    return {name: np.asarray(load_sample_image(f"{name}.jpg"), np.uint8) for name in PHOTOGRAPHS}


def make_regions(photographs: dict[str, Image]) -> list[Region]:
    """Tile the photographs into disjoint regions and keep those with enough texture."""
    regions = []
    rows, columns = GRID
    for domain, photograph in photographs.items():
        height, width = photograph.shape[:2]
        for number in range(rows * columns):
            row, column = divmod(number, columns)
            pixels = photograph[
                row * height // rows : (row + 1) * height // rows,
                column * width // columns : (column + 1) * width // columns,
            ]
            crops = _crop_positions(pixels)
            if len(crops) >= MIN_CROPS:
                regions.append(Region(f"{domain}_r{number:02d}", domain, pixels, crops))
    return regions


def _crop_positions(pixels: Image) -> list[tuple[float, int, int]]:
    """List where a region has texture: a crop of plain sky looks like every other one."""
    texture = np.abs(cv2.Laplacian(to_grey(pixels), cv2.CV_32F)) > SMOOTH
    positions = []
    for scale in SCALES:
        side = round(SIDE * scale)
        for top in range(0, pixels.shape[0] - side + 1, STEP):
            for left in range(0, pixels.shape[1] - side + 1, STEP):
                window = texture[top : top + side, left : left + side]
                if float(window.mean()) >= MIN_TEXTURE:
                    positions.append((scale, top, left))
    return positions


def split_regions(
    regions: list[Region], rng: np.random.Generator
) -> tuple[list[Region], list[Region]]:
    """Keep some regions of every photograph for the test part."""
    train, test = [], []
    for domain in PHOTOGRAPHS:
        own = [region for region in regions if region.domain == domain]
        chosen = set(rng.permutation(len(own))[: max(1, round(len(own) / TEST_SHARE))].tolist())
        for index, region in enumerate(own):
            (test if index in chosen else train).append(region)
    return train, test


def _cut(region: Region, index: int) -> Image:
    scale, top, left = region.crops[index]
    side = round(SIDE * scale)
    crop = region.pixels[top : top + side, left : left + side]
    if side == SIDE:
        return crop.copy()
    return np.asarray(cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def make_pairs(
    regions: list[Region], count: int, rng: np.random.Generator
) -> list[tuple[Region, Image, Image]]:
    """Cut `count` crops, evenly over the regions, each with the fake made of it."""
    order = [rng.permutation(len(region.crops)) for region in regions]
    pairs = []
    for number in range(count):
        turn, which = divmod(number, len(regions))
        region, positions = regions[which], order[which]
        image = _cut(region, int(positions[turn % len(positions)]))
        donor = _cut(region, int(rng.integers(len(region.crops))))
        image, donor = _expose(image, donor, rng)
        pairs.append((region, image, make_fake(image, donor, rng)))
    return pairs


def _expose(image: Image, donor: Image, rng: np.random.Generator) -> tuple[Image, Image]:
    """Vary exposure and white balance, alike for a crop and its fake."""
    gain = rng.uniform(0.85, 1.1) * rng.uniform(0.95, 1.05, 3)
    gamma = rng.uniform(0.85, 1.15)
    levels = np.linspace(0, 1, 256)[:, None] ** gamma * gain
    table = np.clip(np.rint(255 * levels), 0, 255).astype(np.uint8)[None]
    return np.asarray(cv2.LUT(image, table), np.uint8), np.asarray(cv2.LUT(donor, table), np.uint8)


def to_grey(image: Image) -> Image:
    """Turn RGB (h, w, 3) into grey (h, w), uint8."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
