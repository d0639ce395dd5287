"""Regions of the demo's photographs, crops of them, and the fakes made of the crops."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from src.data.degrade import make_fake

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
