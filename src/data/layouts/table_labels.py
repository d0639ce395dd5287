"""From files to train items by the rows of a CSV or metadata.json."""

from dataclasses import dataclass, field
from pathlib import Path

from src.data.items.dataset_yaml import IGNORE, DatasetConfig, offer_ignore
from src.data.items.places import File, FileIndex, MediaFile, without_suffix
from src.data.layouts.class_folders import (
    Labelled,
    TrainItem,
    tie_by_folders,
    tie_by_names,
    tie_equal_names,
)
from src.data.layouts.finder import Finder, Fits
from src.data.layouts.label_tables import LabelTable
from src.data.layouts.table_columns import read_further, turned_round
from src.data.pixels.frames import BEYOND, choose_frames
from src.errors import UserError


@dataclass
class _Work:
    """What `label_by_tables` was given, the items so far, and the frames that are too many."""

    root: Path
    files: list[MediaFile]
    train: list[int]
    config: DatasetConfig
    done: Labelled = field(default_factory=Labelled)
    thinned: set[int] = field(default_factory=set)


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
    work = _Work(root, files, train, config)
    done, thinned = work.done, work.thinned
    grouped = [_apply_table(work, _covered(files, train, table, tables), table) for table in tables]
    unlisted = [index for index in train if index not in done.items and index not in thinned]
    if unlisted and config.unlisted_files == "error":
        raise UserError(
            f"{tables[0].where}: no row names {files[unlisted[0]].entry.path} ({len(unlisted)} "
            f"such files of {len(train)}); add rows, or leave the files aside in dataset.yaml: "
            "`unlisted_files: ignore`"
        )
    if unlisted:
        done.ignored["train files that no row names"] = len(unlisted)
    if thinned:
        done.ignored[BEYOND] = len(thinned)
    if not any(grouped):
        tie_by_folders(root, files, done, config)
        tie_by_names(done, config)
        tie_equal_names(done, config)
    return done


def _covered(
    files: list[MediaFile], train: list[int], table: LabelTable, tables: list[LabelTable]
) -> list[int]:
    """Return the files that a table's rows may mean."""
    if table.folder is not None:
        # Bare names mean files beside the table; paths (x/y.mp4) and folders of frames lead below.
        beside = [i for i in train if _lies_in(files[i], table.folder, below=False)]
        if beside and not table.rows[table.ids[0]].str.contains("[/\\\\]").any():
            return beside
        return [i for i in train if _lies_in(files[i], table.folder, below=True)]
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
    if not table.home:
        return known
    below = file.entry.logical.removeprefix(f"{table.home}/")
    return File(index, tuple(dict.fromkeys((below, *known.names))))


def _apply_table(work: _Work, covered: list[int], table: LabelTable) -> bool:
    """Add the items of one table; return whether a column gave groups."""
    files, config, done = work.files, work.config, work.done
    finder = Finder((_names(files[i], i, table) for i in covered), config.root)
    id_column, fits = _choose_id(table, finder)
    keep = _check_fits(work, table, id_column, fits)
    names, taken = table.rows[id_column].tolist(), {id_column, table.label_column}
    more = read_further(table.where, table.rows, names, config, taken)
    labels = table.labels.tolist()
    named = _folder_groups(fits, labels, config)
    for row in keep:
        for number, name in _files_of(work, row, fits, table):
            file = files[number]
            in_val = "val/" if "val" in (file.place.split, table.splits[row]) else ""
            other = done.items.get(number)
            if other is not None or file.place.label not in (None, labels[row]):
                raise _contradiction(table, row, name, file, other)
            of = more.groups[row] or (in_val + named[row] if row in fits.frames else "")
            done.items[number] = TrainItem(
                in_val + name, labels[row], of, more.domains[row], more.folds[row], bool(in_val)
            )
    done.words |= set(zip(labels, table.rows[table.label_column], strict=True))
    _say_what(work.root, table, fits, done)
    what = f"labels: {Path(table.where).relative_to(work.root)} ({id_column}, {table.label_column})"
    done.notes.append(what + "".join(f", {key}: {name}" for key, name in more.columns.items()))
    done.notes += more.notes
    return any(more.groups)


def _folder_groups(fits: Fits, labels: list[int], config: DatasetConfig) -> dict[int, str]:
    """Return row -> group, of those that name folders: one of both classes is one person's."""
    last = {row: without_suffix(fits.names[row].rstrip("/").rpartition("/")[2])
            for row in fits.frames}  # fmt: skip
    classes: dict[str, set[int]] = {}
    for row, name in last.items():
        classes.setdefault(name, set()).add(labels[row])
    tied = {name for name, of in classes.items() if len(of) > 1 and config.same_names != IGNORE}
    return {row: name if name in tied else fits.names[row] for row, name in last.items()}


