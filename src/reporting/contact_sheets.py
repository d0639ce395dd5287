"""Contact sheets: what a model's net sees of training items, and the faces found in them."""

from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from src import paths
from src.artifacts.clusters import Clusters
from src.config import InputSpec, ModelConfig, read_model
from src.data.batches.augment import check_augment, shown_augment
from src.data.batches.hard_reals import HardReals
from src.data.batches.loader import TrainBatches
from src.data.batches.made import Masked, PseudoFakes
from src.data.batches.on_device import DeviceBatches
from src.data.batches.samplers import BatchKey
from src.data.items.files import kind_of
from src.data.items.manifest import Dataset
from src.data.pixels.faces import FaceBoxes
from src.data.pixels.images import center_crop
from src.data.pixels.landmarks import Landmarks
from src.data.pixels.source import Canvas, PixelSource
from src.data.pixels.video import read_picture
from src.errors import UnreadableImageError, UserError
from src.faces.crop import Face
from src.faces.tracks import place
from src.models.backbones import build_backbone
from src.models.classifier import input_spec
from src.reporting.charts import new_figure, save_figure, shown
from src.seeds import derive_seed

Picture = NDArray[np.uint8]
CELL = 1.5  # inches
SMALL = 96  # px; smaller pictures are shown pixel by pixel
FOUND, LOST = 4, 2  # items of each label with a face, and without
SIDE = 480  # px of the longer side of a picture on the sheet
CHOSEN, OTHER, FILLED = (0, 230, 0), (255, 200, 0), (90, 160, 255)


