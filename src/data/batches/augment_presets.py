"""Augmentation presets that see one image at a time: lists of albumentations transforms.

A preset is one function `size -> [transform, ...]` that turns a canvas of `size` pixels or more
into (size, size), registered with one decorator; its keywords are its settings. All randomness
comes from the seed that the caller sets on the whole list. albumentations takes long to load:
`augment` imports this file where such a preset is asked for.
"""

import random
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from src.data.pixels.images import SUBSAMPLING, reencode, webp
from src.registry import Registry
from src.strict_yaml import Chance, Count, Float, Int

Preset = Callable[..., list[Any]]
PRESETS: Registry[Preset] = Registry("augmentation preset")

# Settings: a `Chance` of an image, or how much is changed at most.
Hue = Annotated[Float, Field(ge=0, le=0.5)]  # of the colour circle
Degrees = Annotated[Float, Field(ge=0, le=180)]
Quality = Annotated[Int, Field(ge=1, le=100)]  # of a JPEG; the worst that is drawn
WHITE, BLACK = 255, 0
Pass = tuple[str, int, str]  # kind of file, quality, chroma subsampling (of a JPEG)


class Augment:
    """A preset that maps uint8 (canvas, canvas, 3) to uint8 (size, size, 3)."""

    def __init__(self, steps: list[Any]) -> None:
        self.compose = A.Compose(steps)

    def set_random_seed(self, seed: int) -> None:
        """Let all further draws follow from `seed`.

        One stream for all transforms: albumentations' own `set_random_seed` starts a stream of the
        same numbers in each, so that an image that is flipped is also the one that is blurred.
        """
        self.compose.set_random_state(np.random.default_rng(seed), random.Random(seed))

    def __call__(
        self, *, image: NDArray[np.uint8], **masks: NDArray[np.uint8]
    ) -> dict[str, NDArray[np.uint8]]:
        """Return `image` as the net sees it, with the next draws of the stream.

        And its `mask`, (canvas, canvas), where one is given: cropped, flipped and turned along.
        """
        pictures: dict[str, Any] = {"image": image, **masks}
        return self.compose(**pictures)


def resamples(steps: Iterable[Any]) -> bool:
    """Tell whether a transform, or one inside it, computes pixels between those that there are."""
    kinds = (A.RandomResizedCrop, A.Resize, A.RandomScale, A.SmallestMaxSize, A.LongestMaxSize,
             A.Downscale, A.Affine, A.Perspective, A.Rotate, A.SafeRotate)  # fmt: skip
    return any(
        isinstance(step, kinds) or resamples(getattr(step, "transforms", ())) for step in steps
    )


class Recompress(A.ImageOnlyTransform):
    """Store a picture as JPEG or WebP and read it back.

    albumentations' own `ImageCompression` (2.0.8) gives OpenCV, which expects BGR, an RGB picture:
    red and blue change places in the chroma planes, and the artefacts are those of no real file.

    Each pass draws its quality from a range, on the scale of libjpeg, is WebP by the chance `webp`,
    else a JPEG of one of the `chroma` subsamplings; `repeat` is the range of their number.
    """

    def __init__(
        self,
        quality: tuple[int, int],
        *,
        repeat: tuple[int, int] = (1, 1),
        webp: float = 0.0,
        chroma: tuple[str, ...] = (SUBSAMPLING,),
        p: float = 0.5,
    ) -> None:
        super().__init__(p=p)
        self.quality, self.repeat, self.webp, self.chroma = quality, repeat, webp, chroma

    def get_params(self) -> dict[str, Any]:
        """Draw the passes from the stream that the whole list shares."""
        draw = self.py_random
        passes: list[Pass] = [
            (
                "webp" if draw.random() < self.webp else "jpeg",
                draw.randint(*self.quality),
                draw.choice(self.chroma),
            )
            for _ in range(draw.randint(*self.repeat))
        ]
        return {"passes": passes}

    def apply(self, img: NDArray[np.uint8], passes: list[Pass], **_: object) -> NDArray[np.uint8]:
        """Return a picture (uint8 RGB) as it comes back from its passes."""
        for kind, quality, chroma in passes:
            img = webp(img, quality) if kind == "webp" else reencode(img, quality, chroma)
        return img


