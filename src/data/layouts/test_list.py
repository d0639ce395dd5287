"""Lists of test items, `test.csv` or `test_list.txt`, where no sample submission says more."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pandas as pd

from src.artifacts.submissions import SubmissionFormat
from src.data.items.dataset_yaml import DatasetConfig, offer_ignore
from src.data.items.listing import TEXT_SUFFIX, Entry
from src.data.items.manifest import answer_names
from src.data.items.places import MediaFile
from src.data.layouts.finder import Finder
from src.data.layouts.lists import OnDisk, read_rows, split_of_name, texts_to_read
from src.data.layouts.sample_submission import check_ids
from src.data.layouts.table_columns import candidates, without_absent
from src.data.pixels.frames import choose_frames
from src.errors import UserError


@dataclass(frozen=True)
class TestList:
    """A list of test items as read."""

    where: str  # the file, for messages
    row_names: list[str]  # `row 7` for each id
    id_column: str  # what the column of ids is called
    ids: list[str]  # what it holds, in order
    labels: list[int] | None  # of the rows, where the list tells them; no prediction reads them
    by_column: bool = False  # a column of splits picked the rows, whose files may lie in any folder


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
    root: Path,
    tables: list[Entry],
    config: DatasetConfig,
    on_disk: OnDisk,
    apart: Sequence[tuple[str, pd.DataFrame]],
    *,
    read: bool,
) -> tuple[TestList | None, list[str]]:
    """Find the list of test items (`test.csv`, `test_list.txt`) that stands in for a sample.

    Its labels, where it has any, are kept apart.

    Args:
        root: the data set's folder.
        tables: its CSV, JSON and text files, without the sample submission.
        config: what `dataset.yaml` says.
        on_disk: what lies there.
        apart: (file, rows) that a column of splits calls test items.
        read: False leaves all of them aside, for there is a sample submission.

    Returns:
        The list (None if there is none), and why others are left aside.

    Raises:
        UserError: several lists, or an id twice or empty.
    """
    mine = [e for e in tables if split_of_name(e) == "test" and e.logical not in config.labels_file]
    csvs = [entry for entry in mine if entry.suffix not in (".json", TEXT_SUFFIX)]
    if not read:
        never = "left aside: labels of test items are never read"
        return None, [f"{entry.path} {never}" for entry in csvs]
    found = [_make_list(where, rows, config, on_disk, by_column=True) for where, rows in apart]
    found = [listed for listed in found if listed is not None]
    aside = []
    for some in (csvs, texts_to_read(mine)):
        for entry in some if not found else []:
            rows, where = read_rows(root, entry, on_disk), str(root / entry.path)
            listed = None if rows is None else _make_list(where, rows, config, on_disk)
            found += [] if listed is None else [listed]
            aside += [f"{entry.path} left aside: it names no file"] if listed is None else []
    if len(found) > 1:
        raise UserError(
            f"{found[0].where} and {found[1].where} are both lists of test items; leave one aside "
            f"in dataset.yaml: {offer_ignore(Path(found[1].where).relative_to(root).as_posix())}"
        )
    return (found[0] if found else None), aside


def _make_list(
    where: str,
    rows: pd.DataFrame,
    config: DatasetConfig,
    on_disk: OnDisk,
    *,
    by_column: bool = False,
) -> TestList | None:
    if rows.empty:
        return None
    config = without_absent(config, rows)
    ids = candidates(where, rows, "id", config) or [str(rows.columns[0])]
    hits = {name: int(rows[name].map(on_disk.names).sum()) for name in ids}
    best = max(ids, key=lambda name: hits[name])
    if not hits[best]:
        return None
    check_ids(where, rows[best])
    columns = candidates(where, rows, "label", config)
    parsed = [rows[name].map(on_disk.labels.get) for name in columns]
    # Of one class alone: filled in, no truth.
    truths = [values for values in parsed if not values.isna().any() and values.nunique() == 2]
    labels = truths[0].astype(int).tolist() if truths else None
    return TestList(where, rows.index.tolist(), best, rows[best].tolist(), labels, by_column)


def match_list(
    listed: TestList, files: list[MediaFile], pool: list[int], config: DatasetConfig
) -> TestItems:
    """Find the files that a list names; a row that names a folder stands for its frames.

    Args:
        listed: the list.
        files: all media files.
        pool: numbers of those that may be test items.
        config: what `dataset.yaml` says.

    Raises:
        UserError: a row fits no file or several, or two rows fit one file; names file and row.
    """
    finder = Finder((files[i].known_as(i) for i in pool), config.root)
    fits = finder.fits(listed.ids)
    if not fits.count():
        return TestItems({}, None, [f"no test items, though {listed.where} names some"])
    found: dict[int, str] = {}
    labels: dict[str, int] = {}
    thinned: set[int] = set()
    for row, name in enumerate(fits.names):
        frames = {files[i].entry.logical: i for i in fits.frames.get(row, ())}
        items = dict.fromkeys(fits.files[row], name)
        chosen = choose_frames(list(frames), config.frames_per_video[1])
        thinned |= {*frames.values()} - {frames[path] for path in chosen}
        for path in chosen:
            items[frames[path]] = f"{name.rstrip('/')}/{path.rpartition('/')[2]}"
        _check_row(listed, row, fits.files[row], items, found)
        found |= items
        if listed.labels is not None:
            labels |= dict.fromkeys(items.values(), listed.labels[row])
    layout = SubmissionFormat(listed.id_column, "label", list(found.values()), answer_names(config))
    file = PurePosixPath(listed.where).name
    note = f"test items: the {len(found)} files of {file}; handed in as {layout.id_column},label"
    note += f", in its order, {layout.written}"
    kept = ["its labels are kept apart: no prediction reads them"] if labels else []
    return TestItems(found, layout, [note, *kept], labels, thinned)


def _check_row(
    listed: TestList, row: int, fits: Sequence[int], items: dict[int, str], found: dict[int, str]
) -> None:
    where = f"{listed.where}: {listed.row_names[row]}: {listed.id_column} {listed.ids[row]!r}"
    if len(fits) > 1:
        raise UserError(f"{where} fits {len(fits)} files; ids must be paths where names repeat")
    if not items:
        raise UserError(f"{where} has no file among the test items; is the test set complete?")
    taken = next((found[number] for number in items if number in found), None)
    if taken is not None:
        raise UserError(f"{where} and another row, {taken!r}, fit the same file")
