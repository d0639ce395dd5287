"""ArtiFact (Rahman et al., ICIP 2023): a generator or source a folder, each with its metadata.csv.

Its columns are `filename,image_path,target,category`; target is 0 for real, and 1 or more, by kind
of generator, for fake.
"""

from collections import Counter

import pandas as pd

from src.data.items.folder import Folder
from src.data.items.listing import Entry
from src.data.items.tables import read_table
from src.data.items.words import SplitMap, normalise
from src.data.published.reading import Reading, Video, reader
from src.errors import UserError

_COLUMNS = {"filename", "image_path", "target", "category"}


@reader("artifact", rank=5)
def read(folder: Folder) -> Reading | None:
    """Read images by folder, which becomes the domain; None where no metadata.csv has this form.

    A row names a file by its image_path, below the folder of its metadata.csv or of the data set,
    else by its filename. Files may be missing on disk.
    """
    reading = Reading()
    for entry in folder.listing.tables:
        if entry.logical.rpartition("/")[2] == "metadata.csv":
            rows = read_table(folder.root, entry)
            if {normalise(name) for name in rows.columns} >= _COLUMNS:
                reading.tables.add(entry.logical)
                reading.videos += _pictures(folder, entry, rows)
    if not reading.videos:
        return None
    counts = Counter(picture.domain for picture in reading.videos)
    found = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    reading.notes.append(
        f"labels: {len(reading.tables)} metadata.csv (target: 0 real, above fake); their folders "
        f"are the domains: {found}"
    )
    return reading


def _pictures(folder: Folder, entry: Entry, rows: pd.DataFrame) -> list[Video]:
    rows = rows.rename(columns={name: normalise(name) for name in rows.columns})
    home = entry.logical.rpartition("/")[0]
    domain = home.rpartition("/")[2] or folder.root.name
    labels = rows["target"].map(folder.labels.get if folder.config.labels else _label)
    if labels.isna().any():
        row = int(labels.isna().to_numpy().argmax())
        raise UserError(
            f"{folder.where(entry)}: {rows.index[row]}: target is {rows['target'].iloc[row]!r}, "
            "want 0 (real) or a whole number above (a kind of fake), or what `labels:` of "
            "dataset.yaml names"
        )
    split = SplitMap(folder.config.splits).of_folders(home.split("/")) or "train"
    pictures = []
    names = zip(rows["filename"], rows["image_path"], labels, strict=True)
    for filename, image_path, label in names:
        path = _file_of(folder, home, filename, image_path)
        if ".." in path.split("/"):
            raise UserError(f"{folder.where(entry)}: {path!r} leads out of the data set's folder")
        pictures.append(Video("", path, int(label), domain, {split}, [path]))
    return pictures


def _label(target: str) -> int | None:
    return int(int(target) > 0) if target.isdecimal() else None


def _file_of(folder: Folder, home: str, filename: str, image_path: str) -> str:
    """Return the file that a row means: the first reading of it that is there, else the first."""
    names = [one.replace("\\", "/").removeprefix("./").strip("/") for one in (image_path, filename)]
    homes = (home, home.rpartition("/")[0], "")
    tried = [f"{above}/{name}".lstrip("/") for name in names for above in homes]
    return next((path for path in tried if path in folder.on_disk), tried[0])
