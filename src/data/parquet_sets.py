"""Data sets in parquet files, as Hugging Face keeps them: pictures and labels in rows."""

import json
import os
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from src.data.archives import open_archive, safe_name
from src.data.columns import DOMAIN_COLUMNS, GROUP_COLUMNS, ID_COLUMNS, LABEL_COLUMNS
from src.data.dataset_yaml import DatasetConfig, offer_ignore
from src.data.parquet_rows import PARQUET, ParquetRows
from src.data.split_words import normalise
from src.data.walk import IN_ZIP, Entry
from src.data.words import LabelMap
from src.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

LARGE = 256 * 2**20  # bytes of a row group, which each loader process holds
_SHARD = re.compile(r"^(.*?)[-_.](\d{5})-of-(\d{5})")
_NUMBERS = frozenset(("0", "1", "0.0", "1.0"))


@dataclass
class ParquetSets:
    """The pictures of a data set's parquet files.

    Attributes:
        media: a row each; its logical path is as if the class were a folder below the split's.
        groups: path -> group, where a column gives them.
        tables: parquet files without pictures, which may hold labels, and all other tables.
        notes: what was understood.
    """

    media: list[Entry] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)
    tables: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_parquet_sets(
    root: Path, tables: list[Entry], config: DatasetConfig, labels: LabelMap
) -> ParquetSets:
    """Find the parquet files whose rows hold pictures, and name their rows.

    A picture is called by its id or by the name that its row brings where that is its alone, else
    by file and row. Its file's name or folder tells the split, a label column the class.

    Raises:
        UserError: one of several parquet files is damaged, or a label that is not understood.
    """
    done = ParquetSets()
    found: list[tuple[Entry, ParquetRows]] = []
    broken: list[str] = []
    for entry in tables:
        if entry.suffix != PARQUET:
            done.tables.append(entry)
        elif IN_ZIP.match(entry.path):
            done.notes.append(f"{entry.path} left aside: parquet inside a zip; unpack it")
        else:
            try:
                rows = open_archive(os.path.normpath(root / entry.path), fresh=True)
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
        raise UserError(f"{root}: {broken[0]}")
    done.notes += [f"{line}: left aside" for line in broken]
    if found:
        _name_rows(root, found, config, labels, done)
    return done


def _name_rows(
    root: Path,
    found: list[tuple[Entry, ParquetRows]],
    config: DatasetConfig,
    labels: LabelMap,
    done: ParquetSets,
) -> None:
    parts = [_read(root, entry, rows, config, labels, done) for entry, rows in found]
    counts: Counter[str] = Counter()
    for names in parts:
        counts.update(set(names["base"]))
    each = sum(entry.bytes for entry, _ in found) // max(1, sum(rows.count for _, rows in found))
    for (entry, rows), names in zip(found, parts, strict=True):
        stem = entry.logical.rpartition("/")[2][: -len(PARQUET)]
        alone = not names["base"].duplicated().any() and all(counts[b] == 1 for b in names["base"])
        homes = names["home"].tolist()
        for row, (base, group) in enumerate(zip(names["base"], names["group"], strict=True)):
            name = base if alone and base else f"{stem}-{row:06d}{base and '-'}{base}"
            path = f"{entry.path}!/{row}/{base}".rstrip("/")
            logical = f"{homes[row]}/{name}".lstrip("/")
            # The size of a row would be known only by reading it.
            done.media.append(Entry(path, logical, each, entry.stamp, rows.crc))
            if group:
                done.groups[path] = group
    done.notes += _notes(found)


def _read(
    root: Path,
    entry: Entry,
    rows: ParquetRows,
    config: DatasetConfig,
    labels: LabelMap,
    done: ParquetSets,
) -> pd.DataFrame:
    """Return the columns `base`, `home` (folders) and `group` of a file's rows."""
    where = str(root / entry.path)
    picture = rows.column.partition(".")[0]
    known = {normalise(f.name): f.name for f in rows.schema if f.name != picture and _plain(f.type)}

    def column(names: tuple[str, ...], given: str | None) -> list[str] | None:
        name = (
            given if given in known.values() else next((known[n] for n in names if n in known), "")
        )
        return _values(where, rows, name) if name else None

    bases = column(ID_COLUMNS, config.id_column) or _paths(where, rows)
    words = column(LABEL_COLUMNS, config.label_column)
    group = column(GROUP_COLUMNS, config.group_column) or [""] * rows.count
    domain = column(DOMAIN_COLUMNS, config.domain_column)
    folder = _split_folder(entry)
    homes = [folder] * rows.count
    if domain is not None:
        homes = [f"{home}/{safe_name(one)}" for home, one in zip(homes, domain, strict=True)]
    if words is not None:
        classes = _classes(where, words, labels, done)
        homes = [f"{home}/{classes[word]}" for home, word in zip(homes, words, strict=True)]
    homes = [home.strip("/") for home in homes]
    return pd.DataFrame({"base": bases, "home": homes, "group": group}, dtype=object)