def _files_of(work: _Work, row: int, fits: Fits, table: LabelTable) -> list[tuple[int, str]]:
    """Return the files that a row means, with their ids; notes frames that are too many."""
    files, name = work.files, fits.names[row]
    if row not in fits.frames:
        number = fits.files[row][0]
        return [(number, name if table.folder is None else files[number].name)]
    frames = {files[number].entry.logical: number for number in fits.frames[row]}
    chosen = choose_frames(list(frames), work.config.frames_per_video[0])
    work.thinned.update(frames[path] for path in frames if path not in chosen)
    return [(frames[path], f"{name.rstrip('/')}/{path.rpartition('/')[2]}") for path in chosen]


def _say_what(root: Path, table: LabelTable, fits: Fits, done: Labelled) -> None:
    where = Path(table.where).relative_to(root)
    if fits.start:
        done.notes.append(f"{where}: its paths begin with {fits.start}, which is not here: dropped")
    if fits.frames:
        done.notes.append(
            f"{where}: {len(fits.frames)} rows name folders of frames; each folder is a group"
        )


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
            f"{words[1 - label]}: correct one of them, or say in dataset.yaml what is meant"
            + turned_round(table.rows[table.label_column])
        )
    assert other is not None  # the only other reason to ask
    return UserError(
        f"{where}: {name!r} and another row, {other.item_id!r}, fit the same file {file.entry.path}"
    )


def _choose_id(table: LabelTable, finder: Finder) -> tuple[str, Fits]:
    """Return the id column whose values fit the files best, and what each value fits."""
    best: tuple[int, str, Fits] | None = None
    for column in table.ids:
        fits = finder.fits(table.rows[column].tolist())
        count = fits.count()
        if best is not None and count == best[0] == len(fits.files) and _differ(fits, best[2]):
            raise UserError(
                f"{table.where}: columns {best[1]!r} and {column!r} both name files, but not the "
                f"same ones; say which in dataset.yaml: `id_column: {best[1]}`"
            )
        if best is None or count > best[0]:
            best = (count, column, fits)
    assert best is not None  # a table has at least one id column
    return best[1], best[2]


def _differ(one: Fits, other: Fits) -> bool:
    return (one.files, one.frames) != (other.files, other.frames)


def _check_fits(work: _Work, table: LabelTable, column: str, fits: Fits) -> list[int]:
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
    for row, found in enumerate(fits.files):
        if len(found) > 1:
            raise UserError(
                f"{table.where}: {table.rows.index[row]}: {column} {ids.iloc[row]!r} fits "
                f"{len(found)} files; ids must be paths where names repeat"
            )
    have = [bool(found) or row in fits.frames for row, found in enumerate(fits.files)]
    missing = [row for row, has in enumerate(have) if not has]
    if missing and (work.config.missing_files == "error" or len(missing) == len(have)):
        raise _no_file(work, table, column, fits, missing)
    if missing:
        work.done.notes.append(f"{len(missing)} rows of {table.where} have no file: passed over")
    return [row for row, has in enumerate(have) if has]


def _no_file(
    work: _Work, table: LabelTable, column: str, fits: Fits, missing: list[int]
) -> UserError:
    row, count = missing[0], len(table.rows)
    where = f"{table.where}: {table.rows.index[row]}: {column} {table.rows[column].iloc[row]!r}"
    others = sorted({*range(len(work.files))} - {*work.train})
    index = FileIndex(_names(work.files[i], i, table) for i in others)
    tests = [index.find(fits.names[row]) for row in missing]
    if not tests[0]:
        return UserError(
            f"{where} has no file ({len(missing)} of {count} rows have none); complete the files, "
            "name another column (`id_column: NAME`) or where the paths lead (`root: {from: START, "
            "to: FOLDER}`), or pass over such rows in dataset.yaml: `missing_files: ignore`"
        )
    way = "pass over such rows in dataset.yaml: `missing_files: ignore`"
    if len(missing) == count:
        name = Path(table.where).relative_to(work.root).as_posix()
        way = f"leave the table aside in dataset.yaml: {offer_ignore(name)}"
        way = "leave the table out of `labels_file`" if work.config.labels_file else way
    return UserError(
        f"{where} is a test item ({work.files[tests[0][0]].entry.path}; so are "
        f"{sum(map(bool, tests))} of {count} rows); take its rows out of one table, or {way}"
    )