def native_only(preset: Preset) -> Preset:
    """Mark a preset that makes sense only where no pixel was resampled (`geometry: native`)."""
    preset.native_only = True  # type: ignore[attr-defined]
    return preset


def erases(share: float) -> Callable[[Preset], Preset]:
    """Give a preset another default of `erase`, the setting that all have, than 0."""

    def mark(preset: Preset) -> Preset:
        preset.erase = share  # type: ignore[attr-defined]
        return preset

    return mark


@PRESETS.register("light")
def light(
    size: int,
    *,
    flip: Chance = 0.5,
    exposure: Chance = 0.3,
    brightness: Chance = 0.15,
    contrast: Chance = 0.15,
    jpeg: Chance = 0.2,
    quality: Quality = 60,
) -> list[Any]:
    """Cut a random square without resampling, flip, mild exposure and re-compression."""
    return [
        A.RandomCrop(size, size),
        A.HorizontalFlip(p=flip),
        A.RandomBrightnessContrast(brightness, contrast, p=exposure),
        Recompress((quality, 100), p=jpeg),
    ]


@PRESETS.register("crop_zoom")
def crop_zoom(
    size: int,
    *,
    area: Annotated[Float, Field(gt=0, le=1)] = 0.7,
    flip: Chance = 0.5,
    colour: Chance = 0.5,
    brightness: Chance = 0.15,
    contrast: Chance = 0.15,
    saturation: Chance = 0.15,
    hue: Hue = 0.03,
    jpeg: Chance = 0.3,
    quality: Quality = 50,
    blur: Chance = 0.1,
) -> list[Any]:
    """Crop `area` to all of it, flip, mild colour changes, re-compression, sometimes a blur."""
    return [
        A.RandomResizedCrop((size, size), scale=(area, 1.0), ratio=(0.85, 1.18), p=1.0),
        A.HorizontalFlip(p=flip),
        A.ColorJitter(brightness, contrast, saturation, hue, p=colour),
        Recompress((quality, 100), p=jpeg),
        A.GaussianBlur(blur_limit=(3, 5), p=blur),
    ]


@PRESETS.register("simclr")
def simclr(
    size: int,
    *,
    area: Annotated[Float, Field(gt=0, le=1)] = 0.08,
    flip: Chance = 0.5,
    colour: Chance = 0.8,
    strength: Annotated[Float, Field(ge=0, le=0.5)] = 0.4,
    hue: Hue = 0.1,
    grey: Chance = 0.2,
    blur: Chance = 0.5,
) -> list[Any]:
    """Views of contrastive learning: `area` to all of it, strong colour changes, grey, blur.

    Chen et al. 2020, appendix A, at the strength of FLIP (.4, .4, .4, .1).
    """
    return [
        A.RandomResizedCrop((size, size), scale=(area, 1.0), p=1.0),
        A.HorizontalFlip(p=flip),
        A.ColorJitter(strength, strength, strength, hue, p=colour),
        A.ToGray(p=grey),
        A.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 2.0), p=blur),
    ]


@PRESETS.register("standard")
@erases(0.1)
def standard(
    size: int,
    *,
    rotate: Degrees = 10.0,
    flip: Chance = 0.5,
    brightness: Chance = 0.2,
    contrast: Chance = 0.2,
    saturation: Chance = 0.2,
    hue: Hue = 0.1,
) -> list[Any]:
    """Flip, turn by up to `rotate` degrees, jitter the colours, erase: the FSFM system's.

    Turned and jittered is every image, as torchvision's RandomRotation(10) and
    ColorJitter(.2, .2, .2, .1) do it; the corners that turning uncovers are mirrored, not black.
    """
    turn = A.Rotate(rotate, cv2.INTER_LINEAR, border_mode=cv2.BORDER_REFLECT_101, p=1.0)
    return [
        *([turn] if rotate else []),
        A.RandomCrop(size, size),
        A.HorizontalFlip(p=flip),
        A.ColorJitter(brightness, contrast, saturation, hue, p=1.0),
    ]


