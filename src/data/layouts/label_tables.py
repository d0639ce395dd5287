"""Tables of labels, a CSV, a list or Kaggle's metadata.json: read, and matched to train items."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from src.data.items.dataset_yaml import IGNORE, offer_ignore
from src.data.items.files import without_suffix
from src.data.items.folder import Folder
from src.data.items.listing import TEXT_SUFFIX, Entry
from src.data.items.manifest import Item
from src.data.items.places import MediaFile
from src.data.items.tables import load_json
from src.data.layouts.class_folders import (
    Labelled,
    tie_by_folders,
    tie_by_names,
    tie_equal_names,
)
from src.data.layouts.finder import FileIndex, Finder, Fits, choose_of_folder
from src.data.layouts.lists import read_rows, split_of_name, texts_to_read
from src.data.layouts.table_columns import KNOWN, Table, turned_round
from src.errors import UserError, unknown_name

_JSON_COLUMNS = (("label", ""), ("split", "train"), ("original", ""))  # with their defaults


@dataclass(frozen=True)
class LabelTable(Table):
    """Rows that name files and their labels."""

    split: str  # `train`, `val` or `test`, from its name
    ids: list[str]  # candidate id columns, best first
    labels_of: pd.Series  # 0/1 by row, int8
    label_column: str  # where the labels come from
    splits_of: list[str]  # `train` or `val` by row: its column's, else `split`
    # rows of test items, whose column of splits says so; their labels are not read
    apart: Table
    # logical path of the folder that ids are relative to; None for anywhere
    beside: str | None = None
    home: str = ""  # logical path of the folder that the file lies in
    masks: Sequence[Entry | None] = ()  # by row, where a column names them

    @property
    def logical(self) -> str:
        """Return the logical path of the file."""
        return f"{self.home}/{self.where.rpartition('/')[2]}".lstrip("/")

    def called(self, file: MediaFile) -> tuple[str, ...]:
        """Return what it may call a file: by paths relative to its own folder, too."""
        if not self.home:
            return file.names
        below = file.entry.logical.removeprefix(f"{self.home}/")
        return tuple(dict.fromkeys((below, *file.names)))


class _NotLabelsError(Exception):
    """The file holds no labels; the text says what is missing."""


def find_label_tables(
    folder: Folder, tables: list[Entry]
) -> tuple[list[LabelTable], list[Table], list[str]]:
    """Find the tables and lists that hold labels of train items, among all but the sample.

    Lists in text files count only where no CSV or JSON holds labels. Returned are also the rows of
    test items, whose column of splits says so, and for each file left aside why.

    Raises:
        UserError: an ambiguity, a label not understood, a file or column of dataset.yaml that is
            not there.
    """
    names, wanted = {entry.logical: entry for entry in tables}, folder.config.labels_file
    for name in wanted:
        yaml = folder.root / "dataset.yaml"
        if name not in names and (folder.root / name).is_file():
            raise UserError(
                f"{yaml}: labels_file: {name} lies there, but is no table of labels: want a CSV, "
                "JSON or text that is no sample submission"
            )
        if name not in names:
            raise unknown_name(f"labels_file in {yaml}:", name, names)
    tables = [names[name] for name in wanted] or tables
    aside: list[str] = []
    found = _read_each(folder, [e for e in tables if e.suffix != TEXT_SUFFIX or wanted], aside)
    found = found or _read_each(folder, texts_to_read(tables), aside)
    apart = [table.apart for table in found if len(table.apart.rows)]
    found = [table for table in found if len(table.rows) or not len(table.apart.rows)]
    if not wanted:
        _check_one_per_split(folder.root, found)
    return found, apart, aside


def _read_each(folder: Folder, tables: list[Entry], aside: list[str]) -> list[LabelTable]:
    found = []
    for entry in tables:
        if split_of_name(entry) == "test" and not folder.config.labels_file:
            continue
        try:
            is_json = entry.suffix == ".json"
            rows = _metadata_json(folder, entry) if is_json else read_rows(folder, entry)
            found += [] if rows is None else [_label_table(folder, entry, rows)]
        except _NotLabelsError as reason:
            if folder.config.labels_file:
                raise UserError(f"{folder.where(entry)}: {reason}") from None
            aside.append(f"{entry.path} left aside: {reason}")
    return found


def _check_one_per_split(root: Path, found: list[LabelTable]) -> None:
    for index, table in enumerate(found):
        for other in found[:index]:
            apart = table.beside is not None and other.beside not in (None, table.beside)
            if table.split == other.split and not apart:
                names = (
                    f"{t.home}/{t.where.rpartition('/')[2]}".lstrip("/") for t in (other, table)
                )
                one, two = (f"`labels_file: '{name}'`" for name in names)
                raise UserError(
                    f"{root}: {other.where} and {table.where} both look like the labels of the "
                    f"{table.split} items; say which in dataset.yaml: {one} or {two} (or a list of "
                    "names)"
                )


def _metadata_json(folder: Folder, entry: Entry) -> pd.DataFrame:
    """Read Kaggle's DFDC form: {"x.mp4": {"label": "FAKE", "split": ..., "original": ...}}."""
    content, _ = load_json(folder.root, entry)
    is_form = isinstance(content, dict) and all(isinstance(v, dict) for v in content.values())
    if not is_form or not any("label" in value for value in content.values()):
        raise _NotLabelsError("not of the form {FILE: {label: ...}}")
    for name, value in content.items():
        if "label" not in value:
            raise UserError(f"{folder.where(entry)}: entry {name!r} has no label")
    return pd.DataFrame(
        [
            [name, *("" if (v := value.get(c, d)) is None else str(v) for c, d in _JSON_COLUMNS)]
            for name, value in content.items()
        ],
        index=pd.Index([f"entry {name!r}" for name in content]),
        columns=pd.Index(["id", *(column for column, _ in _JSON_COLUMNS)]),
        dtype=object,
    )


