"""Tables of labels: a CSV, or Kaggle's metadata.json, read into rows."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from src.data.columns import ID_COLUMNS, LABEL_COLUMNS
from src.data.dataset_yaml import DatasetConfig
from src.data.lists import OnDisk, read_rows, split_of_name, texts_to_read
from src.data.sources import TEXT_SUFFIX, Entry, read_bytes
from src.data.words import SPLIT_WORDS, LabelMap, make_label_map, normalise
from src.errors import UserError, unknown_name

_MEANS_REAL = frozenset({"is_real", "real", "is_live", "live", "genuine", "bonafide"})


@dataclass(frozen=True)
class LabelTable:
    """Rows that name files and their labels.

    Attributes:
        where: the file, for messages.
        split: `train`, `val` or `test`, from its name.
        rows: every value a string; the index is what a message calls the row (`row 7`,
            `entry 'x.mp4'`).
        ids: candidate id columns, best first.
        labels: 0/1 by row, int8.
        label_column: where the labels come from.
        folder: logical path of the folder that ids are relative to; None for anywhere.
        home: logical path of the folder that the file lies in.
    """

    where: str
    split: str
    rows: pd.DataFrame
    ids: list[str]
    labels: pd.Series
    label_column: str
    folder: str | None = None
    home: str = ""


class _NotLabelsError(Exception):
    """The file holds no labels; the text says what is missing."""


def find_label_tables(
    root: Path, tables: list[Entry], config: DatasetConfig, on_disk: OnDisk
) -> tuple[list[LabelTable], list[str]]:
    """Find the tables and lists that hold labels of train items.

    Lists in text files count only where no CSV or JSON holds labels.

    Args:
        root: the data set's folder.
        tables: its CSV, JSON and text files, without the sample submission.
        config: what `dataset.yaml` says.
        on_disk: what lies there, by which a list without header is told.

    Returns:
        The tables, and for each file left aside why.

    Raises:
        UserError: an ambiguity, a label that is not understood, or a file or column that
            `dataset.yaml` names and that does not exist.
    """
    names = {entry.logical: entry for entry in tables}
    for name in config.labels_file:
        if name not in names and (root / name).is_file():
            raise UserError(
                f"{root / 'dataset.yaml'}: labels_file: {name} lies there, but is no table of "
                "labels: want a CSV, JSON or text that is no sample submission"
            )
        if name not in names:
            raise unknown_name(f"labels_file in {root / 'dataset.yaml'}:", name, names)
    tables = [names[name] for name in config.labels_file] or tables
    aside: list[str] = []
    first = [e for e in tables if e.suffix != TEXT_SUFFIX or config.labels_file]
    found = _read_each(root, first, config, on_disk, aside)
    found = found or _read_each(root, texts_to_read(tables), config, on_disk, aside)
    _check_one_per_split(root, found)
    return found, aside


def _read_each(
    root: Path, tables: list[Entry], config: DatasetConfig, on_disk: OnDisk, aside: list[str]
) -> list[LabelTable]:
    found = []
    for entry in tables:
        if split_of_name(entry) == "test" and not config.labels_file:
            continue
        read = _metadata_json if entry.suffix == ".json" else _label_rows
        try:
            table = read(root, entry, config, on_disk)
        except _NotLabelsError as reason:
            if config.labels_file:
                raise UserError(f"{root / entry.path}: {reason}") from None
            aside.append(f"{entry.path} left aside: {reason}")
        else:
            found += [] if table is None else [table]
    return found


def _check_one_per_split(root: Path, found: list[LabelTable]) -> None:
    for index, table in enumerate(found):
        for other in found[:index]:
            apart = table.folder is not None and other.folder not in (None, table.folder)
            if table.split == other.split and not apart:
                one, two = (f"`labels_file: '{_logical(t)}'`" for t in (other, table))
                raise UserError(
                    f"{root}: {other.where} and {table.where} both look like the labels of the "
                    f"{table.split} items; say which in dataset.yaml: {one} or {two} (or a list of "
                    "names)"
                )


def _logical(table: LabelTable) -> str:
    name = table.where.rpartition("/")[2]
    return f"{table.home}/{name}" if table.home else name


def _metadata_json(root: Path, entry: Entry, config: DatasetConfig, on_disk: OnDisk) -> LabelTable:
    """Read Kaggle's DFDC form: {"x.mp4": {"label": "FAKE", "split": ..., "original": ...}}."""
    del on_disk
    where = str(root / entry.path)
    try:
        content = json.loads(read_bytes(root, entry.path).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # also UnreadableImageError: a packed file
        raise UserError(f"{where}: not readable JSON ({error})") from None
    is_form = isinstance(content, dict) and all(isinstance(v, dict) for v in content.values())
    if not is_form or not any("label" in value for value in content.values()):
        raise _NotLabelsError("not of the form {FILE: {label: ...}}")
    for name, value in content.items():
        if "label" not in value:
            raise UserError(f"{where}: entry {name!r} has no label")
        if SPLIT_WORDS.get(normalise(str(value.get("split", "train"))), "test") == "test":
            raise UserError(
                f"{where}: entry {name!r} has split {value['split']!r}; only train items may "
                "stand there, test items belong in test/"
            )
    rows = pd.DataFrame(
        [
            [name, *("" if value.get(c) is None else str(value[c]) for c in _JSON_COLUMNS)]
            for name, value in content.items()
        ],
        index=pd.Index([f"entry {name!r}" for name in content]),
        columns=pd.Index(["id", *_JSON_COLUMNS]),
        dtype=object,
    )
    column, labels = _labels(where, rows, ["label"], make_label_map(config.labels))
    folder = entry.logical.rpartition("/")[0]
    return LabelTable(where, "train", rows, ["id"], labels, column, folder, folder)


_JSON_COLUMNS = ("label", "split", "original")


def _label_rows(
    root: Path, entry: Entry, config: DatasetConfig, on_disk: OnDisk
) -> LabelTable | None:
    where = str(root / entry.path)
    rows = read_rows(root, entry, on_disk)
    if rows is None:
        return None
    ids = _candidates(where, rows, ID_COLUMNS, config.id_column, "id_column")
    columns = _candidates(where, rows, LABEL_COLUMNS, config.label_column, "label_column")
    for what, found, known in (("label", columns, LABEL_COLUMNS), ("id", ids, ID_COLUMNS)):
        if not found:
            raise _NotLabelsError(
                f"no {what} column (its columns: {', '.join(rows.columns)}; known: "
                f"{', '.join(known)}; or name it in dataset.yaml: `{what}_column: NAME`)"
            )
    if not config.labels and normalise(columns[0]) in _MEANS_REAL:
        raise UserError(
            f"{where}: does 1 in column {columns[0]!r} mean real? Say so in dataset.yaml: "
            "`labels: {1: 0, 0: 1}` (0 is real and 1 is fake on the right)"
        )
    column, labels = _labels(where, rows, columns, make_label_map(config.labels))
    home = entry.logical.rpartition("/")[0]
    return LabelTable(where, split_of_name(entry), rows, ids, labels, column, home=home)


def _labels(
    where: str, rows: pd.DataFrame, columns: list[str], words: LabelMap
) -> tuple[str, pd.Series]:
    """Read the labels from the candidate columns, which must not contradict each other."""
    parsed = {column: rows[column].map(words.get) for column in columns}
    whole = [column for column in columns if not parsed[column].isna().any()]
    if not whole:
        column = columns[0]
        bad = int(parsed[column].isna().to_numpy().argmax())
        raise UserError(
            f"{where}: {rows.index[bad]}: {column} is {rows[column].iloc[bad]!r}, want "
            f"{words.wanted()}{words.offer(rows[column])}"
        )
    first = whole[0]
    for other in whole[1:]:
        differ = parsed[first].to_numpy() != parsed[other].to_numpy()
        if differ.any():
            bad = int(differ.argmax())
            raise UserError(
                f"{where}: {rows.index[bad]}: {first} is {rows[first].iloc[bad]!r} and {other} is "
                f"{rows[other].iloc[bad]!r}: they contradict each other (0 is real, 1 is fake); "
                f"say in dataset.yaml which holds: `label_column: {first}` or `label_column: "
                f"{other}`{turned_round([*rows[first], *rows[other]])}"
            )
    return first, parsed[first].astype("int8")


def turned_round(values: Iterable[str]) -> str:
    """Offer to read a table's 1 as real; "" where it says labels in words alone."""
    if not {"0", "1"} & set(values):
        return ""
    return "; if 1 means real in the table: `labels: {1: 0, 0: 1}`"


def _candidates(
    where: str, rows: pd.DataFrame, known: tuple[str, ...], given: str | None, key: str
) -> list[str]:
    """Return the columns that could be meant, best first; just the given one if one is given."""
    if given is not None:
        if given not in rows.columns:
            raise unknown_name(f"column ({key} in dataset.yaml) of {where}:", given, rows.columns)
        return [given]
    columns = {normalise(name): name for name in rows.columns}
    return [columns[name] for name in known if name in columns]


def find_column(
    table: LabelTable, known: tuple[str, ...], given: str | None, key: str, taken: set[str]
) -> str | None:
    """Return the one further column (group, domain, fold) that is meant, None if there is none.

    Raises:
        UserError: several could be meant, or the given one does not exist.
    """
    found = _candidates(table.where, table.rows, known, given, key)
    found = [name for name in found if name not in taken or given is not None]
    if len(found) > 1:
        raise UserError(
            f"{table.where}: columns {' and '.join(map(repr, found))} could both be meant; say "
            f"which in dataset.yaml: `{key}: {found[0]}`"
        )
    return found[0] if found else None
