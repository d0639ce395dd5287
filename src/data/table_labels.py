"""From files to train items by the rows of a CSV or metadata.json."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from src.data import tables as columns
from src.data.csv_rows import is_empty
from src.data.dataset_yaml import DatasetConfig
from src.data.labelling import Labelled, TrainItem, tie_by_names, tie_equal_names
from src.data.matching import File, FileIndex, without_suffix
from src.data.places import MediaFile
from src.data.tables import LabelTable, find_column
from src.data.words import normalise
from src.errors import UserError


def label_by_tables(
    root: Path,
    files: list[MediaFile],
    train: list[int],
    tables: list[LabelTable],
    config: DatasetConfig,
) -> Labelled:
    """Label train items by the rows of a CSV or metadata.json.

    Raises:
        UserError: a row without file, a file without row, an id twice or that fits two files, or
            a row that contradicts the class folder; names file, row and value.
    """
    done = Labelled()
    for table in tables:
        _apply_table(root, files, _covered(files, train, table, tables), table, config, done)
    unlisted = [index for index in train if index not in done.items]
    if unlisted and config.unlisted_files == "error":
        raise UserError(
            f"{tables[0].where}: no row names {files[unlisted[0]].entry.path} ({len(unlisted)} "
            f"such files of {len(train)}); add rows, or leave the files aside in dataset.yaml: "
            "`unlisted_files: ignore`"
        )
    if unlisted:
        done.ignored["train files that no row names"] = len(unlisted)
    if not any(item.group for item in done.items.values()):
        tie_by_names(done, config)
        tie_equal_names(done, config)
    return done


def _covered(
    files: list[MediaFile], train: list[int], table: LabelTable, tables: list[LabelTable]
) -> list[int]:
    """Return the files that a table's rows may mean."""
    if table.folder is not None:
        # Bare names mean files beside the table; paths (x/y.mp4) lead below it.
        below = table.rows[table.ids[0]].str.contains("[/\\\\]").any()
        return [i for i in train if _lies_in(files[i], table.folder, below=bool(below))]
    splits = {files[i].place.split for i in train}
    others = {other.split for other in tables} - {table.split}
    if table.split in splits:
        return [i for i in train if files[i].place.split not in others]
    return train


def _lies_in(file: MediaFile, folder: str, *, below: bool) -> bool:
    home = file.entry.logical.rpartition("/")[0]
    return home == folder or (below and (not folder or home.startswith(f"{folder}/")))


def _names(file: MediaFile, index: int, table: LabelTable) -> File:
    """Return the names by which a table may call a file: relative to its own folder, too."""
    known = file.known_as(index)
    if not table.folder:
        return known
    below = file.entry.logical.removeprefix(f"{table.folder}/")
    return File(index, tuple(dict.fromkeys((below, *known.names))))


def _apply_table(
    root: Path,
    files: list[MediaFile],
    train: list[int],
    table: LabelTable,
    config: DatasetConfig,
    done: Labelled,
) -> None:
    """Add the items of one table to `done`."""
    id_column, fits = _choose_id(table, FileIndex(_names(files[i], i, table) for i in train))
    keep = _check_fits(table, id_column, fits, config, done)
    taken = {id_column, table.label_column}
    group, domain, fold = (
        find_column(table, known, given, key, taken)
        for known, given, key in (
            (columns.GROUP_COLUMNS, config.group_column, "group_column"),
            (columns.DOMAIN_COLUMNS, config.domain_column, "domain_column"),
            (columns.FOLD_COLUMNS, config.fold_column, "fold_column"),
        )
    )
    groups = _groups(table, id_column, group)
    domains = [""] * len(fits) if domain is None else table.rows[domain].map(_value).tolist()
    folds = [None] * len(fits) if fold is None else _folds(table, fold)
    ids, labels = table.rows[id_column].tolist(), table.labels.tolist()
    for row in keep:
        number = fits[row][0]
        file = files[number]
        name = ids[row] if table.folder is None else file.name
        in_val = "val" in (file.place.split, table.split)
        other = done.items.get(number)
        if other is not None or file.place.label not in (None, labels[row]):
            raise _contradiction(table, row, name, file, other)
        done.items[number] = TrainItem(
            item_id=f"val/{name}" if in_val else name,
            label=labels[row],
            group=groups[row],
            domain=domains[row],
            fold=folds[row],
            in_val=in_val,
        )
    found = {"groups": group, "domains": domain, "folds": fold}
    what = f"labels: {Path(table.where).relative_to(root)} ({id_column}, {table.label_column})"
    done.notes.append(what + "".join(f", {k}: {c}" for k, c in found.items() if c is not None))