def _label_table(folder: Folder, entry: Entry, rows: pd.DataFrame) -> LabelTable:
    where, config = folder.where(entry), folder.config
    whole = Table(where, rows, config)
    ids, columns = whole.candidates("id"), whole.candidates("label")
    for what, found in (("label", columns), ("id", ids)):
        if not found:
            raise _NotLabelsError(
                f"no {what} column (its columns: {', '.join(rows.columns)}; known: "
                f"{', '.join(KNOWN[what])}; or name it in dataset.yaml: `{what}_column: NAME`)"
            )
    home, is_json = entry.logical.rpartition("/")[0], entry.suffix == ".json"
    split = "train" if is_json else split_of_name(entry)
    _, splits = whole.splits()
    apart = pd.Series(splits == "test" if splits is not None else False, rows.index)
    splits = pd.Series(split, rows.index, dtype=object) if splits is None else splits
    column, labels = Table(where, rows[~apart], config).labels(columns)
    return LabelTable(
        where, rows[~apart], config, split, ids, labels, column, splits[~apart].tolist(),
        Table(where, rows[apart], config), home if is_json else None, home,
    )  # fmt: skip


def label_by_tables(done: Labelled, tables: list[LabelTable]) -> None:
    """Label train items by the rows of tables.

    Raises:
        UserError: a row without file, a file without row, an id twice or that fits two files, or
            a row that contradicts the class folder; names file, row and value.
    """
    grouped = [_apply_table(done, table, tables) for table in tables]
    unlisted = [i for i in done.train if i not in done.items and i not in done.thinned]
    if unlisted and done.folder.config.unlisted_files == "error":
        raise UserError(
            f"{tables[0].where}: no row names {done.files[unlisted[0]].entry.path} "
            f"({len(unlisted)} such files of {len(done.train)}); add rows, or leave the files "
            "aside in dataset.yaml: `unlisted_files: ignore`"
        )
    done.ignored["train files that no row names"] = len(unlisted)
    if not any(grouped):
        tie_by_folders(done)
        tie_by_names(done)
        tie_equal_names(done)


