"""A contact sheet of what a model's net sees of training items."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from src import paths
from src.config import InputSpec, ModelConfig
from src.data.batches.augment import check_augment
from src.data.batches.loader import DeviceBatches, TrainBatches
from src.data.batches.samplers import BatchKey
from src.data.items.manifest import Dataset
from src.data.pixels.images import center_crop
from src.data.pixels.source import Canvas, PixelSource
from src.errors import UnreadableImageError, UserError
from src.models.backbones import build_backbone
from src.models.classifier import input_spec
from src.reporting.charts import new_figure, save_figure, shown
from src.seeds import derive_seed

Picture = NDArray[np.uint8]
CELL = 1.5  # inches
SMALL = 96  # px; smaller pictures are shown pixel by pixel


class Row(NamedTuple):
    """An item of the sheet: its id, label, and pictures from left to right."""

    item_id: str
    label: int
    pictures: list[Picture]


def spec_of(config: ModelConfig) -> InputSpec:
    """Return a model's preprocessing without making its weights."""
    with torch.device("meta"):
        _, native = build_backbone(config.backbone, config.input.image_size)
    return input_spec(config, native)


def draw_preview(
    model: str, config: ModelConfig, dataset: Dataset, per_class: int = 4, draws: int = 6
) -> Path:
    """Draw some real and some fake training items: the canvas, the evaluation view, draws.

    With `mixup` or `cutmix` the items of the sheet are mixed with each other. A stage that trains
    the head on cached features sees the evaluation view alone.

    Args:
        model: its name.
        config: its config.
        dataset: data set.
        per_class: items of each label, drawn from the config's seed.
        draws: how often each is augmented, as in as many epochs.

    Returns:
        The PNG.

    Raises:
        UserError: unknown preset, or one that does not go with the geometry; no training items, or
            none of a class that can be decoded.
    """
    check_augment(config.augment, config.input.geometry)
    spec = spec_of(config)
    rows = collect_rows(config, spec, dataset, per_class, draws)
    titles = [f"canvas, {spec.canvas} px", f"evaluation, {spec.image_size} px"]
    titles += [f"draw {number + 1}" for number in range(draws)]
    also = {"erase": config.erase, "mixup": config.mixup, "cutmix": config.cutmix}
    more = "".join(f", {key} {value:g}" for key, value in also.items() if value)
    title = f"{model} on {dataset.name}: augment {config.augment}{more}, {spec.geometry}"
    path = paths.preview_png(dataset.name, model)
    return draw_rows(rows, titles, title, path, dataset.labels.names)


def collect_rows(
    config: ModelConfig, spec: InputSpec, dataset: Dataset, per_class: int, draws: int
) -> list[Row]:
    """Return the rows of the sheet, reals first; see `draw_preview`."""
    items = dataset.require_train()
    labels = items["label"].to_numpy(np.int64)
    canvas = Canvas.of(spec)
    chosen = _choose(dataset, items["path"].tolist(), labels, canvas, per_class, config.seed)
    files = items["path"].iloc[chosen].tolist()
    source = PixelSource(dataset.root, files, [canvas], frames=config.frames)
    seen = [np.stack([source.read(row)[0] for row in range(len(chosen))])]
    seen.append(np.stack([center_crop(image, spec.image_size) for image in seen[0]]))
    seen += _draw(config, spec, source, labels[chosen], draws)
    return [
        Row(str(items["item_id"].iloc[number]), int(labels[number]), [p[place] for p in seen])
        for place, number in enumerate(chosen)
    ]


def _choose(
    dataset: Dataset, files: list[str], labels: NDArray[np.int64], canvas: Canvas,
    per_class: int, seed: int,
) -> list[int]:  # fmt: skip
    """Return row numbers of readable items, `per_class` of each label (or all that there are)."""
    rng = np.random.default_rng(derive_seed(seed, "preview"))
    source, chosen = PixelSource(dataset.root, files, [canvas]), []
    for label, name in enumerate(dataset.labels.names):
        found: list[int] = []
        for number in rng.permutation(np.flatnonzero(labels == label)):
            if len(found) == per_class:
                break
            try:
                source.read(int(number))
            except UnreadableImageError:
                continue
            found.append(int(number))
        if not found:
            raise UserError(f"{dataset.root}: no {name} training item can be decoded")
        chosen += found
    return chosen


def _draw(
    config: ModelConfig, spec: InputSpec, source: PixelSource, labels: NDArray[np.int64], draws: int
) -> list[Picture]:
    """Return the first batch of as many epochs, of all items of `source`, as the net sees it."""
    mixes = config.mixup > 0 or config.cutmix > 0
    batches = TrainBatches(
        source, labels, config.augment, spec.image_size, derive_seed(config.seed, 0), config.erase,
        mixes=mixes,
    )  # fmt: skip
    rows = tuple(range(len(source)))
    loader = [batches[BatchKey(epoch, 0, rows)] for epoch in range(draws)]
    on_device = DeviceBatches(
        loader, config.augment, spec.image_size, torch.device("cpu"), config.mixup, config.cutmix
    )
    return [_blanked(batch, spec) for batch in on_device]


def _blanked(batch: dict[str, torch.Tensor], spec: InputSpec) -> Picture:
    """Return a batch's pixels with what is erased in the mean colour, as the net takes it."""
    pixels = batch["pixels"].round().to(torch.uint8).numpy().copy()
    colour = np.rint(255 * np.array(spec.mean)).astype(np.uint8)
    if "blank" in batch:
        boxes = batch["blank"].tolist()
        for image, (top, bottom, left, right) in zip(pixels, boxes, strict=True):
            image[top:bottom, left:right] = colour
    return pixels


def draw_rows(
    rows: list[Row], titles: list[str], title: str, path: Path, names: tuple[str, str]
) -> Path:
    """Draw a sheet: a row an item, named at its left with its label, and a title a column."""
    figure = new_figure(CELL * len(titles) + 1, (CELL + 0.1) * len(rows) + 0.8)
    figure.suptitle(shown(title, 120))
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for axes_row, row in zip(grid, rows, strict=True):
        for axes, picture in zip(axes_row, row.pictures, strict=True):
            nearest = picture.shape[0] < SMALL
            axes.imshow(picture, interpolation="nearest" if nearest else "antialiased")
            axes.set(xticks=[], yticks=[])
        name = f"{shown(names[row.label], 22)}\n{shown(row.item_id, 22)}"
        axes_row[0].set_ylabel(name, fontsize=8, color="tab:red" if row.label else "tab:blue")
    for axes, text in zip(grid[0], titles, strict=True):
        axes.set_title(text, fontsize=9)
    return save_figure(figure, path)
