"""The most wrong items: as many of each class, each with its picture, and a link to its file."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.artifacts.files import write_csv
from src.data.items.files import local_path
from src.data.items.manifest import Dataset
from src.data.pixels.images import Canvas
from src.data.pixels.source import PixelSource
from src.ensemble.predictions import Decided
from src.errors import UnreadableImageError, UserError
from src.reporting.report.blocks import Block, Thumbnail, Thumbnails, Words
from src.reporting.report.subjects import Reported

WORST = 12  # of each class
SIDE = 160  # px of a thumbnail
CANVAS = Canvas(SIDE, "short_side", "bicubic")
QUALITY = 88  # of its JPEG


def worst_rows(rows: Decided, label: int, number: int = WORST) -> NDArray[np.int64]:
    """Return the rows of a class whose P(fake) is farthest from their label, the worst first.

    Logits tell apart what probs near 0 and 1 round to the same; ties go by item_id.
    """
    mine = np.flatnonzero(rows.label == label)
    right = rows.ranked[mine] if label else -rows.ranked[mine]
    return mine[np.lexsort((rows.item_id[mine].astype(str), right))[:number]]


def worst_blocks(
    reported: Reported, dataset: Dataset | None, names: tuple[str, str], why: str = ""
) -> list[Block]:
    """Return the most wrong items of either class; writes their CSV.

    Args:
        reported: with rows; of whom.
        dataset: where the files lie; None where that is not known, for a reason `why`.
        names: what the classes are called.
    """
    rows = reported.rows
    assert rows is not None
    chosen = [worst_rows(rows, label) for label in (0, 1)]
    every = np.concatenate(chosen)
    path = reported.folder / "worst.csv"
    write_csv(path, pd.DataFrame({
        "item_id": rows.item_id[every], "label": rows.label[every], "prob": rows.prob[every],
        "pred": rows.pred[every], "fold": rows.fold[every], "domain": rows.domain[every],
    }))  # fmt: skip
    files = _files(dataset, rows.item_id[every])
    blocks: list[Block] = [
        Words(
            "An arrow marks a link that leaves this folder, to the file as it lies; it leads "
            "nowhere once the report was moved away from its data.",
            soft=True,
        )
    ]
    for label, (name, look) in enumerate(zip(names, ("real", "fake"), strict=True)):
        title = f"{name}, yet the most like {names[1 - label]}"
        items = [_thumbnail(rows, int(row), dataset, files, names, why) for row in chosen[label]]
        blocks.append(
            Thumbnails(title, items, look, None if label else path)
            if items
            else Words(f"No items are {name}.")
        )
    return blocks


def _files(dataset: Dataset | None, ids: NDArray[np.object_]) -> dict[str, str]:
    """Return the paths of those items that the data set still has."""
    if dataset is None:
        return {}
    train = dataset.train
    held = train[train["item_id"].isin(ids)]
    return dict(zip(held["item_id"], held["path"], strict=True))


def _thumbnail(
    rows: Decided,
    row: int,
    dataset: Dataset | None,
    files: dict[str, str],
    names: tuple[str, str],
    why: str,
) -> Thumbnail:
    item = str(rows.item_id[row])
    words = f"P({names[1]}) {rows.prob[row]:.4f}, called {names[rows.pred[row]]}"
    if dataset is None or item not in files:
        return Thumbnail(item, words, None, why or "not in the data set any more")
    try:
        file: Path | None = local_path(dataset.root, files[item])
        pixels = PixelSource(dataset.root, [files[item]], [CANVAS]).read(0)[0]
    except (UnreadableImageError, UserError, OSError):
        gone = not (dataset.root / files[item]).exists()
        return Thumbnail(item, words, None, "the file is gone" if gone else "not readable")
    encoded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return Thumbnail(item, words, encoded.tobytes(), file=file)
