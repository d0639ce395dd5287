"""One look at every item: can it be decoded, how large or long is it, what is it a copy of."""

import hashlib
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, cast

import cv2
import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src import paths
from src.artifacts.atomic import atomic_path
from src.config import READING
from src.data.folds.near_duplicates import perceptual_hashes
from src.data.folds.schemes import is_scanned
from src.data.items.files import kind_of, read_bytes
from src.data.items.manifest import NO_STAMPS, Dataset
from src.data.pixels.decode import DAMAGED, decode
from src.data.pixels.formats import file_format, is_clip
from src.data.pixels.video import NAMED_AS_IMAGE, middle_frame, open_clip, read_clip
from src.errors import UnreadableImageError
from src.machine import cpu_count
from src.progress import track

VERSION = 2  # of what is computed below; a cache of another version is not used
BATCH = 256
SAVE_EVERY = 40  # batches; what is scanned by then survives an interruption
_TYPES = {
    "path": "object", "stamp": "int64", "width": "int32", "height": "int32", "sha256": "object",
    "phash": "uint64", "phash_flip": "uint64", "hashable": "bool", "format": "object",
    "error": "object", "fps": "float64", "duration": "float64", "codec": "object",
    "announced": "int64", "frames": "int64", "note": "object",
}  # fmt: skip
CLIPS_AT_ONCE = 4


class Look(NamedTuple):
    """What was found in one file."""

    width: int  # pixels, upright; 0 if it cannot be read
    height: int
    sha256: str  # of the file's bytes
    # uint64 of the image and of its mirror image, see `perceptual_hashes`; of a clip those of its
    # middle frame: copies stored again, and often a face swap and its original, are known by it
    phash: int
    phash_flip: int
    hashable: bool  # False for an unreadable or nearly flat image, whose hash means nothing
    format: str  # by the first bytes (`jpeg`); `video` for what is named as a clip
    error: str  # "" or why it cannot be read
    fps: float = 0.0  # of a clip, as the next four; 0 or "" for images
    duration: float = 0.0  # seconds
    codec: str = ""
    announced: int = 0  # frames that the container announces
    frames: int = 0  # those that can be decoded
    note: str = ""  # "" or what is odd about a file that can be read


def look_at_clip(root: Path, path: str) -> Look:
    """Read a clip from its start to its end; never raises for a file that is merely broken."""
    digest = ""
    try:
        with open_clip(root, path) as file:
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            clip = read_clip(
                root, path, 1, convert=lambda frame, _: (frame.shape, perceptual_hashes(frame))
            )
    except UnreadableImageError as error:
        return Look(0, 0, digest, 0, 0, False, "video", str(error) or "not decodable")
    (height, width, _), (phash, flip, hashable) = clip.frames[0]
    info = clip.info
    note = "; ".join(filter(None, (clip.problem, info.colours)))
    return Look(
        width, height, digest, phash, flip, hashable, "video", "", info.fps, info.duration,
        info.codec, clip.announced, clip.decoded, note,
    )  # fmt: skip


def scan_items(dataset: Dataset) -> pd.DataFrame:
    """Decode every image and clip of a data set once; a file seen before is not read again.

    One row an item comes back, in the order of `dataset.items`: item_id, split, and the fields of
    `Look`, width and height as Int32 (NA if unreadable). `error` also says of a train item that it
    is a damaged picture, which is not used.

    Raises:
        UserError: a file has vanished since it was listed.
    """
    known = _read_cache(paths.manifest_cache(dataset.name))
    rows = _locate(known, dataset)
    new = np.flatnonzero(rows < 0)
    if len(new):
        known = _scan_new(dataset, new, known)
        rows = _locate(known, dataset)
    return _as_table(dataset.items, known, rows)


def known_scan(dataset: Dataset) -> pd.DataFrame | None:
    """Return what `scan_items` would, where no file has to be opened for it; else None."""
    known = _read_cache(paths.manifest_cache(dataset.name))
    rows = _locate(known, dataset)
    return None if (rows < 0).any() else _as_table(dataset.items, known, rows)


def scan_for(dataset: Dataset, scheme: str) -> pd.DataFrame:
    """Return what a fold scheme is made from: a scan, or of an unscanned scheme nothing known.

    There no file is opened: sizes, sha256 and hashes are empty, every item counts as readable.
    """
    if is_scanned(scheme):
        return scan_items(dataset)
    looks = [Look(0, 0, "", 0, 0, False, word, "") for word in ("unknown", "video")]
    clip = (dataset.items["kind"] == "video").to_numpy()
    return _as_table(
        dataset.items, _as_known(["", ""], np.array([-1, -1]), looks), clip.astype(np.intp)
    )


