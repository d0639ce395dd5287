"""Augmentation presets that see one image at a time: lists of albumentations transforms.

A preset is one function `size -> [transform, ...]` that turns a canvas of `size` pixels or more
into (size, size), registered with one decorator. All randomness comes from the seed that the
caller sets on the whole list.
"""

from collections.abc import Callable
from typing import Any

from src.registry import Registry

# albumentations is imported where it is used: it takes long, and only some presets need it.
Preset = Callable[[int], list[Any]]
PRESETS: Registry[Preset] = Registry("augmentation preset")

MEAN_COLOUR = (124.0, 116.0, 104.0)  # of ImageNet; near 0 once normalised
WHITE, BLACK = 255, 0


def native_only(preset: Preset) -> Preset:
    """Mark a preset that makes sense only where no pixel was resampled (`geometry: native`)."""
    preset.native_only = True  # type: ignore[attr-defined]
    return preset


@PRESETS.register("light")
def light(size: int) -> list[Any]:
    """Cut a random square without resampling, flip, mild exposure and re-compression."""
    import albumentations as A

    from src.data.batches.recompress import Recompress

    return [
        A.RandomCrop(size, size),
        A.HorizontalFlip(p=0.5),
        A.RandomBrightnessContrast(0.15, 0.15, p=0.3),
        Recompress((60, 100), p=0.2),
    ]


@PRESETS.register("crop_zoom")
def crop_zoom(size: int) -> list[Any]:
    """Crop 70-100 % of the area, flip, mild colour changes, re-compression, sometimes a blur."""
    import albumentations as A

    from src.data.batches.recompress import Recompress

    return [
        A.RandomResizedCrop((size, size), scale=(0.7, 1.0), ratio=(0.85, 1.18), p=1.0),
        A.HorizontalFlip(p=0.5),
        A.ColorJitter(0.15, 0.15, 0.15, 0.03, p=0.5),
        Recompress((50, 100), p=0.3),
        A.GaussianBlur(blur_limit=(3, 5), p=0.1),
    ]


@PRESETS.register("standard")
def standard(size: int) -> list[Any]:
    """Flip, turn by up to 10 degrees, jitter the colours, erase: the FSFM system's.

    Turned and jittered is every image, as torchvision's RandomRotation(10) and
    ColorJitter(.2, .2, .2, .1) do it; the corners that turning uncovers are mirrored, not black.
    """
    import albumentations as A
    import cv2

    return [
        A.Rotate(10, interpolation=cv2.INTER_LINEAR, border_mode=cv2.BORDER_REFLECT_101, p=1.0),
        A.RandomCrop(size, size),
        A.HorizontalFlip(p=0.5),
        A.ColorJitter(0.2, 0.2, 0.2, 0.1, p=1.0),
        A.Erasing(fill=MEAN_COLOUR, p=0.1),
    ]


@PRESETS.register("classic")
def classic(size: int) -> list[Any]:
    """Flip, brightness and contrast, hue and saturation, Gaussian noise: the EfficientNet system's.

    The noise is that of albumentations 1's default, a variance of 10 to 50 on a 0..255 scale; the
    default of version 2 is ten times as strong.
    """
    import albumentations as A

    return [
        A.RandomCrop(size, size),
        A.HorizontalFlip(p=0.5),
        A.RandomBrightnessContrast(p=0.5),
        A.HueSaturationValue(p=0.5),
        A.GaussNoise(std_range=(10**0.5 / 255, 50**0.5 / 255), p=0.3),
    ]


@PRESETS.register("robust")
def robust(size: int) -> list[Any]:
    """What sharing does to a picture: screenshots, smaller copies, blur, noise, JPEG 30-100."""
    import albumentations as A
    import cv2

    from src.data.batches.recompress import Recompress

    ways = ((cv2.INTER_AREA, cv2.INTER_LINEAR), (cv2.INTER_AREA, cv2.INTER_CUBIC),
            (cv2.INTER_LINEAR, cv2.INTER_NEAREST))  # fmt: skip
    copies: list[Any] = [
        A.Downscale((0.3, 0.9), interpolation_pair={"downscale": down, "upscale": up}, p=1.0)
        for down, up in ways
    ]
    return [
        A.RandomCrop(size, size),
        A.HorizontalFlip(p=0.5),
        A.OneOf([_screenshot(page) for page in (WHITE, BLACK)], p=0.25),
        A.OneOf(copies, p=0.3),
        A.OneOf([A.GaussianBlur((3, 7), p=1.0), A.MotionBlur((3, 7), p=1.0)], p=0.2),
        A.OneOf([A.GaussNoise((0.01, 0.05), p=1.0), A.ISONoise(p=1.0)], p=0.2),
        Recompress((30, 100), p=0.6),
    ]


def _screenshot(page: int) -> Any:  # noqa: ANN401 - albumentations has no stubs
    """Return a transform: shown at another size, off the grid, on a page, in a screen's tones."""
    import albumentations as A
    import cv2

    from src.data.batches.recompress import Recompress

    shown = A.Affine(
        scale=(0.85, 1.15), translate_percent=(-0.05, 0.05), keep_ratio=True,
        interpolation=cv2.INTER_CUBIC, fill=page, p=1.0,
    )  # fmt: skip
    return A.Sequential(
        [shown, A.RandomGamma((85, 118), p=0.7), Recompress((70, 95), p=0.5)],
        p=1.0,
    )


@PRESETS.register("share")
def share(size: int) -> list[Any]:
    """What a chain of chats and sites does: a smaller copy, stored one to three times.

    Each time as JPEG 40-95 with 4:2:0, 4:2:2 or whole chroma, or as WebP. Several passes are what
    AI-GenBench (arXiv 2511.21507) found to help most: an AUROC on generators of the next period of
    .901 without, .931 with one mild pass, .945 with up to three.
    """
    import albumentations as A
    import cv2

    from src.data.batches.recompress import Recompress

    return [
        A.RandomCrop(size, size),
        A.HorizontalFlip(p=0.5),
        A.RandomScale((-0.5, -0.1), interpolation=cv2.INTER_AREA, p=0.5),
        Recompress((40, 95), repeat=(1, 3), webp=0.2, chroma=("420", "422", "444"), p=0.8),
        A.Resize(size, size, interpolation=cv2.INTER_CUBIC),
    ]


@PRESETS.register("forensic")
@native_only
def forensic(size: int) -> list[Any]:
    """Cut a random square out of the pixels as they are and flip; no value is changed.

    For `input.geometry: native`; `input.crop_pct` says how much room there is: at .25, a net of
    224 px sees squares out of the middle 896.
    """
    import albumentations as A

    return [A.RandomCrop(size, size), A.HorizontalFlip(p=0.5)]
