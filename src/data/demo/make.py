"""The embedded data set: real crops of two photographs against manipulated ones.

The photographs are the two that scikit-learn ships: `china.jpg` (by danielbuechele) and
`flower.jpg` (by vultilion), both CC BY 2.0. They are cut into disjoint regions; every crop, and the
fake made of it, belongs to its region; the test part is cut from regions that train does not hold.
Both classes are written the same way, so that a file's name, size and format tell nothing.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from PIL import Image as PillowImage

from src import paths
from src.artifacts.atomic import file_lock, own_folder
from src.artifacts.files import read_json, sha256_file, write_csv, write_json
from src.data.demo.crops import (
    SIDE,
    Image,
    Region,
    make_pairs,
    make_regions,
    read_photographs,
    split_regions,
    to_grey,
)
from src.data.pixels.images import decode_image
from src.errors import UserError

VERSION = 1
QUALITIES = (80, 96)  # JPEG quality, one distribution for both classes
COPY_EVERY = 50  # one exact and one near copy per so many train items
LABELS = ("REAL", "FAKE")
_SCHEMA = 1


@dataclass(frozen=True)
class _DemoItem:
    """One file to be written."""

    data: bytes
    label: int
    original: str
    domain: str
    suffix: str = ".jpg"


def make_demo(seed: int = 42, *, n_train: int = 1600, n_test: int = 400) -> Path:
    """Make the demo data set, or reuse the one that is there.

    It stands in the cache: flat `train/` and `train.csv` (`filename,label,original,domain`), flat
    `test/` and `sample_submission.csv`; the truth of its test part stands beside it, outside.

    The same seed gives the same bytes. `n_train` counts copies and one unreadable item, `n_test`
    unreadable and odd ones.

    Raises:
        UserError: another process is making it, or the sizes are too small.
    """
    if n_train < 40 or n_test < 20:
        raise UserError(f"the demo needs n_train >= 40 and n_test >= 20, got {n_train}, {n_test}")
    folder = paths.dataset_dir(paths.DEMO)
    wanted = {"version": VERSION, "seed": seed, "n_train": n_train, "n_test": n_test}
    with file_lock(_beside(".lock"), "the demo data set"):
        if not _is_complete(folder, wanted):
            _replace(folder, wanted)
    return folder


def _beside(suffix: str) -> Path:
    """Return a file next to the data set, where no reader of data sets looks."""
    folder = paths.dataset_dir(paths.DEMO)
    return folder.with_name(folder.name + suffix)


def _fingerprint(folder: Path) -> str:
    """Hash every name and byte of the data set and of its truth."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    lines = [f"{path.relative_to(folder)} {sha256_file(path)}" for path in files]
    lines.append(sha256_file(paths.demo_truth_csv()))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _is_complete(folder: Path, wanted: dict[str, int]) -> bool:
    try:
        record = read_json(_beside(".json"), schema=_SCHEMA, what="record of the demo data set")
        return record == {"schema": _SCHEMA, **wanted, "sha256": _fingerprint(folder)}
    except (UserError, OSError):
        return False


def _replace(folder: Path, wanted: dict[str, int]) -> None:
    """Build in a temporary folder and move it into place; the record, written last, seals it."""
    _beside(".json").unlink(missing_ok=True)
    with own_folder(folder.parent, f".{folder.name}.") as temporary:
        truth = _build(temporary / "new", wanted["seed"], wanted["n_train"], wanted["n_test"])
        if folder.exists():
            folder.replace(temporary / "old")
        (temporary / "new").replace(folder)
    write_csv(paths.demo_truth_csv(), truth)
    write_json(_beside(".json"), {"schema": _SCHEMA, **wanted, "sha256": _fingerprint(folder)})


