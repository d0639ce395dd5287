"""Deliveries: what happens to a picture on its way to us, at stated strengths, by name.

A level is an operation and its strength, `jpeg50`, or several in a row, `long1024-jpeg50`. It works
on the whole picture at full size, before a face is cut out and before anything is resized for a
net. Levels draw from streams of an item: all frames of a clip get the same jitter, and noise of
their own.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from src.artifacts.oof import DELIVERY_SEED, JOIN, WHOLE_LEVEL
from src.data.pixels.images import INTERPOLATIONS, reencode, resize, webp
from src.errors import UserError, unknown_name
from src.faces.crop import Face, moved, scaled
from src.registry import Registry
from src.seeds import derive_seed

Picture = NDArray[np.uint8]
_STEP = re.compile(r"([a-z]+)(\d+(?:\.\d+)?)?")
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of RGB (ITU-R BT.601)
# The 15 levels of a card with the clean one: those of TechJam 2026 (Pangram).
CARD = (
    "jpeg90", "jpeg70", "jpeg50", "jpeg30",
    "blur0.5", "blur1", "blur2",
    "resize0.5", "resize0.25",
    "noise0.02", "noise0.05", "noise0.1",
    "jitter0.2", "crop0.8",
)  # fmt: skip
HARD_REAL = "retouch"  # what makes a real picture look generated, and does not make it one
# More levels by the name of their set.
SETS: dict[str, tuple[str, ...]] = {
    "card": CARD,
    # Beyond those of the card, of the same contest.
    "extreme": ("jpeg20", "jpeg10", "jpeg5", "blur4", "resize0.125", "noise0.2", "jitter0.35"),
    "messenger": ("long1024-jpeg50",),
    # The grid of GenD (arXiv 2508.06248). Its kernels end a little earlier than ours.
    "gend": (
        *(f"jpeg{quality}" for quality in (100, 80, 60, 40, 20, 10)),
        *(f"blur{sigma}" for sigma in (0.5, 1, 1.5, 2, 3)),
        *(f"{way}{side}" for side in (224, 112, 64) for way in ("nearest", "bilinear", "bicubic")),
        *(f"noise{sigma}" for sigma in (0.01, 0.03, 0.05, 0.1, 0.2)),
    ),
    "webp": ("webp85", "webp70", "webp50"),
    # Chains of the card's levels, drawn for each item (as NTIRE 2026's).
    "chains": ("chain1", "chain2", "chain3", "chain4", "chain5"),
    # What `retouch` draws from.
    "treatments": ("denoise", "sharpen", "upscale2", "tones", "smooth"),
}  # fmt: skip


class Draws(NamedTuple):
    """The streams that a level draws from."""

    item: np.random.Generator  # the same for every frame of an item
    frame: np.random.Generator  # one for each frame


@dataclass(frozen=True)
class Operation:
    """One thing that can happen to a picture."""

    # uint8 RGB (height, width, 3), its strength, streams -> uint8 RGB, of another size perhaps
    apply: Callable[[Picture, float, Draws], Picture]
    low: float = 0.0  # strengths that make sense
    high: float = 0.0  # 0: it takes none
    crops: bool = False  # cuts the middle out; what else changes the size, scales
    about: str = ""  # in words, for the user


OPERATIONS: Registry[Operation] = Registry("delivery")


def _operation(
    name: str, low: float = 0.0, high: float = 0.0, *, crops: bool = False
) -> Callable[[Callable[..., Picture]], Callable[..., Picture]]:
    """Register a function by its name; the first line of its docstring is for the user."""

    def register(apply: Callable[..., Picture]) -> Callable[..., Picture]:
        about = (apply.__doc__ or "").splitlines()[0]
        OPERATIONS.register(name)(Operation(apply, low, high, crops, about))
        return apply

    return register


class Arrived(NamedTuple):
    """A picture as it arrives, and where its pixels were in the one that was sent."""

    pixels: Picture  # uint8 RGB
    across: float = 1.0  # how many times as wide and as high
    down: float = 1.0
    left: float = 0.0  # what was cut off, in pixels of the arrived picture
    top: float = 0.0

    def carry(self, face: Face) -> Face:
        """Return a face of the picture that was sent, where the delivery took it."""
        return moved(scaled(face, self.across, self.down), -self.left, -self.top)


class Level:
    """A level by its name.

    Raises:
        UserError: no such operation, or a strength that it does not take.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.steps = [_parse(step, name) for step in name.split(JOIN)]

    def deliver(
        self, picture: Picture, item: str, frame: int = 0, seed: int = DELIVERY_SEED
    ) -> Arrived:
        """Deliver a picture, uint8 RGB (height, width, 3), of the item at a path."""
        drawn = derive_seed(seed, "delivery", self.name, item)
        draws = Draws(
            np.random.default_rng(drawn), np.random.default_rng(derive_seed(drawn, frame))
        )
        found = Arrived(picture)
        for operation, strength in self.steps:
            found = _step(found, operation, strength, draws)
        return found


