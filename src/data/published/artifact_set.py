"""ArtiFact (Rahman et al., ICIP 2023): a generator or source a folder, each with its metadata.csv.

Its columns are `filename,image_path,target,category`; target is 0 for real, and 1 or more, by kind
of generator, for fake.
"""

from collections import Counter
from pathlib import Path

import pandas as pd

from src.data.items.dataset_yaml import DatasetConfig
from src.data.items.listing import Entry, Listing
from src.data.items.tables import read_table
from src.data.items.words import SplitMap, make_label_map, normalise
from src.data.published.reading import Clip, Reading
from src.errors import UserError

NAME = "artifact"
_TABLE = "metadata.csv"
_COLUMNS = {"filename", "image_path", "target", "category"}


def read(root: Path, listing: Listing, config: DatasetConfig) -> Reading | None:
    """Read images by folder, which becomes the domain; None where no metadata.csv has this form.

    A row names a file by its image_path, below the folder of its metadata.csv or of the data set,
    else by its filename. Files may be missing on disk.

    Raises:
        UserError: a metadata.csv that is no CSV, a target that is no whole number and that
            `labels:` of dataset.yaml does not name.
    """
    reading = Reading(NAME, [])
    on_disk = {entry.logical for entry in listing.media}
    for entry in listing.tables:
        if entry.logical.rpartition("/")[2] != _TABLE:
            continue
        rows = read_table(root, entry)
        if {normalise(name) for name in rows.columns} >= _COLUMNS:
            reading.tables.add(entry.logical)
            reading.clips += _clips(root, entry, rows, on_disk, config)
    if not reading.clips:
        return None
    counts = Counter(clip.domain for clip in reading.clips)
    found = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    reading.notes.append(
        f"labels: {len(reading.tables)} metadata.csv (target: 0 real, above fake); their folders "
        f"are the domains: {found}"
    )
    return reading


def _clips(
    root: Path, entry: Entry, rows: pd.DataFrame, on_disk: set[str], config: DatasetConfig
) -> list[Clip]:
    rows = rows.rename(columns={name: normalise(name) for name in rows.columns})
    home = entry.logical.rpartition("/")[0]
    domain = home.rpartition("/")[2] or root.name
    read_label = make_label_map(config.labels).get if config.labels else _label
    labels = rows["target"].map(read_label)
    if labels.isna().any():
        row = int(labels.isna().to_numpy().argmax())
        raise UserError(
            f"{root / entry.path}: {rows.index[row]}: target is {rows['target'].iloc[row]!r}, want "
            "0 (real) or a whole number above (a kind of fake), or what `labels:` of dataset.yaml "
            "names"
        )
    split = SplitMap(config.splits).of_folders(home.split("/")) or "train"
    clips = []
    for filename, image_path, label in zip(
        rows["filename"], rows["image_path"], labels, strict=True
    ):
        path = _place(home, filename, image_path, on_disk)
        if ".." in path.split("/"):
            raise UserError(f"{root / entry.path}: {path!r} leads out of the data set's folder")
        clips.append(Clip("", path, int(label), domain, {split}, [path]))
    return clips


def _label(target: str) -> int | None:
    return int(int(target) > 0) if target.isdecimal() else None


def _place(home: str, filename: str, image_path: str, on_disk: set[str]) -> str:
    """Return the file that a row means: the first reading of it that is there, else the first."""
    below = [
        name.replace("\\", "/").removeprefix("./").strip("/") for name in (image_path, filename)
    ]
    above = home.rpartition("/")[0]
    tried = [f"{folder}/{name}".lstrip("/") for name in below for folder in (home, above, "")]
    return next((path for path in tried if path in on_disk), tried[0])
