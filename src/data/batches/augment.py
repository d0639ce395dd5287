"""Augmentation presets by name, for training items only; evaluation never comes here.

Two kinds, each registered with one decorator: lists of albumentations that see one image at a time
(`PRESETS`, in `augment_presets`), and functions that take a whole batch on the device
(`BATCH_PRESETS`, here). A setting is a keyword of its function: a key beside `name` in a model's
YAML, with that range and that default. `erase` is one of every preset.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from src.errors import UserError, unknown_name
from src.registry import Registry
from src.strict_yaml import Chance, Float, checked, keywords_of, make_keys

if TYPE_CHECKING:
    from src.data.batches.augment_presets import Augment, Preset

Asked = str | Mapping[str, Any]  # what `augment` in a config may be
# (uint8 (n, canvas, canvas, 3), size, generator on the CPU), settings -> uint8 (n, size, size, 3)
BatchPreset = Callable[..., Tensor]
BATCH_PRESETS: Registry[BatchPreset] = Registry("augmentation preset")

ZOOM_ASPECT = (0.85, 1.18)  # width over height, of what `zoom_flip` cuts
ERASED_AREA = (0.02, 1 / 3)  # share of the image
ERASED_ASPECT = (0.3, 1 / 0.3)  # height over width


@dataclass(frozen=True)
class Augmentation:
    """A preset with its settings, as a config asks for it."""

    preset: Callable[..., Any]  # a `Preset` or a `BatchPreset` with all its settings, but `erase`
    of_batches: bool  # it works on whole batches
    native_only: bool  # it is for pixels that were not resampled
    resampling: bool  # of a preset for whole batches: it resamples
    erase: float  # share of images of which a random rectangle is blanked


def resampling(preset: BatchPreset) -> BatchPreset:
    """Mark a preset that computes pixels between those that there are."""
    preset.resampling = True  # type: ignore[attr-defined]
    return preset


@BATCH_PRESETS.register("none")
def none(pixels: Tensor, size: int, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    """Cut the central square, as evaluation does."""
    top, left = ((side - size) // 2 for side in pixels.shape[1:3])
    return pixels[:, top : top + size, left : left + size]


@BATCH_PRESETS.register("crop_flip")
def crop_flip(
    pixels: Tensor,
    size: int,
    generator: torch.Generator,
    *,
    shift: Annotated[Float, Field(ge=0, le=0.5)] = 1 / 8,
    flip: Chance = 0.5,
) -> Tensor:
    """For small images: shift by up to `shift` of the side with mirrored edges, flip."""
    n, side = pixels.shape[:2]
    most = max(1, int(size * shift)) if shift else 0
    wide = max(side, size + 2 * most)  # with the mirrored edges
    corners = torch.randint(wide - size + 1, (2, n, 1), generator=generator)
    flipped = torch.rand((n, 1), generator=generator) < flip
    steps = torch.arange(size)
    rows, columns = corners + steps - (wide - side) // 2
    columns = torch.where(flipped, columns.flip(1), columns)
    rows, columns = beside(pixels, _mirrored(rows, side)), beside(pixels, _mirrored(columns, side))
    where = rows[:, :, None] * side + columns[:, None, :]
    where += torch.arange(n, device=pixels.device)[:, None, None] * side**2
    return pixels.reshape(-1, 3).index_select(0, where.reshape(-1)).view(n, size, size, 3)


@BATCH_PRESETS.register("zoom_flip")
@resampling
def zoom_flip(
    pixels: Tensor,
    size: int,
    generator: torch.Generator,
    *,
    area: Annotated[Float, Field(gt=0, le=1)] = 0.7,
    flip: Chance = 0.5,
) -> Tensor:
    """Crop `area` to all of it and flip, as `crop_zoom` does, and change no colour.

    An aspect is drawn among those that fit, so that no draw is made again; between pixels it is
    bilinear, without a filter against aliasing: canvases are little larger than what a net sees.
    """
    share, aspect, top, left, coin = torch.rand((5, len(pixels), 1), generator=generator)
    share = area + (1 - area) * share
    low, high = (
        torch.clamp(share.new_tensor(each), share, 1 / share).log() for each in ZOOM_ASPECT
    )
    aspect = (low + (high - low) * aspect).exp()
    height, width = (share / aspect).sqrt(), (share * aspect).sqrt()
    middle = (2 * torch.arange(size) + 1) / size - 1  # of the pixels of the crop, -1 to 1
    columns = middle * torch.where(coin < flip, -width, width) + (1 - width) * (2 * left - 1)
    rows = middle * height + (1 - height) * (2 * top - 1)
    rows, columns = beside(pixels, rows), beside(pixels, columns)
    grid = torch.stack(torch.broadcast_tensors(columns[:, None, :], rows[:, :, None]), -1)
    planes = pixels.permute(0, 3, 1, 2).contiguous().float()  # twice as fast on a CPU
    cut = functional.grid_sample(planes, grid, padding_mode="border", align_corners=False)
    return cut.round_().to(torch.uint8).permute(0, 2, 3, 1)


def beside(pixels: Tensor, drawn: Tensor) -> Tensor:
    """Return what was drawn on the CPU on the device of pixels; a card is not waited for."""
    if pixels.device.type == "cuda":
        return drawn.pin_memory().to(pixels.device, non_blocking=True)
    return drawn.to(pixels.device)


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


def read_augment(asked: Asked) -> Augmentation:
    """Return the preset that a config asks for; loads albumentations where it wants it.

    Raises:
        UserError: unknown preset or setting, or a value of a wrong kind or out of its range.
    """
    name, given = _name_and_settings(asked)
    of_batches = name in list(BATCH_PRESETS)
    if not of_batches and name not in list(image_presets()):
        raise unknown_name("augmentation preset", name, preset_names())
    preset = (BATCH_PRESETS if of_batches else image_presets()).get(name)
    settings = asdict(checked(given, _settings_of(preset), f"augment: {name}"))
    erase = settings.pop("erase")
    native_only, resampling = (getattr(preset, f, False) for f in ("native_only", "resampling"))
    return Augmentation(partial(preset, **settings), of_batches, native_only, resampling, erase)


@cache
def _settings_of(preset: "Preset | BatchPreset") -> type[Any]:
    """Return the model of a preset's settings."""
    erase = (Chance, getattr(preset, "erase", 0.0))
    return make_keys("Settings", keywords_of(preset) | {"erase": erase})