level_named = cache(Level)


def _step(before: Arrived, operation: Operation, strength: float, draws: Draws) -> Arrived:
    """Let one more operation follow, and keep account of where pixels are."""
    if operation.apply is chain:
        for name in _drawn(round(strength), draws):
            for single, much in level_named(name).steps:
                before = _step(before, single, much, draws)
        return before
    pixels = np.ascontiguousarray(operation.apply(before.pixels, strength, draws))
    (high, wide), (rows, columns) = before.pixels.shape[:2], pixels.shape[:2]
    if operation.crops:
        left, top = (wide - columns) // 2, (high - rows) // 2
        return before._replace(pixels=pixels, left=before.left + left, top=before.top + top)
    across, down = columns / wide, rows / high
    return Arrived(
        pixels, before.across * across, before.down * down, before.left * across, before.top * down
    )


def _parse(step: str, level: str) -> tuple[Operation, float]:
    found = _STEP.fullmatch(step)
    if found is None:
        raise UserError(
            f"level {level!r}: {step!r} is no operation with its strength, such as jpeg50 or "
            f"blur0.5; several in a row are joined by {JOIN!r}: long1024-jpeg50"
        )
    word, number = found.groups()
    if word not in OPERATIONS:
        raise unknown_name("delivery", word, list(OPERATIONS), "python -m src robustness --list")
    operation = OPERATIONS.get(word)
    if (number is None) == (operation.high > 0):
        wants = f"a strength, {operation.low:g} to {operation.high:g}" * (operation.high > 0)
        raise UserError(f"level {level!r}: {word} wants {wants or 'no strength'}")
    strength = float(number or 0)
    if not operation.low <= strength <= operation.high:
        raise UserError(
            f"level {level!r}: {word} takes {operation.low:g} to {operation.high:g}, not {number}"
        )
    return operation, strength


def levels_named(words: Sequence[str]) -> list[str]:
    """Return the levels of names and of sets (`SETS`), each once, in their order.

    Raises:
        UserError: see `Level`.
    """
    names = [level for word in words for level in SETS.get(word, (word,))]
    for name in names:
        level_named(name)
    return list(dict.fromkeys(names))


@_operation(WHOLE_LEVEL)
def whole(picture: Picture, _strength: float, _: Draws) -> Picture:
    """Do nothing: the picture decoded at full size, as for all levels. What flips is held to it."""
    return picture


@_operation("jpeg", 1, 100)
def jpeg(picture: Picture, quality: float, _: Draws) -> Picture:
    """Store as JPEG of this quality, chroma 4:2:0."""
    return reencode(picture, round(quality))


@_operation("webp", 1, 100)
def as_webp(picture: Picture, quality: float, _: Draws) -> Picture:
    """Store as WebP of this quality."""
    return webp(picture, round(quality))


@_operation("blur", 0.1, 50)
def blur(picture: Picture, sigma: float, _: Draws) -> Picture:
    """Blur by a Gaussian of this standard deviation in pixels.

    Its kernel is as wide as it takes: sigma 2 in five taps would really be 1.3.
    """
    side = 2 * int(np.ceil(4 * sigma)) + 1
    return np.asarray(cv2.GaussianBlur(picture, (side, side), sigma), np.uint8)


@_operation("resize", 0.01, 0.99)
def there_and_back(picture: Picture, share: float, _: Draws) -> Picture:
    """Shrink to this share of the sides by area, and enlarge again by straight lines."""
    height, width = picture.shape[:2]
    small = max(1, round(height * share)), max(1, round(width * share))
    return resize(resize(picture, *small, "bilinear"), height, width, "bilinear")


@_operation("long", 16, 16384)
def at_most(picture: Picture, side: float, _: Draws) -> Picture:
    """Shrink until the longer side is at most so many pixels, as messengers do."""
    height, width = picture.shape[:2]
    share = min(1.0, side / max(height, width))
    return resize(picture, max(1, round(height * share)), max(1, round(width * share)), "bilinear")


def _short_side(way: str) -> Callable[[Picture, float, Draws], Picture]:
    def apply(picture: Picture, side: float, _: Draws) -> Picture:
        height, width = picture.shape[:2]
        share = side / min(height, width)
        size = max(1, round(width * share)), max(1, round(height * share))
        return np.asarray(cv2.resize(picture, size, interpolation=INTERPOLATIONS[way]), np.uint8)

    apply.__doc__ = f"Resize to so many pixels on the shorter side, {way} (it may alias)."
    return apply


for _way in INTERPOLATIONS:
    _operation(_way, 16, 4096)(_short_side(_way))


@_operation("noise", 0.001, 1)
def noise(picture: Picture, sigma: float, draws: Draws) -> Picture:
    """Add Gaussian noise of this standard deviation, of a range of 1.

    Added in float and rounded: in whole numbers .02 would come out as .0185.
    """
    drawn = draws.frame.standard_normal(picture.shape, np.float32)
    return _rounded(picture + np.float32(255 * sigma) * drawn)