def _contradiction(
    table: LabelTable, row: int, name: str, file: MediaFile, other: TrainItem | None
) -> UserError:
    """Say that a row contradicts the class folder, or that another row has taken its file."""
    where = f"{table.where}: {table.rows.index[row]}"
    label = int(table.labels.iloc[row])
    if file.place.label not in (None, label):
        words = ("real", "fake")
        return UserError(
            f"{where}: {table.label_column} is {table.rows[table.label_column].iloc[row]!r} "
            f"({words[label]}), but {file.entry.path} lies in a class folder that says "
            f"{words[1 - label]}; if 1 means real in the table, say in dataset.yaml "
            "`labels: {1: 0, 0: 1}`, else correct one of them"
        )
    assert other is not None  # the only other reason to ask
    return UserError(
        f"{where}: {name!r} and another row, {other.item_id!r}, fit the same file {file.entry.path}"
    )


def _choose_id(table: LabelTable, index: FileIndex) -> tuple[str, list[Sequence[int]]]:
    """Return the id column whose values fit the files best, and what each value fits."""
    best: tuple[int, str, list[Sequence[int]]] | None = None
    for column in table.ids:
        fits = [index.find(value) for value in table.rows[column]]
        count = sum(len(found) == 1 for found in fits)
        if best is not None and count == best[0] == len(fits) and fits != best[2]:
            raise UserError(
                f"{table.where}: columns {best[1]!r} and {column!r} both name files, but not the "
                f"same ones; say which in dataset.yaml: `id_column: {best[1]}`"
            )
        if best is None or count > best[0]:
            best = (count, column, fits)
    assert best is not None  # a table has at least one id column
    return best[1], best[2]


def _check_fits(
    table: LabelTable,
    column: str,
    fits: list[Sequence[int]],
    config: DatasetConfig,
    done: Labelled,
) -> list[int]:
    """Return the rows that have a file; raises for those that have none, or several."""
    ids = table.rows[column]
    twice = ids.duplicated().to_numpy()
    if twice.any():
        row = int(twice.argmax())
        first = table.rows.index[int((ids == ids.iloc[row]).to_numpy().argmax())]
        raise UserError(
            f"{table.where}: {table.rows.index[row]}: {column} {ids.iloc[row]!r} stands already in "
            f"{first}"
        )
    for row, found in enumerate(fits):
        if len(found) > 1:
            raise UserError(
                f"{table.where}: {table.rows.index[row]}: {column} {ids.iloc[row]!r} fits "
                f"{len(found)} files; ids must be paths where names repeat"
            )
    missing = [row for row, found in enumerate(fits) if not found]
    if missing and (config.missing_files == "error" or len(missing) == len(fits)):
        raise UserError(
            f"{table.where}: {table.rows.index[missing[0]]}: {column} {ids.iloc[missing[0]]!r} has "
            f"no file ({len(missing)} of {len(fits)} rows have none); complete the files, name "
            "another column (`id_column: NAME`), or pass over such rows in dataset.yaml: "
            "`missing_files: ignore`"
        )
    if missing:
        done.notes.append(f"{len(missing)} rows of {table.where} have no file: passed over")
    return [row for row, found in enumerate(fits) if found]


def _value(text: str) -> str:
    return "" if is_empty(text) else text


def _groups(table: LabelTable, id_column: str, group: str | None) -> list[str]:
    if group is None:
        return [""] * len(table.rows)
    given = table.rows[group].map(_value).tolist()
    if normalise(group) not in columns.ORIGINAL_COLUMNS:
        return given
    return join_originals(table.rows[id_column].tolist(), given)


def join_originals(ids: list[str], originals: list[str]) -> list[str]:
    """Group fakes with each other and with the item that they were made from.

    Args:
        ids: of the items.
        originals: the name of each item's original (with or without suffix), "" if none is given.

    Returns:
        A group name an item, "" for an item that neither names an original nor is one.
    """
    own = [without_suffix(value.rsplit("/", 1)[-1]) for value in ids]
    named = [without_suffix(value.rsplit("/", 1)[-1]) for value in originals]
    from scipy.cluster.hierarchy import DisjointSet  # slow to import, and rarely needed

    sources = set(named) - {""}
    linked = DisjointSet(sources)
    for item, original in zip(own, named, strict=True):
        if original and item in sources:
            linked.merge(item, original)
    leaders = {name: min(part) for part in linked.subsets() for name in part}
    return [leaders.get(original or item, "") for item, original in zip(own, named, strict=True)]


def _folds(table: LabelTable, column: str) -> list[int]:
    numbers = pd.to_numeric(table.rows[column], errors="coerce")
    bad = (numbers.isna() | (numbers != numbers.round()) | (numbers < -1)).to_numpy()
    if bad.any():
        row = int(bad.argmax())
        raise UserError(
            f"{table.where}: {table.rows.index[row]}: {column} is "
            f"{table.rows[column].iloc[row]!r}, want a fold 0..k-1 (or -1: always trained on)"
        )
    found = sorted(set(numbers.astype(int)) - {-1})
    if found != list(range(len(found))) or len(found) < 2:
        raise UserError(f"{table.where}: column {column} holds folds {found}, want 0..k-1")
    return numbers.astype(int).tolist()
