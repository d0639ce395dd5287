"""Lists of files: rows that name files or folders of frames, in CSV and text, header or not."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from unicodedata import normalize

import pandas as pd

from src.data.items.listing import TEXT_SUFFIX, Entry
from src.data.items.parquet_rows import PARQUET
from src.data.items.places import without_suffix
from src.data.items.tables import Row, make_table, names_of, read_table, read_text, split_rows
from src.data.items.words import LabelMap, SplitMap, read_word
from src.data.layouts.parquet_sets import read_parquet_table
from src.data.layouts.table_columns import is_header
from src.errors import UserError

_LOOKED_AT = 50  # rows that tell what a column holds
_MOST_TEXTS = 20  # text files of a folder: more are captions, one a picture


class OnDisk:
    """Tells whether a cell of a table names a file, or a folder of files; never which one.

    Args:
        media: the files.
        labels: what class folders are called: `real` in a row is a label, whatever lies there.
    """

    def __init__(self, media: Sequence[Entry], labels: LabelMap) -> None:
        self._media = media
        self.labels = labels

    @cached_property
    def _names(self) -> set[str]:
        names, folders = set(), set()
        for entry in self._media:
            folder, _, base = entry.logical.rpartition("/")
            folders.add(folder)
            names |= {base, without_suffix(base)}
        parts = {part for folder in folders for part in folder.split("/")}
        names |= {part for part in parts if read_word(part, self.labels).plain}
        return {name if name.isascii() else normalize("NFC", name) for name in names} - {""}

    def names(self, cell: str) -> bool:
        """Tell whether a file or folder has the last part of a cell as its name."""
        base = cell.replace("\\", "/").rstrip("/").rpartition("/")[2]
        base = base if base.isascii() else normalize("NFC", base)
        return base in self._names or without_suffix(base) in self._names

    def headless(self, rows: Sequence[Row]) -> bool:
        """Tell whether the first row is no header: it names a file, as the next one does."""
        if is_header(rows[0][1]):
            return False
        cells = zip(rows[0][1], rows[min(1, len(rows) - 1)][1], strict=False)
        return any(self.names(one) and self.names(two) for one, two in cells)


def split_of_name(entry: Entry) -> str:
    """Return the split that a table's name or folder gives: `val_list.txt`, `test/metadata.csv`."""
    path, words = PurePosixPath(entry.logical), SplitMap()
    found = words.read(path.stem)[0] if entry.suffix != ".json" else ()
    return found[-1] if found else words.of_folders(path.parts[:-1]) or "train"


def read_rows(root: Path, entry: Entry, on_disk: OnDisk) -> pd.DataFrame | None:
    """Read a CSV or a text; without a header the columns are called by what they hold.

    Those are `filename`, `label`, and `column_3` (the number of its place) for each other one.

    Returns:
        As `tables.read_table`; None for a text that is no list of files.

    Raises:
        UserError: see `tables.read_table`; rows of unequal length.
    """
    if entry.suffix == PARQUET:
        return read_parquet_table(root, entry)
    if entry.suffix == TEXT_SUFFIX:
        return _read_text_list(root, entry, on_disk)
    table = read_table(root, entry, on_disk.headless)
    if not table.attrs["header"]:
        return _named(table, on_disk)
    # `a.jpg 1` in a .csv: one column, the first row taken for its name.
    known = len(table.columns) > 1 or is_header([str(name) for name in table.columns])
    found = None if known else _read_text_list(root, entry, on_disk)
    return table if found is None else found


def texts_to_read(texts: Sequence[Entry]) -> list[Entry]:
    """Return the text files that may be lists: not the captions beside each picture."""
    folders: dict[str, list[Entry]] = {}
    for entry in texts:
        if entry.suffix == TEXT_SUFFIX and entry.bytes:
            folders.setdefault(entry.logical.rpartition("/")[0], []).append(entry)
    return [entry for found in folders.values() if len(found) <= _MOST_TEXTS for entry in found]