@_operation("jitter", 0.01, 1)
def jitter(picture: Picture, strength: float, draws: Draws) -> Picture:
    """Change brightness, contrast and saturation, each by up to this share either way."""
    bright, contrast, saturation = draws.item.uniform(1 - strength, 1 + strength, 3)
    lit = np.clip(picture * np.float32(bright), 0, 255)
    mean = np.float32((lit @ LUMA).mean())
    lit = np.clip(mean + np.float32(contrast) * (lit - mean), 0, 255)
    grey = (lit @ LUMA)[..., None]
    return _rounded(grey + np.float32(saturation) * (lit - grey))


@_operation("crop", 0.1, 0.99, crops=True)
def crop(picture: Picture, share: float, _: Draws) -> Picture:
    """Cut out the middle, this share of either side."""
    height, width = picture.shape[:2]
    rows, columns = max(1, round(height * share)), max(1, round(width * share))
    top, left = (height - rows) // 2, (width - columns) // 2
    return picture[top : top + rows, left : left + columns]


@_operation("chain", 1, 10)
def chain(_picture: Picture, _count: float, _draws: Draws) -> Picture:
    """Let so many levels of the card follow each other, drawn for each item, none twice."""
    raise AssertionError("a chain is taken apart into its steps")  # `_step`


def _drawn(count: int, draws: Draws) -> list[str]:
    return [str(name) for name in draws.item.choice(CARD, size=count, replace=False)]


@_operation("denoise")
def denoise(picture: Picture, _strength: float, draws: Draws) -> Picture:
    """Denoise as phones do at night: an edge-keeping filter (bilateral) of a drawn strength."""
    sigma = float(draws.item.uniform(15, 40))
    return np.asarray(cv2.bilateralFilter(picture, 5, sigma, 3), np.uint8)


@_operation("sharpen")
def sharpen(picture: Picture, _strength: float, draws: Draws) -> Picture:
    """Sharpen by an unsharp mask of a drawn strength."""
    amount, sigma = draws.item.uniform(0.5, 1.5), draws.item.uniform(0.8, 2.0)
    soft = cv2.GaussianBlur(picture, (0, 0), float(sigma)).astype(np.float32)
    return _rounded(picture + np.float32(amount) * (picture - soft))


@_operation("upscale", 1.1, 8)
def upscale(picture: Picture, times: float, _: Draws) -> Picture:
    """Enlarge so many times by Lanczos, sharpen, and shrink again: an upscaler's picture."""
    height, width = picture.shape[:2]
    size = round(width * times), round(height * times)
    large = cv2.resize(picture, size, interpolation=cv2.INTER_LANCZOS4).astype(np.float32)
    large += np.float32(0.7) * (large - cv2.GaussianBlur(large, (0, 0), times))
    return resize(_rounded(large), height, width, "bilinear")


@_operation("tones")
def tones(picture: Picture, _strength: float, draws: Draws) -> Picture:
    """Bend the tones as photo filters do: an S-curve, a gamma a channel, more saturation."""
    gammas, bend = draws.item.uniform(0.85, 1.18, 3), draws.item.uniform(0.1, 0.4)
    ramp = np.linspace(0, 1, 256)
    curve = ramp - bend / (2 * np.pi) * np.sin(2 * np.pi * ramp)
    table = np.stack([np.rint(255 * curve**gamma) for gamma in gammas], axis=1).astype(np.uint8)
    bent = np.stack([table[picture[..., k], k] for k in range(3)], axis=2).astype(np.float32)
    grey = (bent @ LUMA)[..., None]
    return _rounded(grey + np.float32(draws.item.uniform(1.0, 1.35)) * (bent - grey))


@_operation("smooth")
def smooth(picture: Picture, _strength: float, draws: Draws) -> Picture:
    """Smooth as beauty filters do: skin tones alone, edges kept, a share of the detail put back."""
    soft = cv2.bilateralFilter(picture, 7, float(draws.item.uniform(30, 60)), 5)
    colours = cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb)
    # Skin by its chroma (Chai & Ngan, IEEE Trans. CSVT 9 (1999) 551), its edge softened.
    skin = cv2.inRange(colours, np.array([0, 133, 77]), np.array([255, 173, 127]))
    share = cv2.GaussianBlur(skin, (0, 0), 2).astype(np.float32)[..., None] / 255
    share *= np.float32(draws.item.uniform(0.6, 1.0))
    return _rounded(picture + share * (soft.astype(np.float32) - picture))


@_operation(HARD_REAL)
def retouch(picture: Picture, _strength: float, draws: Draws) -> Picture:
    """Retouch: one or two of denoise, sharpen, upscale2, tones, smooth, drawn for each item."""
    names = draws.item.choice(SETS["treatments"], size=draws.item.integers(1, 3), replace=False)
    for name in names:
        for operation, strength in level_named(str(name)).steps:
            picture = operation.apply(picture, strength, draws)
    return picture


def _rounded(values: NDArray[Any]) -> Picture:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)