def _covered(done: Labelled, table: LabelTable, tables: list[LabelTable]) -> list[int]:
    """Return the files that a table's rows may mean."""
    files, train = done.files, done.train
    if table.beside is not None:
        # Bare names mean files beside the table; paths (x/y.mp4) and folders of frames lead below.
        beside = [i for i in train if files[i].folder == table.beside]
        if beside and not table.rows[table.ids[0]].str.contains("[/\\\\]").any():
            return beside
        above = f"{table.beside}/" if table.beside else ""
        return [i for i in train if f"{files[i].folder}/".startswith(above)]
    splits = {files[i].place.split for i in train}
    others = {other.split for other in tables} - {table.split}
    if table.split in splits:
        return [i for i in train if files[i].place.split not in others]
    return train


def _apply_table(done: Labelled, table: LabelTable, tables: list[LabelTable]) -> bool:
    """Add the items of one table, and the frames that are too many; say if a column gave groups."""
    files, root = done.files, done.folder.root
    covered = _covered(done, table, tables)
    # Its index goes before the items come.
    id_column, fits = _choose_id(
        table, Finder(covered, lambda i: table.called(files[i]), table.config.root)
    )
    keep = _check_fits(done, table, id_column, fits)
    taken = {id_column, table.label_column}
    more = table.further(fits.names, taken)
    labels = table.labels_of.tolist()
    named = _folder_groups(table, fits, labels)
    for row in keep:
        for number, name in _files_of(done, row, fits, table):
            file = files[number]
            in_val = "val/" if "val" in (file.place.split, table.splits_of[row]) else ""
            other = done.items.get(number)
            if other is not None or file.place.label not in (None, labels[row]):
                raise _contradiction(table, row, name, file, other)
            of = more.groups[row] or (in_val + named[row] if row in fits.frames else "")
            done.items[number] = Item(
                file.entry, in_val + name, labels[row], of, more.domains[row], more.folds[row],
                bool(in_val),
            )  # fmt: skip
            mask = table.masks[row] if table.masks else None
            if mask is not None:
                done.masks[file.entry.logical] = mask
    done.words |= set(zip(labels, table.rows[table.label_column], strict=True))
    where = Path(table.where).relative_to(root)
    if fits.start:
        done.notes.append(f"{where}: its paths begin with {fits.start}, which is not here: dropped")
    if fits.frames:
        done.notes.append(
            f"{where}: {len(fits.frames)} rows name folders of frames; each folder is a group"
        )
    columns = "".join(f", {key}: {name}" for key, name in more.columns.items())
    done.notes += [f"labels: {where} ({id_column}, {table.label_column}){columns}", *more.notes]
    return any(more.groups)


def _folder_groups(table: LabelTable, fits: Fits, labels: list[int]) -> dict[int, str]:
    """Return row -> group, of those that name folders: one of both classes is one person's."""
    last = {row: without_suffix(fits.names[row].rstrip("/").rpartition("/")[2])
            for row in fits.frames}  # fmt: skip
    both = {(name, labels[row]) for row, name in last.items()}
    apart = table.config.same_names == IGNORE
    return {
        row: fits.names[row] if apart or (name, 1 - labels[row]) not in both else name
        for row, name in last.items()
    }


def _files_of(done: Labelled, row: int, fits: Fits, table: LabelTable) -> list[tuple[int, str]]:
    """Return the files that a row means, with their ids; notes frames that are too many."""
    name = fits.names[row]
    if row not in fits.frames:
        number = fits.files[row][0]
        return [(number, name if table.beside is None else done.files[number].name)]
    chosen, left = choose_of_folder(
        done.files, fits.frames[row], name, table.config.frames_per_video[0]
    )
    done.thinned |= left
    return list(chosen.items())