def shown_augment(asked: Asked) -> str:
    """Return what a title says: `standard (hue 0.05, erase 0.2)`."""
    name, given = _name_and_settings(asked)
    settings = ", ".join(f"{key} {value}" for key, value in given.items())
    return f"{name} ({settings})" if settings else name


def _name_and_settings(asked: Asked) -> tuple[str, dict[str, Any]]:
    if isinstance(asked, str):
        return asked, {}
    return str(asked["name"]), {key: value for key, value in asked.items() if key != "name"}


def check_augment(asked: Asked, geometry: str) -> None:
    """Check a preset before anything is computed.

    Raises:
        UserError: as `read_augment`; or a preset that resamples what `geometry: native` keeps as it
            is, or that wants pixels as they are where another geometry has resampled them.
    """
    wanted, name = read_augment(asked), _name_and_settings(asked)[0]
    if geometry != "native":
        if wanted.native_only:
            raise UserError(
                f"augment: {name} is for pixels as they are, and input.geometry: {geometry} "
                "resamples them; take input.geometry: native, or another preset (light)"
            )
    elif wanted.resampling if wanted.of_batches else _resamples(wanted):
        raise UserError(
            f"augment: {name} resamples, and input.geometry: native never does; take none, "
            "crop_flip, light, classic or forensic, or another geometry"
        )


def _resamples(wanted: Augmentation) -> bool:
    from src.data.batches.augment_presets import resamples

    return resamples(wanted.preset(32))


def make_augment(asked: Asked, size: int) -> "Augment":
    """Build a preset of single images for a net that sees them at `size` pixels.

    Raises:
        UserError: as `read_augment`.
        UserWarning: as an error, where albumentations would ignore a mistyped argument.
    """
    from src.data.batches.augment_presets import Augment

    preset = read_augment(asked).preset
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
