"""Self-blended images: pseudo-fakes made of one real face, with exact masks.

Shiohara and Yamasaki, CVPR 2022, "Detecting Deepfakes with Self-Blended Images", sec. 3: a copy of
a face is changed a little in colour, sharpness, place and size, and blended back behind a deformed
mask, so that what is left to be learned is the blend itself. By option what Hopf and Timofte 2025
("Practical Manipulation Model", arXiv 2506.05119) add: Poisson blends, masks of single parts, and
distractors; strong degradations are presets of `augment` (robust, share). Their settings are not
known to us: those here are ours.
"""

import random
from collections.abc import Callable
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from src.config import BlendConfig
from src.faces.mesh import Landmarks

SIDE = 256  # px at which masks are made, whatever the picture's size
ELASTIC, SMOOTH = 50.0, 7.0  # px at that size: how far a mask is bent, and over what distance
COARSER = 4
SHIFT_X, SHIFT_Y, SCALE = 0.03, 0.015, 0.95  # of the copy: shares of the side; SCALE to 1 / SCALE
STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)  # how much of the copy is seen
WIDER = 1.1
ON = cv2.BORDER_REPLICATE  # a mask that leaves the picture goes on outside
TINY = 1e-6  # what a blur of ones may be off by
# Of MediaPipe's canonical face model.
BROWS = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46, 300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
EYES = (33, 133, 159, 145, 246, 7, 163, 144, 153, 154, 155, 173, 157, 158, 160, 161,
        263, 362, 386, 374, 466, 249, 390, 373, 380, 381, 382, 398, 384, 385, 387, 388)  # fmt: skip
NOSE = (168, 6, 197, 195, 5, 4, 1, 2, 98, 327, 64, 294, 129, 358, 115, 344, 48, 278)
MOUTH = (61, 291, 0, 17, 37, 267, 39, 269, 40, 270, 185, 409, 84, 314, 181, 405, 91, 321, 146, 375)
CHIN, FOREHEAD = 152, 10

Pixels = NDArray[np.uint8]
Layer = NDArray[np.float32]
Mask = NDArray[np.uint8]  # (height, width): 0 as it was, 255 replaced or mixed with the copy
Points = NDArray[np.float64]
Rng = np.random.Generator


def self_blend(
    pixels: Pixels, marks: Landmarks, asked: BlendConfig, rng: Rng
) -> tuple[Pixels, Mask]:
    """Return a pseudo-fake of a real face, and where the copy lies in it.

    Where it does not, the picture is `beside_blend` of an equal generator. The mask does not say at
    which strength the copy is seen: 4 m (1 - m) of it would be high all over a faint one, and no
    boundary.

    Args:
        pixels: uint8 RGB (height, width, 3).
        marks: 468 points of its face (`src.faces.mesh`), x, y in pixels.
        asked: which masks and ways of blending.
        rng: all that is drawn; equal generators make equal blends.
    """
    source, target = _two_versions(pixels, rng)
    height, width = pixels.shape[:2]
    hull = str(rng.choice(np.array(asked.hulls)))
    points = _hull_points(marks, hull) * (SIDE / width, SIDE / height)
    mask = np.zeros((SIDE, SIDE), np.float32)
    outline = cv2.convexHull(np.rint(points).astype(np.int32))
    cv2.fillConvexPoly(mask, outline, 1.0)
    x, y = rng.uniform(-SHIFT_X, SHIFT_X), rng.uniform(-SHIFT_Y, SHIFT_Y)
    scale = rng.uniform(SCALE, 1 / SCALE)
    source = _moved(source, x, y, scale)
    mask = _soften(_bend(_moved(mask, x, y, scale, ON), rng), rng)
    mask = np.asarray(cv2.resize(mask, (width, height)), np.float32)
    if rng.random() < asked.poisson:
        source = _poisson(source, target, mask)
    share = mask[:, :, None] * np.float32(rng.choice(STRENGTHS))
    blended = np.rint(share * source + (1 - share) * target).clip(0, 255).astype(np.uint8)
    return blended, np.rint(255 * mask).clip(0, 255).astype(np.uint8)


