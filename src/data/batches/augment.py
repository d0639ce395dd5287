"""Augmentation presets by name, for training items only; evaluation never comes here.

Two kinds, each registered with one decorator: lists of albumentations that see one image at a time
(`PRESETS`, in `augment_presets`), and functions that take a whole batch on the device
(`BATCH_PRESETS`, here).
"""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.errors import UserError, unknown_name
from src.registry import Registry

if TYPE_CHECKING:
    from src.data.batches.augment_presets import Augment, Preset

# (uint8 (n, canvas, canvas, 3), size, generator on the CPU) -> uint8 (n, size, size, 3)
BatchPreset = Callable[[Tensor, int, torch.Generator], Tensor]
BATCH_PRESETS: Registry[BatchPreset] = Registry("augmentation preset")

ERASED_AREA = (0.02, 1 / 3)  # share of the image
ERASED_ASPECT = (0.3, 1 / 0.3)  # height over width


@BATCH_PRESETS.register("none")
def none(pixels: Tensor, size: int, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    """Cut the central square, as evaluation does."""
    top, left = ((side - size) // 2 for side in pixels.shape[1:3])
    return pixels[:, top : top + size, left : left + size]


@BATCH_PRESETS.register("crop_flip")
def crop_flip(pixels: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """For small images: shift by up to an eighth of the side with mirrored edges, flip."""
    n, side = pixels.shape[:2]
    wide = max(side, size + 2 * max(1, size // 8))  # with the mirrored edges
    corners = torch.randint(wide - size + 1, (2, n, 1), generator=generator)
    flipped = torch.rand((n, 1), generator=generator) < 0.5
    steps = torch.arange(size)
    rows, columns = corners + steps - (wide - side) // 2
    columns = torch.where(flipped, columns.flip(1), columns)
    rows, columns = _mirrored(rows, side), _mirrored(columns, side)
    where = (rows[:, :, None] * side + columns[:, None, :]).to(pixels.device)
    where += torch.arange(n, device=pixels.device)[:, None, None] * side**2
    return pixels.reshape(-1, 3).index_select(0, where.reshape(-1)).view(n, size, size, 3)


def _mirrored(places: Tensor, side: int) -> Tensor:
    """Bring places beyond an edge back inside, mirrored at the outermost pixel."""
    period = max(1, 2 * (side - 1))
    places = places.remainder(period)
    return torch.minimum(places, period - places) if side > 1 else torch.zeros_like(places)


def image_presets() -> "Registry[Preset]":
    """Return the presets that see one image at a time; loads albumentations."""
    from src.data.batches.augment_presets import PRESETS

    return PRESETS


def preset_names() -> list[str]:
    """Return the names of all presets, sorted."""
    return sorted([*image_presets(), *BATCH_PRESETS])


def takes_batches(name: str) -> bool:
    """Tell whether a preset works on whole batches; raises a UserError for an unknown one."""
    if name in list(BATCH_PRESETS):
        return True
    if name not in list(image_presets()):
        raise unknown_name("augmentation preset", name, preset_names())
    return False


def check_augment(name: str, geometry: str) -> None:
    """Check a preset before anything is computed.

    Raises:
        UserError: unknown preset, one that resamples what `geometry: native` keeps as it is, or
            one that wants pixels as they are where another geometry has resampled them.
    """
    if takes_batches(name):
        return
    from src.data.batches.augment_presets import resamples

    preset = image_presets().get(name)
    if geometry != "native":
        if getattr(preset, "native_only", False):
            raise UserError(
                f"augment: {name} is for pixels as they are, and input.geometry: {geometry} "
                "resamples them; take input.geometry: native, or another preset (light)"
            )
        return
    if resamples(preset(32)):
        raise UserError(
            f"augment: {name} resamples, and input.geometry: native never does; take none, "
            "crop_flip, light, classic or forensic, or another geometry"
        )


def make_augment(name: str, size: int) -> "Augment":
    """Build a preset for a net that sees images of `size` pixels.

    Raises:
        UserError: unknown preset.
        UserWarning: as an error, where albumentations would ignore a mistyped argument.
    """
    from src.data.batches.augment_presets import Augment

    preset = image_presets().get(name)
    with warnings.catch_warnings():
        # 2.0.8 only warns of unknown argument names and goes on with its defaults.
        warnings.simplefilter("error", UserWarning)
        return Augment(preset(size))


def draw_boxes(n: int, size: int, chance: float, seed: int) -> NDArray[np.int64]:
    """Draw what random erasing blanks (Zhong et al. 2020; a box that is too long is cut off).

    Of `n` images of `size` pixels each loses a rectangle by `chance`: int64 (n, 4) of top, bottom,
    left, right; all 0 where nothing is blanked.
    """
    rng = np.random.default_rng(seed)
    area = rng.uniform(*ERASED_AREA, n) * size**2
    low, high = np.log(ERASED_ASPECT)
    aspect = np.exp(rng.uniform(low, high, n))
    sides = np.sqrt([area * aspect, area / aspect])
    sides = np.clip(np.rint(sides), 1, size).astype(np.int64)
    top, left = corners = rng.integers(0, size - sides + 1)
    bottom, right = corners + sides
    boxes = np.stack([top, bottom, left, right], axis=1)
    return np.where(rng.random((n, 1)) < chance, boxes, 0)
