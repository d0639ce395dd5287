"""Lists of files: rows that name files or folders of frames, in CSV and text, header or not."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from src.data.items.folder import Folder
from src.data.items.listing import TEXT_SUFFIX, Entry
from src.data.items.parquet_rows import PARQUET
from src.data.items.tables import Line, make_table, names_of, read_table, read_text, split_rows
from src.data.items.words import SplitMap
from src.data.layouts.parquet_sets import read_parquet_table
from src.data.layouts.table_columns import is_header
from src.errors import UserError

_LOOKED_AT = 50  # rows that tell what a column holds
_MOST_TEXTS = 20  # text files of a folder: more are captions, one a picture


def split_of_name(entry: Entry) -> str:
    """Return the split that a table's name or folder gives: `val_list.txt`, `test/metadata.csv`."""
    path, words = PurePosixPath(entry.logical), SplitMap()
    found = words.read(path.stem)[0] if entry.suffix != ".json" else ()
    return found[-1] if found else words.of_folders(path.parts[:-1]) or "train"


def read_rows(folder: Folder, entry: Entry) -> pd.DataFrame | None:
    """Read a CSV, parquet or text as `tables.read_table` does; None for a text that is no list.

    Without a header the columns are called by what they hold: `filename`, `label`, and `column_3`
    (the number of its place) for each other one.
    """
    if entry.suffix == PARQUET:
        return read_parquet_table(folder.root, entry)
    if entry.suffix == TEXT_SUFFIX:
        return _read_text_list(folder, entry)
    table = read_table(folder.root, entry, lambda lines: _headless(folder, lines))
    if not table.attrs["header"]:
        return _named(table, folder)
    # `a.jpg 1` in a .csv: one column, the first row taken for its name.
    known = len(table.columns) > 1 or is_header([str(name) for name in table.columns])
    found = None if known else _read_text_list(folder, entry)
    return table if found is None else found


def texts_to_read(texts: Sequence[Entry]) -> list[Entry]:
    """Return the text files that may be lists: not the captions beside each picture."""
    folders: dict[str, list[Entry]] = {}
    for entry in texts:
        if entry.suffix == TEXT_SUFFIX and entry.bytes:
            folders.setdefault(entry.logical.rpartition("/")[0], []).append(entry)
    return [entry for found in folders.values() if len(found) <= _MOST_TEXTS for entry in found]


def _headless(folder: Folder, lines: Sequence[Line]) -> bool:
    """Tell whether the first line is no header: it names a file, as the next one does."""
    if is_header(lines[0][1]):
        return False
    cells = zip(lines[0][1], lines[min(1, len(lines) - 1)][1], strict=False)
    return any(folder.has_named(one) and folder.has_named(two) for one, two in cells)


def _read_text_list(folder: Folder, entry: Entry) -> pd.DataFrame | None:
    where = folder.root / entry.path
    try:
        text = read_text(folder.root, entry)
    except UserError:
        return None  # no text, whatever its name says
    numbered = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1)]
    lines = [(n, line) for n, line in numbered if line and not line.startswith("#")]
    if not lines:
        return None
    best: tuple[tuple[bool, int], list[Line], list[str] | None, str] | None = None
    for separator, split in _ways_to_split(lines[0][1]):
        rows = [(number, split(line)) for number, line in lines]
        header = None if _headless(folder, rows) else rows.pop(0)[1]
        if not rows or (header is not None and not is_header(header)):
            continue
        score = _score(where, rows[:_LOOKED_AT], header, folder)
        if score[1] and (best is None or score > best[0]):
            best = (score, rows, header, separator)
    if best is None:
        return None
    _, rows, header, separator = best
    table = make_table(where, rows, header or names_of(rows), separator, header=header is not None)
    return table if header else _named(table, folder)


def _score(
    where: Path, rows: Sequence[Line], header: list[str] | None, folder: Folder
) -> tuple[bool, int]:
    """Return whether there are labels, and how many rows name a file; 0 where it is no list."""
    width = len(header or rows[0][1])
    even = [row for row in rows if len(row[1]) == width]
    if 2 * len(even) < len(rows):
        return False, 0
    table = make_table(where, even, names_of(even), "", header=False)
    roles = _roles(table, folder)
    if "filename" not in roles:
        return False, 0
    names = table[roles["filename"]]
    if header is None and names.map(folder.labels.get).notna().all():
        return False, 0  # `real 0`, `fake 1`: what classes are called
    hits = int(names.map(folder.has_named).sum())
    sure = "label" in roles or header is not None
    # A text that mentions a file is none that lists them.
    return sure, hits if sure or 2 * hits >= len(rows) else 0


def _ways_to_split(line: str) -> Iterator[tuple[str, Callable[[str], list[str]]]]:
    """Yield separators and ways to split the lines of a text, the likeliest first."""
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


def _named(table: pd.DataFrame, folder: Folder) -> pd.DataFrame:
    """Call the columns of a table without header by what they hold."""
    roles = {str(column): role for role, column in _roles(table, folder).items()}
    named = table.rename(columns=roles)
    named.attrs = table.attrs
    return named


def _roles(table: pd.DataFrame, folder: Folder) -> dict[str, str]:
    """Return which column names files, and which holds labels: the last that does."""
    head = table.iloc[:_LOOKED_AT]
    hits = {str(name): int(head[name].map(folder.has_named).sum()) for name in head.columns}
    # A label `1` may be the name of 1.jpg; a path looks like one.
    paths = {name: int(head[name].str.contains(r"[/\\]|\.\w{2,5}$").sum()) for name in hits}
    path = max(hits, key=lambda name: (min(hits[name], 1), paths[name], hits[name]))
    if not hits[path]:
        return {}
    labels = [n for n in hits if n != path and head[n].map(folder.labels.get).notna().all()]
    roles = {"filename": path} | ({"label": labels[-1]} if labels else {})
    words = {name: {*head[name]} for name in hits if name not in roles.values()}
    splits = [n for n, w in words.items() if all(len(SplitMap().read(x)[0]) == 1 for x in w)]
    return roles | ({"split": splits[0]} if splits else {})