class SheetRow(NamedTuple):
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

    With `mixup` or `cutmix` the items of the sheet are mixed with each other; with `blend` it shows
    reals, and beside each draw the blend that shares it. A stage that trains the head on cached
    features sees the evaluation view alone. Items are drawn from the config's seed, `per_class` of
    each label, and augmented `draws` times (a third of it with `blend`), as in as many epochs.

    Raises:
        UserError: unknown preset, or one that does not go with the geometry; no training items, or
            none of a class that can be decoded.
    """
    check_augment(config.augment, config.input.geometry)
    spec = spec_of(config)
    if config.blend is not None:
        draws = max(1, draws // 3)  # each has a blend and a mask beside it
    rows = collect_rows(config, spec, dataset, per_class, draws)
    titles = [f"canvas, {spec.canvas} px", f"evaluation, {spec.image_size} px"]
    for number in range(draws):
        titles += [f"draw {number + 1}"]
        if config.blend is not None:
            titles += ["its blend", "mask"]
    also = {"mixup": config.mixup, "cutmix": config.cutmix}
    more = "".join(f", {key} {value:g}" for key, value in also.items() if value)
    title = (
        f"{model} on {dataset.name}: augment {shown_augment(config.augment)}{more}, {spec.geometry}"
    )
    path = paths.preview_png(dataset.name, model)
    return draw_rows(rows, titles, title, path, dataset.labels.names)


def collect_rows(
    config: ModelConfig, spec: InputSpec, dataset: Dataset, per_class: int, draws: int
) -> list[SheetRow]:
    """Return the rows of the sheet, reals first; see `draw_preview`."""
    items = dataset.require_train()
    labels = items["label"].to_numpy(np.int64)
    canvas = Canvas.of(spec)
    chosen = _choose(dataset, items["path"].tolist(), labels, canvas, per_class, config.seed)
    if config.blend is not None:
        chosen = [number for number in chosen if labels[number] == 0]
    files = items["path"].iloc[chosen].tolist()
    source = PixelSource(dataset.root, files, [canvas], frames=config.frames)
    seen = [np.stack([source.read(row)[0] for row in range(len(chosen))])]
    seen.append(np.stack([center_crop(image, spec.image_size) for image in seen[0]]))
    seen += _draw(config, spec, source, labels[chosen], draws)
    return [
        SheetRow(str(items["item_id"].iloc[number]), int(labels[number]), [p[place] for p in seen])
        for place, number in enumerate(chosen)
    ]


def _choose(
    dataset: Dataset,
    files: list[str],
    labels: NDArray[np.int64],
    canvas: Canvas,
    per_class: int,
    seed: int,
) -> list[int]:
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
        source, labels, config.augment, spec.image_size, derive_seed(config.seed, 0), mixes=mixes
    )
    rows = tuple(range(len(source)))
    batches.reals = HardReals.of(config.augment_real)
    if config.blend is not None:
        batches.fakes = PseudoFakes(config.blend, Landmarks(None))
        batches.masked = Masked(spec.canvas)
        rows += tuple(len(source) + row for row in rows)
    loader = [batches[BatchKey(epoch, 0, rows)] for epoch in range(draws)]
    on_device = DeviceBatches(
        loader, config.augment, spec.image_size, torch.device("cpu"), config.mixup, config.cutmix
    )
    drawn: list[Picture] = []
    for batch in on_device:
        pixels = _blanked(batch, spec)
        drawn.append(pixels[: len(source)])
        if "mask" in batch:
            masks = batch["mask"].numpy()[len(source) :, :, :, None]
            drawn += [pixels[len(source) :], masks.repeat(3, axis=3)]
    return drawn


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
    rows: list[SheetRow], titles: list[str], title: str, path: Path, names: tuple[str, str]
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


def draw_clusters(
    dataset: Dataset, scheme: str, folds: pd.DataFrame, clusters: Clusters, per_class: int = 4
) -> Path:
    """Draw the items of each cluster that lie nearest to a centre, reals, then fakes: a row each.

    They are shown as the net saw them whose features were clustered.

    Raises:
        UserError: an item cannot be decoded any more.
    """
    items = folds.merge(clusters.table, on="item_id").merge(
        dataset.train[["item_id", "path"]], on="item_id"
    )
    near = items.sort_values(["distance", "item_id"]).groupby(["cluster", "label"]).head(per_class)
    canvas = Canvas.of(spec_of(read_model(clusters.model)))
    source = PixelSource(dataset.root, near["path"].tolist(), [canvas])
    figure = new_figure(CELL * 2 * per_class + 1, (CELL + 0.1) * len(clusters) + 0.8)
    figure.suptitle(shown(f"{scheme} of {dataset.name}, by what {clusters.model} sees", 120))
    grid: Any = figure.subplots(len(clusters), 2 * per_class, squeeze=False)
    for axes in grid.ravel():
        axes.set(xticks=[], yticks=[])
    used = {(c, k): 0 for c in range(len(clusters)) for k in (0, 1)}
    for row, (cluster, label) in enumerate(zip(near["cluster"], near["label"], strict=True)):
        column = label * per_class + used[cluster, label]
        used[cluster, label] += 1
        grid[cluster, column].imshow(source.read_or_stop(row)[0])
    for cluster in items["cluster"].unique().tolist():
        part = items[items["cluster"] == cluster]
        words = f"cluster {cluster}, fold {part['fold'].iloc[0]}"
        share = f"{len(part)} items, {100 * part['label'].mean():.0f} % fake"
        grid[cluster, 0].set_ylabel(f"{words}\n{share}", fontsize=8)
    for label, name in enumerate(dataset.labels.names):
        grid[0, label * per_class].set_title(shown(name, 22), fontsize=9)
    return save_figure(figure, paths.clusters_png(dataset.name, scheme))


def draw_faces(dataset: Dataset, boxes: FaceBoxes) -> Path:
    """Draw some training items with their boxes, the crop and the aligned crop.

    The person that a model follows is drawn green, other faces yellow; blue is a box that was
    filled in from the frames around. An item without a face shows the whole picture. Of a clip,
    one frame is shown.

    Raises:
        UserError: no train items with a face, or without, that can be decoded.
    """
    train = dataset.train
    rows = []
    for label in (0, 1):
        part = train[train["label"] == label]
        ids = dict(zip(part["path"], part["item_id"], strict=True))
        rows += [
            SheetRow(str(ids[path]), label, _pictures(dataset.root, path, boxes))
            for path in _choose_faces(list(ids), boxes)
        ]
    if not rows:
        raise UserError(f"{dataset.root}: no train item that can be drawn")
    margin = boxes.face.margin
    titles = ["boxes", f"crop, margin {margin:g}", f"aligned, margin {margin:g}"]
    title = f"faces of {dataset.name} by {boxes.face.detector}"
    path = paths.faces_png(dataset.name)
    return draw_rows(rows, titles, title, path, dataset.labels.names)


def _choose_faces(items: list[str], boxes: FaceBoxes) -> list[str]:
    """Return some items with a face and some without, the same ones each time."""
    rng = np.random.default_rng(derive_seed(0, "faces"))
    order = [items[k] for k in rng.permutation(len(items)) if boxes.frames_of(items[k])]
    found = [path for path in order if boxes.people(path)][:FOUND]
    return found + [path for path in order if not boxes.people(path)][:LOST]


def _pictures(root: Path, path: str, boxes: FaceBoxes) -> list[Picture]:
    numbers = sorted(boxes.frames_of(path))
    number = numbers[len(numbers) // 2]
    if kind_of(path) == "video":
        picture = boxes.read_frame(path, number)
    else:
        picture = read_picture(root, path)
    people = boxes.people(path)
    faces = boxes.frames_of(path)[number]
    placed = place(people[0], number) if people else None
    marked = _marked(picture, [f for f in faces if placed is None or f != placed.face], OTHER)
    if placed is None:
        return [_small(one) for one in (marked, picture, picture)]
    marked = _marked(marked, [placed.face], FILLED if placed.is_filled else CHOSEN)
    crops = [
        boxes.cut(picture, placed.face, align=False),
        boxes.cut(picture, boxes.exact(picture, placed), align=True),
    ]
    return [_small(one) for one in (marked, *crops)]


def _marked(picture: Picture, faces: list[Face], colour: tuple[int, int, int]) -> Picture:
    picture = picture.copy()
    width = max(1, max(picture.shape[:2]) // 200)
    for face in faces:
        x0, y0, x1, y1 = (round(value) for value in face.box)
        cv2.rectangle(picture, (x0, y0), (x1, y1), colour, width)
        for x, y in face.points or ():
            cv2.circle(picture, (round(x), round(y)), width, colour, -1)
    return picture


def _small(picture: Picture) -> Picture:
    scale = SIDE / max(picture.shape[:2])
    if scale >= 1:
        return picture
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