def _read_text_list(root: Path, entry: Entry, on_disk: OnDisk) -> pd.DataFrame | None:
    where = root / entry.path
    try:
        text = read_text(root, entry)
    except UserError:
        return None  # no text, whatever its name says
    numbered = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1)]
    lines = [(n, line) for n, line in numbered if line and not line.startswith("#")]
    if not lines:
        return None
    best: tuple[tuple[bool, int], list[Row], list[str] | None, str] | None = None
    for separator, split in _splits(lines[0][1]):
        rows = [(number, split(line)) for number, line in lines]
        header = None if on_disk.headless(rows) else rows.pop(0)[1]
        if not rows or (header is not None and not is_header(header)):
            continue
        score = _score(where, rows[:_LOOKED_AT], header, on_disk)
        if score[1] and (best is None or score > best[0]):
            best = (score, rows, header, separator)
    if best is None:
        return None
    _, rows, header, separator = best
    table = make_table(where, rows, header or names_of(rows), separator, header=header is not None)
    return table if header else _named(table, on_disk)


def _score(
    where: Path, rows: Sequence[Row], header: list[str] | None, on_disk: OnDisk
) -> tuple[bool, int]:
    """Return whether there are labels, and how many rows name a file; 0 where it is no list."""
    width = len(header or rows[0][1])
    even = [row for row in rows if len(row[1]) == width]
    if 2 * len(even) < len(rows):
        return False, 0
    table = make_table(where, even, names_of(even), "", header=False)
    roles = _roles(table, on_disk)
    if "filename" not in roles:
        return False, 0
    names = table[roles["filename"]]
    if header is None and names.map(on_disk.labels.get).notna().all():
        return False, 0  # `real 0`, `fake 1`: what classes are called
    hits = int(names.map(on_disk.names).sum())
    sure = "label" in roles or header is not None
    # A text that mentions a file is none that lists them.
    return sure, hits if sure or 2 * hits >= len(rows) else 0


def _splits(line: str) -> Iterator[tuple[str, Callable[[str], list[str]]]]:
    """Yield ways to split the lines of a text, the likeliest first."""
    for mark in (",", ";", "\t"):
        if mark in line:
            yield mark, lambda line, mark=mark: _fields(line, mark)
    yield " ", str.split
    yield " ", lambda line: line.rsplit(None, 1)  # my folder/a b.jpg 1
    yield " ", lambda line: line.split(None, 1)  # 1 my folder/a b.jpg
    yield " ", lambda line: [line]


def _fields(line: str, mark: str) -> list[str]:
    rows = split_rows(Path(), line, mark) if '"' in line else []
    return rows[0][1] if rows else [value.strip() for value in line.split(mark)]


def _named(table: pd.DataFrame, on_disk: OnDisk) -> pd.DataFrame:
    """Call the columns of a table without header by what they hold."""
    roles = {str(column): role for role, column in _roles(table, on_disk).items()}
    named = table.rename(columns=roles)
    named.attrs = table.attrs
    return named


def _roles(table: pd.DataFrame, on_disk: OnDisk) -> dict[str, str]:
    """Return which column names files, and which holds labels: the last that does."""
    head = table.iloc[:_LOOKED_AT]
    hits = {str(name): int(head[name].map(on_disk.names).sum()) for name in head.columns}
    # A label `1` may be the name of 1.jpg; a path looks like one.
    paths = {name: int(head[name].str.contains(r"[/\\]|\.\w{2,5}$").sum()) for name in hits}
    path = max(hits, key=lambda name: (min(hits[name], 1), paths[name], hits[name]))
    if not hits[path]:
        return {}
    labels = [
        name for name in hits if name != path and head[name].map(on_disk.labels.get).notna().all()
    ]
    roles = {"filename": path} | ({"label": labels[-1]} if labels else {})
    words = {name: {*head[name]} for name in hits if name not in roles.values()}
    splits = [n for n, w in words.items() if all(len(SplitMap().read(x)[0]) == 1 for x in w)]
    return roles | ({"split": splits[0]} if splits else {})