def _plain(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer,
             pa.types.is_boolean, pa.types.is_floating, pa.types.is_dictionary)  # fmt: skip
    return any(test(kind) for test in tests)


def _values(where: str, rows: ParquetRows, name: str) -> list[str]:
    """Return a column as text; numbers of a ClassLabel as its words, "" for none."""
    try:
        values = rows.columns([name]).column(0).to_pylist()
    except OSError as error:
        raise UserError(f"{where}: {error}") from None
    words = class_names(rows.schema, name)
    values = [int(value) if isinstance(value, bool) else value for value in values]
    if words:
        return [words[v] if v is not None and 0 <= v < len(words) else "" for v in values]
    return ["" if v is None or v == -1 else str(v).strip() for v in values]


def class_names(schema: "pa.Schema", column: str) -> list[str]:
    """Return the words of Hugging Face's ClassLabel, in order; none for another column."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names: Any = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return []
    return [str(name) for name in (names.values() if isinstance(names, dict) else names)]


def _paths(where: str, rows: ParquetRows) -> list[str]:
    """Return the name that each row's picture had, "" where it says none."""
    inside, _, leaf = rows.column.partition(".")
    kind = rows.schema.field(inside).type
    if not leaf or kind.get_field_index("path") < 0:
        return [""] * rows.count
    try:
        column = rows.columns([f"{inside}.path"]).column(0).to_pylist()
    except OSError as error:
        raise UserError(f"{where}: {error}") from None
    paths = [(row or {}).get("path") or "" for row in column]
    return [path.replace("\\", "/").rpartition("/")[2] for path in paths]


def _split_folder(entry: Entry) -> str:
    """Return the folders of a file, its own name standing for one: `data/train`."""
    folder, _, name = entry.logical.rpartition("/")
    stem = name[: -len(PARQUET)]
    shard = _SHARD.match(stem)
    stem = shard[1] if shard else stem
    return folder if stem.isdecimal() else f"{folder}/{stem}".lstrip("/")


def _classes(where: str, words: list[str], labels: LabelMap, done: ParquetSets) -> dict[str, str]:
    """Return word -> name of the class folder that stands for it."""
    found: dict[str, str] = {"": ""}
    for word in dict.fromkeys(words):
        if not word:
            continue
        label = labels.get(word)
        if label is None:
            row = words.index(word)
            raise UserError(
                f"{where}: row {row} has the label {word!r}, want {labels.wanted()}; other words: "
                f"`labels: {{{word}: 0, OTHER: 1}}` in dataset.yaml"
            )
        plain = ("real", "fake")[label]
        number = word.lower() in _NUMBERS and labels.get(plain) == label
        found[word] = plain if number else safe_name(word).replace("/", "_")
        note = (
            "labels: numbers without names, 0 -> real, 1 -> fake; where folders were read in the "
            "order of the alphabet 0 is fake: `labels: {1: 0, 0: 1}` in dataset.yaml"
        )
        if number and not labels.given and note not in done.notes:
            done.notes.append(note)
    return found


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
    """Read a parquet file without pictures as a table of strings, as `csv_rows.read_table` does.

    The path of a picture that lies beside it stands in for the picture's column.

    Raises:
        UserError: it is damaged.
    """
    where = str(root / entry.path)
    rows = open_archive(os.path.normpath(root / entry.path))
    assert isinstance(rows, ParquetRows)  # by its suffix
    named = {*ID_COLUMNS, *LABEL_COLUMNS, *GROUP_COLUMNS, *DOMAIN_COLUMNS}
    columns = {
        f.name: _values(where, rows, f.name)
        for f in rows.schema
        if _plain(f.type) and normalise(f.name) in named
    }
    picture = rows.column.partition(".")[0]
    if picture and rows.column != picture:
        paths = rows.columns([f"{picture}.path"]).column(0).to_pylist()
        columns[picture] = [(row or {}).get("path") or "" for row in paths]
    table = pd.DataFrame(columns, pd.Index([f"row {i}" for i in range(rows.count)]), dtype=object)
    table.attrs |= {"separator": ",", "header": True}
    return table
