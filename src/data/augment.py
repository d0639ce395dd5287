"""Augmentation presets by name, for training items only; evaluation never comes here."""

import warnings
from collections.abc import Callable
from typing import Any

from src.registry import Registry

# albumentations is imported where it is used: it takes long, and only training needs it.
Preset = Callable[[int], list[Any]]
PRESETS: Registry[Preset] = Registry("augmentation preset")


@PRESETS.register("none")
def none(size: int) -> list[Any]:
    """Cut the central square, as evaluation does."""
    import albumentations as A

    return [A.CenterCrop(size, size)]


@PRESETS.register("crop_flip")
def crop_flip(size: int) -> list[Any]:
    """For small images: shift by up to an eighth of the side with mirrored edges, flip."""
    import albumentations as A

    pad = max(1, size // 8)
    return [
        A.PadIfNeeded(size + 2 * pad, size + 2 * pad, border_mode=4),
        A.RandomCrop(size, size),
        A.HorizontalFlip(p=0.5),
    ]


@PRESETS.register("light")
def light(size: int) -> list[Any]:
    """Cut a random square without resampling, flip, mild exposure and re-compression."""
    import albumentations as A

    return [
        A.RandomCrop(size, size),
        A.HorizontalFlip(p=0.5),
        A.RandomBrightnessContrast(0.15, 0.15, p=0.3),
        A.ImageCompression(quality_range=(60, 100), p=0.2),
    ]


@PRESETS.register("standard")
def standard(size: int) -> list[Any]:
    """Crop 70-100 % of the area, flip, mild colour changes, re-compression, sometimes a blur."""
    import albumentations as A

    return [
        A.RandomResizedCrop((size, size), scale=(0.7, 1.0), ratio=(0.85, 1.18), p=1.0),
        A.HorizontalFlip(p=0.5),
        A.ColorJitter(0.15, 0.15, 0.15, 0.03, p=0.5),
        A.ImageCompression(quality_range=(50, 100), p=0.3),
        A.GaussianBlur(blur_limit=(3, 5), p=0.1),
    ]


def make_augment(name: str, size: int) -> Any:  # noqa: ANN401 - albumentations has no stubs
    """Build a preset that maps uint8 (canvas, canvas, 3) to uint8 (size, size, 3).

    Raises:
        UserError: unknown preset.
        UserWarning: as an error, where albumentations would ignore a mistyped argument.
    """
    preset = PRESETS.get(name)
    import albumentations as A

    with warnings.catch_warnings():
        # 2.0.8 only warns of unknown argument names and goes on with its defaults.
        warnings.simplefilter("error", UserWarning)
        return A.Compose(preset(size))