def beside_blend(pixels: Pixels, rng: Rng) -> Pixels:
    """Return a picture as it stands beside its blend: half of all are changed, as the blend's rest.

    Else what surrounds a blend would tell it, and no seam need be looked for.
    """
    return _two_versions(pixels, rng)[1]


def _two_versions(pixels: Pixels, rng: Rng) -> tuple[Pixels, Pixels]:
    """Return what is blended in and what it is blended into: by a coin, either is changed."""
    copy_is_changed, changed = rng.random() < 0.5, _change(pixels, rng)
    return (changed, pixels) if copy_is_changed else (pixels, changed)


def distract(pixels: Pixels, rng: Rng) -> tuple[Pixels, Layer]:
    """Return a picture with a few lines, shapes or words on it, and how much of each pixel is left.

    Equal generators put equal things into pictures of equal size, so that a pair shares them.
    """
    height, width = pixels.shape[:2]
    drawn, cover = pixels.copy(), np.zeros((height, width), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        colour = rng.integers(0, 256, 3).astype(np.float32)
        opacity, layer = float(rng.uniform(0.5, 1.0)), np.zeros((height, width), np.uint8)
        x, y = (int(rng.integers(0, side)) for side in (width, height))
        size = max(2, round(float(rng.uniform(0.05, 0.25)) * min(height, width)))
        _DISTRACTORS[int(rng.integers(len(_DISTRACTORS)))](layer, (x, y), size, rng)
        share = layer[:, :, None] / np.float32(255) * np.float32(opacity)
        drawn = np.rint(drawn * (1 - share) + share * colour).astype(np.uint8)
        cover = np.asarray(1 - (1 - cover) * (1 - share[:, :, 0]), np.float32)
    return drawn, np.asarray(1 - cover, np.float32)


def _hull_points(marks: Points, hull: str) -> Points:
    """Return points whose convex hull is replaced."""
    if hull == "lower":  # up to the brows, along the face's own axis: dlib's 68 points reach there
        up = marks[FOREHEAD] - marks[CHIN]
        height = marks @ up
        return marks[height <= height[list(BROWS)].max()]
    if hull == "wide":
        middle = marks.mean(0)
        return middle + WIDER * (marks - middle)
    parts = {
        "face": range(len(marks)),
        "inner": (*BROWS, *EYES, *NOSE, *MOUTH),
        "eyes": (*BROWS, *EYES),
        "nose": NOSE,
        "mouth": MOUTH,
    }
    return marks[list(parts[hull])]


@cache
def _changes() -> Any:  # noqa: ANN401 - albumentations has no stubs
    """Return what a copy is changed by.

    Without the published HueSaturationValue: its limits of +-0.3 are of 180 and of 255 levels in
    albumentations, so that it changed next to nothing.
    """
    import albumentations as A

    ways: Any = {"downscale": cv2.INTER_NEAREST, "upscale": cv2.INTER_LINEAR}
    smaller: list[Any] = [A.Downscale((r, r), ways, p=1.0) for r in (0.5, 0.25)]
    sharper: list[Any] = [A.OneOf(smaller, p=1.0), A.Sharpen((0.2, 0.5), (0.5, 1.0), p=1.0)]
    colours: list[Any] = [
        A.RGBShift(20, 20, 20, p=0.3),
        A.RandomBrightnessContrast(0.1, 0.1, p=1.0),
    ]
    return A.Compose([*colours, A.OneOf(sharper, p=1.0)])


def _change(pixels: Pixels, rng: Rng) -> Pixels:
    changes = _changes()
    seed = int(rng.integers(2**63))
    changes.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return changes(image=pixels)["image"]


def _moved(
    picture: NDArray[Any], x: float, y: float, scale: float, border: int = cv2.BORDER_REFLECT_101
) -> NDArray[Any]:
    """Shift a picture by shares of its sides, and scale it about its middle."""
    height, width = picture.shape[:2]
    left = (x + (1 - scale) / 2) * width - (1 - scale) / 2
    top = (y + (1 - scale) / 2) * height - (1 - scale) / 2
    matrix = np.array([[scale, 0, left], [0, scale, top]])
    return np.asarray(cv2.warpAffine(picture, matrix, (width, height), borderMode=border))


def _bend(mask: Layer, rng: Rng) -> Layer:
    """Bend a mask (Simard et al. 2003): every pixel from a place nearby, smoothly."""
    # Smooth noise of a coarser grid: smoothed over so many fewer pixels it is as much larger.
    coarse, size = SIDE // COARSER, (SIDE, SIDE)
    noise = rng.uniform(-1, 1, (2, coarse, coarse)).astype(np.float32)
    across, down = (
        cv2.resize(cv2.GaussianBlur(one, (0, 0), SMOOTH / COARSER), size) * (ELASTIC / COARSER)
        for one in noise
    )
    rows, columns = np.indices(mask.shape, np.float32)
    bent = cv2.remap(mask, columns + across, rows + down, cv2.INTER_LINEAR, borderMode=ON)
    return np.asarray(bent, np.float32)


def _soften(mask: Layer, rng: Rng) -> Layer:
    """Draw a mask in by a blur, and soften its edge by another, at a side of 192 to 256 px."""
    high, wide = (int(rng.integers(192, 257)) for _ in range(2))
    mask = np.asarray(cv2.resize(mask, (wide, high)), np.float32)
    inner, outer = (int(rng.choice(np.arange(5, 26, 2))) for _ in range(2))
    sigma = float(rng.integers(5, 46))
    thin = min(cv2.boundingRect((mask > 0).astype(np.uint8))[2:])
    inner = min(inner, 2 * (thin // 6) + 1)  # the mask of a mouth would vanish
    blurred = np.asarray(cv2.GaussianBlur(mask, (inner, inner), 0), np.float32)
    most = blurred.max()
    if most == 0:
        return mask
    kept = (blurred >= most * (1 - TINY)).astype(np.float32)
    soft = np.asarray(cv2.GaussianBlur(kept, (outer, outer), sigma), np.float32)
    return soft / soft.max()


def _poisson(source: Pixels, target: Pixels, mask: Layer) -> Pixels:
    """Return a target with the gradients of a source where a mask is (Pérez et al. 2003)."""
    height, width = mask.shape
    inside = np.zeros((height, width), np.uint8)
    inside[2:-2, 2:-2] = 255 * (mask[2:-2, 2:-2] > 0)  # OpenCV wants an edge around it
    left, top, wide, high = cv2.boundingRect(inside)
    if min(wide, high) < 3:
        return source
    middle = (left + wide // 2, top + high // 2)
    return np.asarray(cv2.seamlessClone(source, target, inside, middle, cv2.NORMAL_CLONE), np.uint8)


Place = tuple[int, int]


def _line(layer: Mask, place: Place, size: int, rng: Rng) -> None:
    x, y = place
    dx, dy = (int(value) for value in rng.integers(-2 * size, 2 * size + 1, 2))
    cv2.line(layer, place, (x + dx, y + dy), 255, max(1, size // 8), cv2.LINE_AA)


def _box(layer: Mask, place: Place, size: int, rng: Rng) -> None:
    x, y = place
    wide, high = (int(value) for value in rng.integers(max(2, size // 2), size + 1, 2))
    cv2.rectangle(layer, place, (x + wide, y + high), 255, -1)


def _ellipse(layer: Mask, place: Place, size: int, rng: Rng) -> None:
    axes = tuple(int(value) for value in rng.integers(max(1, size // 4), size // 2 + 2, 2))
    cv2.ellipse(layer, place, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1, cv2.LINE_AA)


def _word(layer: Mask, place: Place, size: int, rng: Rng) -> None:
    letters = [chr(int(code)) for code in rng.integers(ord("A"), ord("Z") + 1, 5)]
    font, thick = cv2.FONT_HERSHEY_SIMPLEX, max(1, size // 12)
    cv2.putText(layer, "".join(letters), place, font, size / 40, 255, thick, cv2.LINE_AA)


_DISTRACTORS: tuple[Callable[[Mask, Place, int, Rng], None], ...] = (_line, _box, _ellipse, _word)
