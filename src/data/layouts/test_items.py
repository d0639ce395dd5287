"""Which files are test items: those that a sample or a list names, else all of test/."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from src.artifacts.submissions import SubmissionFormat
from src.data.items.dataset_yaml import DatasetConfig, offer_ignore
from src.data.items.folder import Folder
from src.data.items.listing import TEXT_SUFFIX, Entry
from src.data.items.manifest import Item, plain_format, summary, without_sample
from src.data.items.places import MediaFile, own_folders
from src.data.layouts.class_folders import thin_folders
from src.data.layouts.finder import FileIndex, Finder, choose_of_folder
from src.data.layouts.lists import read_rows, split_of_name, texts_to_read
from src.data.layouts.sample_submission import Sample, left_aside, match_sample
from src.data.layouts.table_columns import Table
from src.data.published.reading import split_folds
from src.errors import UserError


@dataclass(frozen=True)
class TestList:
    """A list of test items (`test.csv`, `test_list.txt`), which stands in for a sample."""

    table: Table
    id_column: str  # what the column of ids is called
    labels: list[int] | None  # of the rows, where the list tells them; no prediction reads them
    by_column: bool  # a column of splits picked the rows, whose files may lie in any folder


@dataclass(frozen=True)
class TestItems:
    """The test items of a data set."""

    ids: dict[int, str]  # number of the file -> item_id
    submission: SubmissionFormat | None  # what to hand in
    notes: list[str]  # what was understood
    labels: dict[str, int] = field(default_factory=dict)  # item_id -> 0/1, where a list tells them
    # numbers of the files that `frames_per_video` leaves out
    thinned: set[int] = field(default_factory=set)
    ignored: Counter[str] = field(default_factory=Counter)  # reason -> number of files left aside


def find_test_list(
    folder: Folder, tables: list[Entry], apart: Sequence[Table], *, read: bool
) -> tuple[TestList | None, list[str]]:
    """Find the list of test items, and why other tables (without the sample) are left aside.

    `apart` are rows that a column of splits calls test items. Without `read`, for there is a sample
    submission, all are left aside.

    Raises:
        UserError: several lists, or an id twice or empty.
    """
    wanted = folder.config.labels_file
    mine = [e for e in tables if split_of_name(e) == "test" and e.logical not in wanted]
    csvs = [entry for entry in mine if entry.suffix not in (".json", TEXT_SUFFIX)]
    if not read:
        never = "left aside: labels of test items are never read"
        return None, [f"{entry.path} {never}" for entry in csvs]
    found = [_make_list(folder, table, by_column=True) for table in apart]
    found = [listed for listed in found if listed is not None]
    aside = []
    for some in (csvs, texts_to_read(mine)):
        for entry in some if not found else []:
            rows = read_rows(folder, entry)
            table = None if rows is None else Table(folder.where(entry), rows, folder.config)
            listed = None if table is None else _make_list(folder, table, by_column=False)
            found += [] if listed is None else [listed]
            aside += [f"{entry.path} left aside: it names no file"] if listed is None else []
    if len(found) > 1:
        one, two = (listed.table.where for listed in found[:2])
        other = offer_ignore(Path(two).relative_to(folder.root).as_posix())
        raise UserError(
            f"{one} and {two} are both lists of test items; leave one aside in dataset.yaml: "
            f"{other}"
        )
    return (found[0] if found else None), aside


def _make_list(folder: Folder, table: Table, *, by_column: bool) -> TestList | None:
    rows, table = table.rows, table.without_absent()
    if rows.empty:
        return None
    ids = table.candidates("id") or [str(rows.columns[0])]
    hits = {name: int(rows[name].map(folder.has_named).sum()) for name in ids}
    best = max(ids, key=lambda name: hits[name])
    if not hits[best]:
        return None
    table.check_ids(best)
    parsed = [rows[name].map(folder.labels.get) for name in table.candidates("label")]
    # Of one class alone: filled in, no truth.
    truths = [values for values in parsed if not values.isna().any() and values.nunique() == 2]
    labels = truths[0].astype(int).tolist() if truths else None
    return TestList(table, best, labels, by_column)


def follow_sample(
    files: list[MediaFile], sample: Sample | None
) -> tuple[list[MediaFile], list[str]]:
    """Make test items of the files that a sample submission names; returns notes too.

    Beside a train/ those are whole folders that are no split's, and where there is no test/, val/
    too. Where no folder says a split, those are the named files of the class folders alone. Each id
    that is not in test/ must fit one of these files.
    """
    splits = {file.place.split for file in files}
    if sample is None:
        return files, []
    if "train" not in splits:
        return (files, []) if "test" in splits else _follow_into_classes(files, sample)
    tests = _index_of(files, [i for i, f in enumerate(files) if f.place.split == "test"])
    every = sample.layout.item_ids
    ids = [every[row] for row in tests.find_all(every).missing()]
    wanted = ("",) if "test" in splits else ("", "val")
    pool = [i for i, file in enumerate(files) if file.place.split in wanted]
    found = _index_of(files, pool).find_all(ids) if pool else ()
    if not found or any(len(fits) != 1 for fits in found):
        return files, []
    others = {file.folder for file in files if file.place.split not in wanted}
    hit = {fits[0] for fits in found}
    own = own_folders({files[i].folder for i in hit}, others)
    homes = sorted({own[files[i].folder] for i in hit} - {""})
    inside = {
        i for i in pool
        if i in hit or any(f"{files[i].folder}/".startswith(f"{home}/") for home in homes)
    }  # fmt: skip
    named = ", ".join(f"{home}/" for home in homes) or "files"
    note = f"splits: {sample.table.name} names {named}: test items"
    return _as_test(files, inside), [note]


def _follow_into_classes(
    files: list[MediaFile], sample: Sample
) -> tuple[list[MediaFile], list[str]]:
    """Hold out the files of class folders that a sample names, where it names no others."""
    labelled = [i for i, file in enumerate(files) if file.place.label is not None]
    others = _index_of(files, [i for i, f in enumerate(files) if f.place.label is None])
    ids = sample.layout.item_ids
    found = _index_of(files, labelled).find_all(ids)
    alone = len(found.missing()) == 0 and not found.several
    if not labelled or not alone or len(others.find_all(ids).missing()) < len(ids):
        return files, []
    hit = {fits[0] for fits in found}
    return _as_test(files, hit), [
        f"splits: {sample.table.name} names {len(hit)} files of the class folders, "
        f"such as {files[min(hit)].entry.path}: test items, not trained on"
    ]


def _index_of(files: list[MediaFile], numbers: Sequence[int]) -> FileIndex:
    return FileIndex(numbers, lambda number: files[number].names)


def _as_test(files: list[MediaFile], some: Collection[int]) -> list[MediaFile]:
    return [
        replace(file, place=replace(file.place, split="test")) if i in some else file
        for i, file in enumerate(files)
    ]


def find_test(
    folder: Folder, files: list[MediaFile], sample: Sample | None, listed: TestList | None
) -> TestItems:
    """Return the test items: those that a sample or a list names, else all of test/.

    Raises:
        UserError: rows and test/ do not fit each other one to one.
    """
    config = folder.config
    inside = [i for i, file in enumerate(files) if file.place.split == "test"]
    if sample is None and listed is None:
        kept = thin_folders(files, inside, config.frames_per_video[1], config)
        test = {i: files[i].name for i in kept}
        return TestItems(test, *without_sample(test.values(), config), thinned={*inside} - {*kept})
    # Without test/, everything in one folder: the sample says which files are test items.
    pool = inside or [
        i for i, file in enumerate(files)
        if file.place.split == "" and (sample is None or file.place.label is None)
    ]  # fmt: skip
    if listed is not None and listed.by_column:
        pool = list(range(len(files)))
    if sample is not None:
        table = sample.table
        found = _find_sampled(files, pool, sample, folder.listing.unread, some=bool(inside))
    else:
        assert listed is not None  # one of the two
        table, found = listed.table, _find_listed(listed, files, pool, config)
    of = {*found.ids, *found.thinned}
    unlisted = [i for i in inside if i not in of] if of else []
    if unlisted and config.unlisted_files == "error":
        raise UserError(
            f"{table.where} has no row for {files[unlisted[0]].entry.path} ({len(unlisted)} such "
            f"files of {len(inside)}); leave them aside in dataset.yaml: `unlisted_files: ignore`"
        )
    found.ignored[f"test files that {table.name} does not name"] += len(unlisted)
    return found


def _find_sampled(
    files: list[MediaFile], pool: list[int], sample: Sample, unread: dict[str, str], *, some: bool
) -> TestItems:
    layout, index = sample.layout, _index_of(files, pool)
    if not some and len(index.find_all(layout.item_ids).missing()) == len(layout.item_ids):
        count = len(layout.item_ids)
        lies_there = left_aside(sample, range(count), unread)
        why = "" if lies_there is None else f": {lies_there[1]}"
        said = f"no test items, though {sample.table.where} names {count}{why}"
        everything = _index_of(files, range(len(files)))
        alike = count - len(everything.find_all(layout.item_ids).missing())
        if alike:
            said = (
                f"WARNING {said}; {alike} of them are names of train files: if they are the same "
                "files, move them into test/"
            )
        return TestItems({}, None, [said])
    return TestItems(match_sample(sample, index, unread), layout, sample.notes)


def _find_listed(
    listed: TestList, files: list[MediaFile], pool: list[int], config: DatasetConfig
) -> TestItems:
    """Find the files that a list names; a row that names a folder stands for its frames."""
    table, finder = listed.table, Finder(pool, lambda i: files[i].names, config.root)
    fits = finder.fits(table.rows[listed.id_column].tolist())
    if not fits.count():
        return TestItems({}, None, [f"no test items, though {table.where} names some"])
    found: dict[int, str] = {}
    labels: dict[str, int] = {}
    thinned: set[int] = set()
    for row, name in enumerate(fits.names):
        frames = fits.frames.get(row, ())
        chosen, left = choose_of_folder(files, frames, name, config.frames_per_video[1])
        items = dict.fromkeys(fits.files[row], name) | chosen
        thinned |= left
        _check_row(listed, row, fits.files[row], items, found)
        found |= items
        if listed.labels is not None:
            labels |= dict.fromkeys(items.values(), listed.labels[row])
    layout = plain_format(config, listed.id_column, list(found.values()))
    note = f"test items: the {len(found)} files of {table.name}; handed in, in its order, as "
    note += summary(layout, config)
    kept = ["its labels are kept apart: no prediction reads them"] if labels else []
    return TestItems(found, layout, [note, *kept], labels, thinned)


def _check_row(
    listed: TestList, row: int, fits: Sequence[int], items: dict[int, str], found: dict[int, str]
) -> None:
    taken = next((found[number] for number in items if number in found), None)
    if len(fits) > 1:
        what = f"fits {len(fits)} files; ids must be paths where names repeat"
    elif not items:
        what = "has no file among the test items; is the test set complete?"
    elif taken is not None:
        what = f"and another row, {taken!r}, fit the same file"
    else:
        return
    ids = listed.table.rows[listed.id_column]
    raise UserError(f"{listed.table.at(row)}: {listed.id_column} {ids.iloc[row]!r} {what}")


def given_folds(root: Path, train: Collection[Item]) -> tuple[pd.Series | None, list[str]]:
    """Return the folds of a table's column, else those of train/ and val/ with a note on val/."""
    if train and not any(item.fold is None for item in train):
        folds = {item.item_id: item.fold for item in train}
        found = sorted({int(fold or 0) for fold in folds.values()} - {-1})
        if found != list(range(len(found))) or len(found) < 2:
            raise UserError(f"{root}: the column of folds holds {found}, want 0..k-1")
        return pd.Series(folds, dtype="int64", name="fold").sort_index(), []
    if not any(item.in_val for item in train):
        return None, []
    given = {item.item_id: int(not item.in_val) for item in train}
    return split_folds(given, {item.item_id: item.label for item in train})
