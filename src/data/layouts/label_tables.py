"""Tables of labels: a CSV, or Kaggle's metadata.json, read into rows."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from src.data.items.dataset_yaml import DatasetConfig
from src.data.items.files import read_bytes
from src.data.items.listing import TEXT_SUFFIX, Entry
from src.data.layouts.lists import OnDisk, read_rows, split_of_name, texts_to_read
from src.data.layouts.table_columns import KNOWN, candidates, read_labels, read_splits
from src.errors import UserError, unknown_name


@dataclass(frozen=True)
class LabelTable:
    """Rows that name files and their labels."""

    where: str  # the file, for messages
    split: str  # `train`, `val` or `test`, from its name
    # every value a string; the index is what a message calls the row (`row 7`, `entry 'x.mp4'`)
    rows: pd.DataFrame
    ids: list[str]  # candidate id columns, best first
    labels: pd.Series  # 0/1 by row, int8
    label_column: str  # where the labels come from
    splits: list[str]  # `train` or `val` by row: its column's, else `split`
    # rows of test items, whose column of splits says so; their labels are not read
    apart: pd.DataFrame
    # logical path of the folder that ids are relative to; None for anywhere
    folder: str | None = None
    home: str = ""  # logical path of the folder that the file lies in


class _NotLabelsError(Exception):
    """The file holds no labels; the text says what is missing."""


def find_label_tables(
    root: Path, tables: list[Entry], config: DatasetConfig, on_disk: OnDisk
) -> tuple[list[LabelTable], list[tuple[str, pd.DataFrame]], list[str]]:
    """Find the tables and lists that hold labels of train items.

    Lists in text files count only where no CSV or JSON holds labels.

    Args:
        root: the data set's folder.
        tables: its CSV, JSON and text files, without the sample submission.
        config: what `dataset.yaml` says.
        on_disk: what lies there, by which a list without header is told.

    Returns:
        The tables, (file, rows) of test items, whose column of splits says so, and for each file
        left aside why.

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
    apart = [(table.where, table.apart) for table in found if len(table.apart)]
    found = [table for table in found if len(table.rows) or not len(table.apart)]
    if not config.labels_file:
        _check_one_per_split(root, found)
    return found, apart, aside


def _read_each(
    root: Path, tables: list[Entry], config: DatasetConfig, on_disk: OnDisk, aside: list[str]
) -> list[LabelTable]:
    found = []
    for entry in tables:
        if split_of_name(entry) == "test" and not config.labels_file:
            continue
        try:
            if entry.suffix == ".json":
                rows = _metadata_json(root, entry)
            else:
                rows = read_rows(root, entry, on_disk)
            found += [] if rows is None else [_label_table(root, entry, rows, config)]
        except _NotLabelsError as reason:
            if config.labels_file:
                raise UserError(f"{root / entry.path}: {reason}") from None
            aside.append(f"{entry.path} left aside: {reason}")
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


def _metadata_json(root: Path, entry: Entry) -> pd.DataFrame:
    """Read Kaggle's DFDC form: {"x.mp4": {"label": "FAKE", "split": ..., "original": ...}}."""
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
    return pd.DataFrame(
        [
            [name, *("" if (v := value.get(c, d)) is None else str(v) for c, d in _JSON_COLUMNS)]
            for name, value in content.items()
        ],
        index=pd.Index([f"entry {name!r}" for name in content]),
        columns=pd.Index(["id", *(column for column, _ in _JSON_COLUMNS)]),
        dtype=object,
    )


_JSON_COLUMNS = (("label", ""), ("split", "train"), ("original", ""))  # with their defaults


def _label_table(root: Path, entry: Entry, rows: pd.DataFrame, config: DatasetConfig) -> LabelTable:
    where = str(root / entry.path)
    ids = candidates(where, rows, "id", config)
    columns = candidates(where, rows, "label", config)
    for what, found in (("label", columns), ("id", ids)):
        if not found:
            raise _NotLabelsError(
                f"no {what} column (its columns: {', '.join(rows.columns)}; known: "
                f"{', '.join(KNOWN[what])}; or name it in dataset.yaml: `{what}_column: NAME`)"
            )
    home = entry.logical.rpartition("/")[0]
    folder = home if entry.suffix == ".json" else None
    split = "train" if entry.suffix == ".json" else split_of_name(entry)
    _, splits = read_splits(where, rows, config)
    apart = pd.Series(splits == "test" if splits is not None else False, rows.index)
    splits = pd.Series(split, rows.index, dtype=object) if splits is None else splits
    rows, tests = rows[~apart], rows[apart]
    column, labels = read_labels(where, rows, columns, config)
    of = splits[~apart].tolist()
    return LabelTable(where, split, rows, ids, labels, column, of, tests, folder, home)
