"""Data sets in parquet files, as Hugging Face keeps them: pictures and labels in rows."""

import json
import os
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from src.data.items.dataset_yaml import offer_ignore
from src.data.items.files import IN_ZIP, open_archive, safe_name
from src.data.items.folder import Folder
from src.data.items.listing import Entry
from src.data.items.parquet_rows import PARQUET, ParquetRows
from src.data.items.words import SplitMap
from src.data.layouts.table_columns import NUMBERS, Table
from src.errors import UserError

LARGE = 256 * 2**20  # bytes of a row group, which each loader process holds
_SHARD = re.compile(r"^(.*?)[-_.](\d{5})-of-(\d{5})")


@dataclass
class ParquetSets:
    """The pictures of a data set's parquet files."""

    # a row each; its logical path is as if the class were a folder below the split's
    media: list[Entry] = field(default_factory=list)
    # path -> group ("" for none) and fold (None for none), where columns give them
    given: dict[str, tuple[str, int | None]] = field(default_factory=dict)
    # parquet files without pictures, which may hold labels, and all other tables
    tables: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was understood


def read_parquet_sets(folder: Folder) -> ParquetSets:
    """Find the parquet files whose rows hold pictures, and name their rows.

    A picture is called by its id or by the name that its row brings where that is its alone, else
    by file and row. Its file's name or folder tells the split, a label column the class.

    Raises:
        UserError: one of several parquet files is damaged, or a label that is not understood.
    """
    done = ParquetSets()
    found: list[tuple[Entry, ParquetRows]] = []
    broken: list[str] = []
    for entry in folder.listing.tables:
        if entry.suffix != PARQUET:
            done.tables.append(entry)
        elif IN_ZIP.match(entry.path):
            done.notes.append(f"{entry.path} left aside: parquet inside a zip; unpack it")
        else:
            try:
                rows = open_archive(os.path.normpath(folder.root / entry.path), fresh=True)
            except OSError as error:
                way = f"download it again (`git lfs pull`?) or {offer_ignore(entry.logical)}"
                broken.append(f"{entry.path}: {error}; {way} in dataset.yaml")
                continue
            assert isinstance(rows, ParquetRows)  # by its suffix
            if rows.has_pictures():
                found.append((entry, rows))
            else:
                done.tables.append(entry)
    if broken and found:
        raise UserError(f"{folder.root}: {broken[0]}")
    done.notes += [f"{line}: left aside" for line in broken]
    if found:
        _name_rows(folder, found, done)
    return done


def _name_rows(folder: Folder, found: list[tuple[Entry, ParquetRows]], done: ParquetSets) -> None:
    parts = [_read(folder, entry, rows) for entry, rows in found]
    counts: Counter[str] = Counter()
    for names, _ in parts:
        counts.update(set(names["base"]))
    each = sum(entry.bytes for entry, _ in found) // max(1, sum(rows.count for _, rows in found))
    for (entry, rows), (names, _) in zip(found, parts, strict=True):
        stem = entry.logical.rpartition("/")[2][: -len(PARQUET)]
        alone = not names["base"].duplicated().any() and all(counts[b] == 1 for b in names["base"])
        columns = (names[name] for name in ("base", "home", "group", "fold"))
        for row, (base, home, group, fold) in enumerate(zip(*columns, strict=True)):
            name = base if alone and base else f"{stem}-{row:06d}{base and '-'}{base}"
            path = f"{entry.path}!/{row}/{base}".rstrip("/")
            # The size of a row would be known only by reading it.
            done.media.append(
                Entry(path, f"{home}/{name}".lstrip("/"), each, entry.stamp, rows.crc)
            )
            if group or fold is not None:
                done.given[path] = group, fold
    done.notes += [*_notes(found), *next((notes for _, notes in parts if notes), [])]


def _read(folder: Folder, entry: Entry, rows: ParquetRows) -> tuple[pd.DataFrame, list[str]]:
    """Return the columns `base`, `home` (folders), `group` and `fold` of a file's rows; notes."""
    table = Table(folder.where(entry), read_parquet_table(folder.root, entry), folder.config)
    picture, home = rows.column.partition(".")[0], _split_folder(entry)
    words = SplitMap(folder.config.splits)
    is_test = words.of_folders(home.split("/")) == "test"
    if is_test:
        table = table.without_absent()
        unfolded = table.rows.drop(columns=table.candidates("fold"))
        table = replace(table, rows=unfolded)
    ids = [column for column in table.candidates("id") if column != picture]
    bases: list[str] = table.rows[ids[0]].tolist() if ids else [""] * rows.count
    if not ids and picture in table.rows.columns:
        bases = [path.replace("\\", "/").rpartition("/")[2] for path in table.rows[picture]]
    columns = table.candidates("label")
    classes, notes = _class_folders(folder, table, columns)
    more = table.further(bases, {*ids[:1], *columns, picture})
    homes = [home] * rows.count
    _, splits = table.splits()
    if splits is not None:
        above = [part for part in home.split("/") if not words.read(part)[0]]
        homes = ["/".join([*above, split]) for split in splits]
    domains = [safe_name(domain) for domain in more.domains]
    homes = ["/".join(filter(None, of)) for of in zip(homes, domains, classes, strict=True)]
    names = {"base": bases, "home": homes, "group": more.groups, "fold": more.folds}
    return pd.DataFrame(names, dtype=object), [] if is_test else [*notes, *more.notes]


