"""Tables of labels: a CSV, or Kaggle's metadata.json, read into rows."""

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from src.data.csv_rows import read_table
from src.data.dataset_yaml import DatasetConfig
from src.data.sources import Entry, read_bytes
from src.data.words import SPLIT_WORDS, LabelMap, make_label_map, normalise
from src.errors import UserError, unknown_name

ID_COLUMNS = (
    "item_id", "id", "filename", "file_name", "file", "image_id", "image", "image_name", "img",
    "image_path", "path", "filepath", "file_path", "video", "video_name", "name", "uuid", "index",
)  # fmt: skip
LABEL_COLUMNS = ("label", "labels", "target", "class", "is_fake", "fake", "label_str", "y")
GROUP_COLUMNS = (
    "group", "group_id", "original", "original_id", "original_video", "source_video", "video",
    "video_id", "subject", "subject_id", "identity",
)  # fmt: skip
# Their values name another item: the real one that a fake was made from.
ORIGINAL_COLUMNS = frozenset({"original", "original_id", "original_video", "source_video"})
DOMAIN_COLUMNS = ("domain", "dataset", "generator", "attack", "attack_type")
FOLD_COLUMNS = ("fold", "kfold", "fold_id")
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
    """

    where: str
    split: str
    rows: pd.DataFrame
    ids: list[str]
    labels: pd.Series
    label_column: str
    folder: str | None = None


class _NotLabelsError(Exception):
    """The file holds no labels; the text says what is missing."""


def find_label_tables(
    root: Path, tables: list[Entry], config: DatasetConfig
) -> tuple[list[LabelTable], list[str]]:
    """Find the tables that hold labels.

    Args:
        root: the data set's folder.
        tables: its CSV and JSON files, without the sample submission.
        config: what `dataset.yaml` says.

    Returns:
        The tables, and for each file left aside why.

    Raises:
        UserError: an ambiguity, a label that is not understood, or a file or column that
            `dataset.yaml` names and that does not exist.
    """
    if config.labels_file is not None:
        names = [entry.logical for entry in tables]
        if config.labels_file not in names:
            where = root / "dataset.yaml"
            raise unknown_name(f"labels_file in {where}:", config.labels_file, names)
        tables = [entry for entry in tables if entry.logical == config.labels_file]
    found: list[LabelTable] = []
    aside: list[str] = []
    read = {".json": _metadata_json, ".csv": _label_csv}
    for entry in tables:
        if _split_of_name(entry) == "test" and config.labels_file is None:
            aside.append(f"{entry.path} left aside: labels of test items are never read")
            continue
        try:
            found.append(read[entry.suffix](root, entry, config))
        except _NotLabelsError as reason:
            if config.labels_file is not None:
                raise UserError(f"{root / entry.path}: {reason}") from None
            aside.append(f"{entry.path} left aside: {reason}")
    _check_one_per_split(root, found)
    return found, aside


def _check_one_per_split(root: Path, found: list[LabelTable]) -> None:
    for index, table in enumerate(found):
        for other in found[:index]:
            apart = table.folder is not None and other.folder not in (None, table.folder)
            if table.split == other.split and not apart:
                raise UserError(
                    f"{root}: {other.where} and {table.where} both look like the labels of the "
                    f"{table.split} items; say which in dataset.yaml: `labels_file: NAME`"
                )


def _metadata_json(root: Path, entry: Entry, config: DatasetConfig) -> LabelTable:
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
    folder = str(PurePosixPath(entry.logical).parent)
    return LabelTable(where, "train", rows, ["id"], labels, column, "" if folder == "." else folder)


_JSON_COLUMNS = ("label", "split", "original")


def _label_csv(root: Path, entry: Entry, config: DatasetConfig) -> LabelTable:
    where = str(root / entry.path)
    rows = read_table(root, entry)
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
    return LabelTable(where, _split_of_name(entry), rows, ids, labels, column)


def _split_of_name(entry: Entry) -> str:
    first = normalise(PurePosixPath(entry.logical).stem).split("_")[0]
    return SPLIT_WORDS.get(first, "train") if entry.suffix == ".csv" else "train"


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
            f"{words.wanted()}; other words: `labels: {{WORD: 0, OTHER: 1}}` in dataset.yaml"
        )
    first = whole[0]
    for other in whole[1:]:
        differ = parsed[first].to_numpy() != parsed[other].to_numpy()
        if differ.any():
            bad = int(differ.argmax())
            raise UserError(
                f"{where}: {rows.index[bad]}: {first} is {rows[first].iloc[bad]!r} and {other} is "
                f"{rows[other].iloc[bad]!r}: they contradict each other (0 is real, 1 is fake); "
                "say in dataset.yaml which holds: `label_column: NAME`, and if 1 means real "
                "there, `labels: {1: 0, 0: 1}`"
            )
    return first, parsed[first].astype("int8")


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