def _contradiction(
    table: LabelTable, row: int, name: str, file: MediaFile, other: Item | None
) -> UserError:
    """Say that a row contradicts the class folder, or that another row has taken its file."""
    label = int(table.labels_of.iloc[row])
    said = table.rows[table.label_column]
    if file.place.label not in (None, label):
        words = ("real", "fake")
        return UserError(
            f"{table.at(row)}: {table.label_column} is {said.iloc[row]!r} ({words[label]}), but "
            f"{file.entry.path} lies in a class folder that says {words[1 - label]}: correct one "
            f"of them, or say in dataset.yaml what is meant{turned_round(said)}"
        )
    assert other is not None  # the only other reason to ask
    return UserError(
        f"{table.at(row)}: {name!r} and another row, {other.item_id!r}, fit the same file "
        f"{file.entry.path}"
    )


def _choose_id(table: LabelTable, finder: Finder) -> tuple[str, Fits]:
    """Return the id column whose values fit the files best, and what each value fits."""
    best: tuple[int, str, Fits] | None = None
    for column in table.ids:
        fits = finder.fits(table.rows[column].tolist())
        count = fits.count()
        equal = best is not None and count == best[0] == len(fits.files)
        if best is not None and equal and not fits.same_as(best[2]):
            raise UserError(
                f"{table.where}: columns {best[1]!r} and {column!r} both name files, but not the "
                f"same ones; say which in dataset.yaml: `id_column: {best[1]}`"
            )
        if best is None or count > best[0]:
            best = (count, column, fits)
    assert best is not None  # a table has at least one id column
    return best[1], best[2]


def _check_fits(done: Labelled, table: LabelTable, column: str, fits: Fits) -> Sequence[int]:
    """Return the rows that have a file; raises for those that have none, or several."""
    ids = table.rows[column]
    twice = ids.duplicated().to_numpy()
    if twice.any():
        row = int(twice.argmax())
        first = table.rows.index[int((ids == ids.iloc[row]).to_numpy().argmax())]
        raise UserError(f"{table.at(row)}: {column} {ids.iloc[row]!r} stands already in {first}")
    for row, found in fits.files.several.items():
        raise UserError(
            f"{table.at(row)}: {column} {ids.iloc[row]!r} fits {len(found)} files; ids must "
            "be paths where names repeat"
        )
    missing = [row for row in fits.files.missing() if row not in fits.frames]
    if missing and (table.config.missing_files == "error" or len(missing) == len(ids)):
        raise _no_file(done, table, column, fits, missing)
    if missing:
        done.notes.append(f"{len(missing)} rows of {table.where} have no file: passed over")
        return np.setdiff1d(np.arange(len(ids)), missing).tolist()
    return range(len(ids))


def _no_file(
    done: Labelled, table: LabelTable, column: str, fits: Fits, missing: list[int]
) -> UserError:
    row, count, files = missing[0], len(table.rows), done.files
    where = f"{table.at(row)}: {column} {table.rows[column].iloc[row]!r}"
    others = sorted({*range(len(files))} - {*done.train})
    index = FileIndex(others, lambda i: table.called(files[i]))
    tests = index.find_all([fits.names[row] for row in missing])
    if not tests[0]:
        return UserError(
            f"{where} has no file ({len(missing)} of {count} rows have none); complete the files, "
            "name another column (`id_column: NAME`) or where the paths lead (`root: {from: START, "
            "to: FOLDER}`), or pass over such rows in dataset.yaml: `missing_files: ignore`"
        )
    way = "pass over such rows in dataset.yaml: `missing_files: ignore`"
    if len(missing) == count:
        name = Path(table.where).relative_to(done.folder.root).as_posix()
        way = f"leave the table aside in dataset.yaml: {offer_ignore(name)}"
        way = "leave the table out of `labels_file`" if table.config.labels_file else way
    return UserError(
        f"{where} is a test item ({files[tests[0][0]].entry.path}; so are "
        f"{sum(map(bool, tests))} of {count} rows); take its rows out of one table, or {way}"
    )