def _class_folders(folder: Folder, table: Table, columns: list[str]) -> tuple[list[str], list[str]]:
    """Return the name of the class folder that stands for each row, "" without label; notes."""
    folders = pd.Series("", table.rows.index, dtype=object)
    known = table.rows[~table.rows[columns[0]].isin(["", "-1"])] if columns else table.rows[:0]
    if known.empty:
        return folders.tolist(), []
    column, truth = replace(table, rows=known).labels(columns)
    number = known[column].isin(NUMBERS)
    for word, label in dict.fromkeys(zip(known[column], truth, strict=True)):
        plain = ("real", "fake")[label]
        turned = word in NUMBERS and folder.labels.get(plain) == label
        name = plain if turned else safe_name(word).replace("/", "_")
        folders[known.index[known[column] == word]] = name
    note = (
        "labels: numbers without names, 0 -> real, 1 -> fake; where folders were read in the "
        "order of the alphabet 0 is fake: `labels: {1: 0, 0: 1}` in dataset.yaml"
    )
    return folders.tolist(), [note] if number.any() and not folder.labels.given else []


def _plain(kind: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer,
             pa.types.is_boolean, pa.types.is_floating, pa.types.is_dictionary)  # fmt: skip
    return any(test(kind) for test in tests)


def _as_text(values: list[Any], words: list[str]) -> list[str]:
    """Return values as text; numbers of a ClassLabel as its words, "" for none."""
    if words:
        return [words[v] if v is not None and 0 <= v < len(words) else "" for v in values]
    values = [int(value) if isinstance(value, bool) else value for value in values]
    return ["" if value is None else str(value).strip() for value in values]


def class_names(schema: pa.Schema, column: str) -> list[str]:
    """Return the words of Hugging Face's ClassLabel, in order; none for another column."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names: Any = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return []
    return [str(name) for name in (names.values() if isinstance(names, dict) else names)]


def _split_folder(entry: Entry) -> str:
    """Return the folders of a file, its own name standing for one: `data/train`."""
    folder, _, name = entry.logical.rpartition("/")
    stem = name[: -len(PARQUET)]
    shard = _SHARD.match(stem)
    stem = shard[1] if shard else stem
    return folder if stem.isdecimal() else f"{folder}/{stem}".lstrip("/")


def _notes(found: list[tuple[Entry, ParquetRows]]) -> list[str]:
    count = sum(rows.count for _, rows in found)
    notes = [
        f"parquet: {count} pictures in rows of {len(found)} files, read as if in class folders"
    ]
    shards: dict[tuple[str, int], set[int]] = defaultdict(set)
    for entry, _ in found:
        shard = _SHARD.match(entry.logical)
        if shard:
            shards[shard[1], int(shard[3])].add(int(shard[2]))
    notes += [
        f"WARNING {name}-*-of-{count:05d}{PARQUET}: only {len(have)} of {count} files are here"
        for (name, count), have in shards.items()
        if len(have) < count
    ]
    entry, largest = max(((e, rows.largest()) for e, rows in found), key=lambda pair: pair[1])
    if largest > LARGE:
        notes.append(
            f"WARNING {entry.path} has row groups of {largest / 2**20:.0f} MiB, which each process "
            "unpacks as a whole; write it again with `row_group_size=100` (pyarrow.parquet)"
        )
    return notes


def read_parquet_table(root: Path, entry: Entry) -> pd.DataFrame:
    """Read a parquet file as a table of strings, as `tables.read_table` does.

    The name or path that a picture brings stands in for the picture's column.
    """
    rows = open_archive(os.path.normpath(root / entry.path))
    assert isinstance(rows, ParquetRows)  # by its suffix
    plain = [field.name for field in rows.schema if _plain(field.type)]
    picture, _, leaf = rows.column.partition(".")
    has_path = leaf and rows.schema.field(picture).type.get_field_index("path") >= 0
    try:
        found = rows.columns([*plain, *[f"{picture}.path"] * bool(has_path)])
    except OSError as error:
        raise UserError(f"{root / entry.path}: {error}") from None
    columns = {
        name: _as_text(found.column(name).to_pylist(), class_names(rows.schema, name))
        for name in plain
    }
    if has_path:
        columns[picture] = [
            (row or {}).get("path") or "" for row in found.column(picture).to_pylist()
        ]
    table = pd.DataFrame(columns, pd.Index([f"row {i}" for i in range(rows.count)]), dtype=object)
    table.attrs |= {"separator": ",", "header": True}
    return table