@PRESETS.register("classic")
def classic(
    size: int,
    *,
    flip: Chance = 0.5,
    exposure: Chance = 0.5,
    brightness: Chance = 0.2,
    contrast: Chance = 0.2,
    colour: Chance = 0.5,
    hue: Hue = 1 / 9,
    saturation: Chance = 30 / 255,
    value: Chance = 20 / 255,
    noise: Chance = 0.3,
) -> list[Any]:
    """Flip, brightness and contrast, hue and saturation, Gaussian noise: the EfficientNet system's.

    Its strengths are albumentations' defaults; those of hue, saturation and value are added, not
    multiplied with. The noise is that of version 1, a variance of 10 to 50 on a 0..255 scale; the
    default of version 2 is ten times as strong.
    """
    return [
        A.RandomCrop(size, size),
        A.HorizontalFlip(p=flip),
        A.RandomBrightnessContrast(brightness, contrast, p=exposure),
        A.HueSaturationValue(180 * hue, 255 * saturation, 255 * value, p=colour),
        A.GaussNoise(std_range=(10**0.5 / 255, 50**0.5 / 255), p=noise),
    ]


@PRESETS.register("robust")
def robust(
    size: int,
    *,
    flip: Chance = 0.5,
    screenshot: Chance = 0.25,
    smaller: Chance = 0.3,
    blur: Chance = 0.2,
    noise: Chance = 0.2,
    jpeg: Chance = 0.6,
    quality: Quality = 30,
) -> list[Any]:
    """What sharing does to a picture: screenshots, smaller copies, blur, noise, JPEG."""
    ways = ((cv2.INTER_AREA, cv2.INTER_LINEAR), (cv2.INTER_AREA, cv2.INTER_CUBIC),
            (cv2.INTER_LINEAR, cv2.INTER_NEAREST))  # fmt: skip
    copies: list[Any] = [
        A.Downscale((0.3, 0.9), interpolation_pair={"downscale": down, "upscale": up}, p=1.0)
        for down, up in ways
    ]
    return [
        A.RandomCrop(size, size),
        A.HorizontalFlip(p=flip),
        A.OneOf([_screenshot(page) for page in (WHITE, BLACK)], p=screenshot),
        A.OneOf(copies, p=smaller),
        A.OneOf([A.GaussianBlur((3, 7), p=1.0), A.MotionBlur((3, 7), p=1.0)], p=blur),
        A.OneOf([A.GaussNoise((0.01, 0.05), p=1.0), A.ISONoise(p=1.0)], p=noise),
        Recompress((quality, 100), p=jpeg),
    ]


def _screenshot(page: int) -> Any:  # noqa: ANN401 - albumentations has no stubs
    """Return a transform: shown at another size, off the grid, on a page, in a screen's tones."""
    shown = A.Affine(
        scale=(0.85, 1.15), translate_percent=(-0.05, 0.05), keep_ratio=True,
        interpolation=cv2.INTER_CUBIC, fill=page, p=1.0,
    )  # fmt: skip
    return A.Sequential(
        [shown, A.RandomGamma((85, 118), p=0.7), Recompress((70, 95), p=0.5)],
        p=1.0,
    )


@PRESETS.register("share")
def share(
    size: int,
    *,
    flip: Chance = 0.5,
    smaller: Chance = 0.5,
    jpeg: Chance = 0.8,
    quality: Quality = 40,
    passes: Count = 3,
    webp: Chance = 0.2,
) -> list[Any]:
    """What a chain of chats and sites does: a smaller copy, stored one to `passes` times.

    Each time as JPEG with 4:2:0, 4:2:2 or whole chroma, or as WebP. Several passes are what
    AI-GenBench (arXiv 2511.21507) found to help most: an AUROC on generators of the next period of
    .901 without, .931 with one mild pass, .945 with up to three.
    """
    qualities, chroma = (quality, max(quality, 95)), ("420", "422", "444")
    return [
        A.RandomCrop(size, size),
        A.HorizontalFlip(p=flip),
        A.RandomScale((-0.5, -0.1), interpolation=cv2.INTER_AREA, p=smaller),
        Recompress(qualities, repeat=(1, passes), webp=webp, chroma=chroma, p=jpeg),
        A.Resize(size, size, interpolation=cv2.INTER_CUBIC),
    ]


@PRESETS.register("forensic")
@native_only
def forensic(size: int, *, flip: Chance = 0.5) -> list[Any]:
    """Cut a random square out of the pixels as they are and flip; no value is changed.

    For `input.geometry: native`; `input.crop_pct` says how much room there is: at .25, a net of
    224 px sees squares out of the middle 896.
    """
    return [A.RandomCrop(size, size), A.HorizontalFlip(p=flip)]