def look_at(root: Path, path: str) -> Look:
    """Read and decode one image; never raises for a file that is merely broken."""
    digest, kind = "", "unknown"
    try:
        data = read_bytes(root, path)
        digest, kind = hashlib.sha256(data).hexdigest(), file_format(data)
        pixels, note = _decode(data)
    except UnreadableImageError as error:
        return Look(0, 0, digest, 0, 0, False, kind, str(error) or "not decodable")
    height, width = pixels.shape[:2]
    return Look(width, height, digest, *perceptual_hashes(pixels), kind, "", note=note)


def _decode(data: bytes) -> tuple[NDArray[np.uint8], str]:
    """Return an image's pixels and what is odd about it."""
    try:
        found = decode(data, [None])
        return found.pixels[0], found.problem
    except UnreadableImageError:
        if not is_clip(data):
            raise
        return middle_frame(data), NAMED_AS_IMAGE


def _look_at_many(root: Path, names: list[str]) -> list[Look]:
    cv2.setNumThreads(1)
    return [
        look_at_clip(root, name) if kind_of(name) == "video" else look_at(root, name)
        for name in names
    ]


def _locate(known: pd.DataFrame, dataset: Dataset) -> NDArray[np.intp]:
    """Return for each item its row among what is known, -1 if it is new or has changed."""
    rows = pd.Index(known["path"]).get_indexer(pd.Index(dataset.items["path"]))
    stamps = np.append(known["stamp"].to_numpy(np.int64), -1)
    return np.where(stamps[rows] == dataset.stamps, rows, -1)


def _scan_new(dataset: Dataset, new: NDArray[np.intp], known: pd.DataFrame) -> pd.DataFrame:
    """Scan items that the cache does not hold, saving now and then; returns old and new rows."""
    names = dataset.items["path"].iloc[new].tolist()
    stamps = dataset.stamps[new]
    batches = _batches(names)
    looks: list[Look] = []
    table = known
    for number, batch in enumerate(_in_parallel(dataset.root, batches), 1):
        looks += batch
        if number % SAVE_EVERY == 0 or number == len(batches):
            found = _as_known(names[: len(looks)], stamps[: len(looks)], looks)
            table = pd.concat([known, found]).drop_duplicates("path", keep="last")
            _write_cache(paths.manifest_cache(dataset.name), table)
    return table


def _batches(names: list[str]) -> list[list[str]]:
    """Return names in batches, in order, each of images or of a few clips, which take longer."""
    batches: list[list[str]] = []
    for kind, part in groupby(names, kind_of):
        same, size = list(part), CLIPS_AT_ONCE if kind == "video" else BATCH
        batches += [same[i : i + size] for i in range(0, len(same), size)]
    return batches


def _as_known(names: list[str], stamps: NDArray[np.int64], looks: list[Look]) -> pd.DataFrame:
    table = pd.DataFrame(looks, columns=pd.Index(Look._fields))
    table.insert(0, "path", names)
    table.insert(1, "stamp", stamps)
    return table.astype(_TYPES)


def _in_parallel(root: Path, batches: list[list[str]]) -> Iterator[list[Look]]:
    # Processes: imagehash is Python, and threads make it four times slower than one alone.
    workers = min(cpu_count(), len(batches) // 4)
    if workers < 2:
        yield from track((_look_at_many(root, b) for b in batches), "scanning", total=len(batches))
        return
    run = joblib.Parallel(n_jobs=workers, return_as="generator")
    done = cast(
        Iterator[list[Look]], run(joblib.delayed(_look_at_many)(root, batch) for batch in batches)
    )
    yield from track(done, "scanning", total=len(batches), unit=f"x{BATCH} files")


def _read_cache(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path, page_checksum_verification=True)
    except (OSError, ValueError, NotImplementedError, LookupError, TypeError):
        return _as_known([], NO_STAMPS, [])  # absent, or damaged: it is made again
    if table.attrs.get("version") != VERSION or list(table.columns) != list(_TYPES):
        return _as_known([], NO_STAMPS, [])
    if table.attrs.get("reading") != READING:  # clips are looked at again
        table = table[table["format"] != "video"].reset_index(drop=True)
    return table.astype(_TYPES)


def _write_cache(path: Path, table: pd.DataFrame) -> None:
    table = table.reset_index(drop=True)
    table.attrs = {"version": VERSION, "reading": READING}
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False, write_page_checksum=True)


def _as_table(items: pd.DataFrame, known: pd.DataFrame, rows: NDArray[np.intp]) -> pd.DataFrame:
    found = known.iloc[rows].reset_index(drop=True)
    unknown = (found["width"] == 0).to_numpy()
    table = found.drop(columns=["path", "stamp"])
    for column in ("width", "height"):
        table[column] = table[column].astype("Int32").mask(unknown)
    table.insert(0, "item_id", items["item_id"].to_numpy())
    table.insert(1, "split", items["split"].to_numpy())
    # Half a picture teaches what a cut looks like; a test item has no other half to be judged by.
    aside = (table["split"] == "train") & table["note"].str.startswith(DAMAGED)
    table.loc[aside, "error"] = table.loc[aside, "note"]
    table.loc[aside, "note"] = ""
    return table