def _build(folder: Path, seed: int, n_train: int, n_test: int) -> pd.DataFrame:
    """Write the data set into a new folder; return the truth of its test part."""
    rng = np.random.default_rng(seed)
    train_regions, test_regions = split_regions(make_regions(read_photographs()), rng)
    train = _make_train(train_regions, n_train, rng)
    copied = train[int(rng.integers(n_train // 2))]
    test = [copied, *_make_odd(test_regions, rng)]
    test += _make_items(test_regions, n_test - len(test), rng)

    names = [f"img_{number:05d}" for number in rng.permutation(n_train + n_test)]
    train_rows = _write_items(folder / "train", train, names[:n_train])
    test_rows = _write_items(folder / "test", test, names[n_train:])
    table = pd.DataFrame(train_rows).sort_values("filename")
    table["label"] = table["label"].map(dict(enumerate(LABELS)))
    write_csv(folder / "train.csv", table)
    truth = pd.DataFrame(test_rows)
    # In no order at all, as competitions give it: whoever sorts it is found out.
    order = rng.permutation(n_test)
    sample = pd.DataFrame({"filename": truth["filename"].iloc[order], "label": 0})
    write_csv(folder / "sample_submission.csv", sample)
    truth = truth.rename(columns={"filename": "item_id"})
    return truth[["item_id", "label"]].sort_values("item_id")


def _write_items(folder: Path, items: list[_DemoItem], names: list[str]) -> list[dict[str, Any]]:
    folder.mkdir(parents=True)
    rows = []
    for item, name in zip(items, names, strict=True):
        filename = name + item.suffix
        (folder / filename).write_bytes(item.data)
        own = {"label": item.label, "original": item.original, "domain": item.domain}
        rows.append({"filename": filename, **own})
    return rows


def _make_items(regions: list[Region], count: int, rng: np.random.Generator) -> list[_DemoItem]:
    items = []
    for region, real, fake in make_pairs(regions, (count + 1) // 2, rng):
        for label, image in enumerate((real, fake)):
            items.append(_DemoItem(_encode_jpeg(image, rng), label, region.name, region.domain))
    return items[:count]


def _make_train(regions: list[Region], count: int, rng: np.random.Generator) -> list[_DemoItem]:
    """Make the train items: crops and fakes, then copies of some, then one broken file."""
    copies = count // COPY_EVERY
    items = _make_items(regions, count - 2 * copies - 1, rng)
    chosen = rng.choice(len(items), 2 * copies, replace=False)
    for number, index in enumerate(chosen.tolist()):
        item = items[index]
        data = item.data
        if number % 2:
            while data == item.data:  # the same quality again may give the same bytes
                data = _encode_jpeg(decode_image(data), rng)
        # Its source is not known, as with any repost: only a duplicate finder sees the link.
        items.append(_DemoItem(data, item.label, f"repost_{number:03d}", item.domain))
    broken = items[0]
    items.append(_DemoItem(broken.data[:24], broken.label, broken.original, broken.domain))
    return items


def _make_odd(regions: list[Region], rng: np.random.Generator) -> list[_DemoItem]:
    """Make what uploads hold: three files that nothing can read, then readable odd ones."""
    makers: list[Callable[[Image], tuple[bytes, str]]] = [
        lambda _: (b"", ".jpg"),
        lambda _: (b"404 Not Found\n", ".jpg"),
        lambda image: (_encode_jpeg(image, rng)[:100], ".jpg"),
        lambda image: (_encode_jpeg(to_grey(image), rng), ".jpg"),
        lambda image: (_encode_rgba(image), ".png"),
        lambda image: (_encode_jpeg(image[:, SIDE // 6 : -SIDE // 6], rng), ".jpg"),
        lambda image: (_encode_cmyk(image, rng), ".jpg"),
    ]
    items = []
    pairs = make_pairs(regions, len(makers), rng)
    for number, (make, (region, real, fake)) in enumerate(zip(makers, pairs, strict=True)):
        label = number % 2
        data, suffix = make(fake if label else real)
        items.append(_DemoItem(data, label, region.name, region.domain, suffix))
    return items


def _draw_quality(rng: np.random.Generator) -> int:
    return int(rng.integers(*QUALITIES))


def _encode_jpeg(image: Image, rng: np.random.Generator) -> bytes:
    pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _draw_quality(rng)])[1].tobytes()


def _encode_rgba(image: Image) -> bytes:
    alpha = np.full((*image.shape[:2], 1), 255, np.uint8)
    alpha[:8, :8] = 0
    pixels = np.concatenate([cv2.cvtColor(image, cv2.COLOR_RGB2BGR), alpha], axis=2)
    return cv2.imencode(".png", pixels)[1].tobytes()


def _encode_cmyk(image: Image, rng: np.random.Generator) -> bytes:
    file = BytesIO()
    picture = PillowImage.fromarray(image).convert("CMYK")  # OpenCV cannot write it
    picture.save(file, "JPEG", quality=_draw_quality(rng))
    return file.getvalue()
