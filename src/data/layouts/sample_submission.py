"""The sample submission: ids, columns, order, and how labels are written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from src.artifacts.submissions import SubmissionFormat
from src.data.items.dataset_yaml import DatasetConfig
from src.data.items.files import suffix_of
from src.data.items.listing import TEXT_SUFFIX, Entry
from src.data.items.manifest import answer_names
from src.data.items.places import File, FileIndex
from src.data.items.words import make_label_map, normalise
from src.data.layouts.lists import OnDisk, read_rows
from src.data.layouts.table_columns import MEANS_REAL
from src.errors import UserError, unknown_name


@dataclass(frozen=True)
class Sample:
    """A sample submission as read."""

    where: str  # the file, for messages
    row_names: list[str]  # `row 7` for each id
    layout: SubmissionFormat  # what to hand in
    notes: list[str]  # what was understood


def find_sample(
    root: Path, tables: list[Entry], config: DatasetConfig, on_disk: OnDisk
) -> tuple[Sample | None, list[Entry]]:
    """Find and read the sample submission.

    Args:
        root: the data set's folder.
        tables: its CSV, JSON and text files.
        config: what `dataset.yaml` says.
        on_disk: what lies there, by which one without header is told.

    Returns:
        The sample (None if there is none), and the other tables.

    Raises:
        UserError: several samples, no two columns, an id twice or empty, an answer column whose
            words are not understood.
    """
    wanted = config.submission.file
    samples = [e for e in tables if (e.logical == wanted if wanted else _is_sample(e))]
    if wanted and not samples:
        where = root / "dataset.yaml"
        raise unknown_name(f"submission.file in {where}:", wanted, [e.logical for e in tables])
    if len(samples) > 1:
        raise UserError(
            f"{root}: {' and '.join(e.path for e in samples)} are both sample submissions; say "
            f"which in dataset.yaml: `submission: {{file: {samples[0].logical}}}`"
        )
    rest = [entry for entry in tables if entry not in samples and not _is_sample(entry)]
    return (_read_sample(root, samples[0], config, on_disk) if samples else None), rest


def check_ids(where: str, ids: pd.Series) -> None:
    """Raise a UserError if an id of a sample or a list is empty or stands there twice."""
    for bad, what in ((ids == "", "is empty"), (ids.duplicated(), "stands there twice")):
        if bad.any():
            first = int(bad.to_numpy().argmax())
            raise UserError(f"{where}: {ids.index[first]}: id {ids.iloc[first]!r} {what}")


def match_sample(
    sample: Sample, index: FileIndex, unread: Mapping[str, str] | None = None
) -> dict[int, str]:
    """Return file -> id for all ids of a sample submission that fit a file.

    Args:
        sample: the sample submission.
        index: the test items.
        unread: logical path -> reason, of the files that are left aside (`Listing.unread`).

    Raises:
        UserError: an id fits no file or several, or two ids fit one file; names file and row.
    """
    found: dict[int, str] = {}
    missing: list[int] = []
    for row, item_id in enumerate(sample.layout.item_ids):
        fits = index.find(item_id)
        if len(fits) > 1:
            where = _where(sample, row)
            raise UserError(f"{where} fits {len(fits)} test files; the sample must give paths")
        if not fits:
            missing.append(row)
            continue
        file = fits[0]
        if file in found:
            where = _where(sample, row)
            raise UserError(f"{where} and id {found[file]!r} fit the same test file")
        found[file] = item_id
    if missing:
        row, why = left_aside(sample, missing, unread or {}) or (missing[0], "")
        raise UserError(
            f"{_where(sample, row)} has no file among the test items ({len(missing)} such ids of "
            f"{len(sample.row_names)}): {why or 'is the test archive complete?'}"
        )
    return found


def left_aside(
    sample: Sample, rows: Sequence[int], unread: Mapping[str, str]
) -> tuple[int, str] | None:
    """Return the first of some rows whose file lies there and is not read, and what to do.

    Args:
        sample: the sample submission.
        rows: numbers of its rows that fit no item.
        unread: as for `match_sample`.
    """
    aside = list(unread)
    index = FileIndex(File(number, _tails(path)) for number, path in enumerate(aside))
    for row in rows:
        fits = index.find(sample.layout.item_ids[row])
        if fits:
            path = aside[fits[0]]
            return row, (
                f"{path} lies there, but files of its suffix are not read ({unread[path]}); "
                "convert it, or name it by the suffix of what it is"
            )
    return None


def _tails(path: str) -> tuple[str, ...]:
    """Return what an id may call a file that is not read: `t/a.jxl`, `a.jxl`, `t/a`, `a`."""
    suffix = suffix_of(path)
    stem = [path.removesuffix(path[-len(suffix) :])] if suffix not in ("", TEXT_SUFFIX) else []
    parts = [name.split("/") for name in (path, *stem)]
    return tuple("/".join(words[start:]) for words in parts for start in range(len(words)))


def _where(sample: Sample, row: int) -> str:
    return f"{sample.where}: {sample.row_names[row]}: id {sample.layout.item_ids[row]!r}"


def _is_sample(entry: Entry) -> bool:
    name = PurePosixPath(entry.logical).stem.lower().replace("_", "").replace("-", "")
    return entry.suffix in (".csv", ".tsv") and name.startswith(
        ("samplesubmission", "submissionformat")
    )


def _read_sample(root: Path, entry: Entry, config: DatasetConfig, on_disk: OnDisk) -> Sample:
    where = str(root / entry.path)
    rows = read_rows(root, entry, on_disk)
    if rows is None:
        raise UserError(f"{where}: no list of files, want rows of an id and an answer")
    given = config.submission
    for key, column in (("id_column", given.id_column), ("label_column", given.label_column)):
        if column is not None and column not in rows.columns:
            raise unknown_name(f"column (submission.{key}) of {where}:", column, rows.columns)
    header = bool(rows.attrs["header"])
    id_column = given.id_column or ("filename" if not header else str(rows.columns[0]))
    others = [str(column) for column in rows.columns if column != id_column]
    label_column = given.label_column or (others[0] if others else "label")
    if len(others) > 1 or label_column == id_column or not (others or given.file):
        raise UserError(
            f"{where}: its columns are {list(rows.columns)}, want two: an id and an answer"
        )
    if rows.empty:
        raise UserError(f"{where}: it has a header and no rows")
    ids = rows[id_column]
    check_ids(where, ids)
    answers = rows[label_column] if others else pd.Series([""])
    names, notes = _label_names(where, answers, config)
    if not (given.label_names or config.labels) and normalise(label_column) in MEANS_REAL:
        raise UserError(
            f"{where}: does 1 in column {label_column!r} mean real? Say in dataset.yaml how real "
            "and fake are written: `submission: {label_names: ['1', '0']}`, or else "
            "`submission: {label_names: ['0', '1']}`"
        )
    if rows.attrs["separator"] != "," and others:
        mark = rows.attrs["separator"]
        notes.append(f"{where} is separated by {mark!r}; the submission is written with commas")
    if not header:
        notes.append(f"{where} has no header, and neither will the submission")
    layout = SubmissionFormat(id_column, label_column, ids.tolist(), names, header)
    return Sample(where, rows.index.tolist(), layout, notes)


def _label_names(
    where: str, values: pd.Series, config: DatasetConfig
) -> tuple[tuple[str, str], list[str]]:
    """Find out how the answers are written: `0`/`1`, or the competition's own two words."""
    if config.submission.label_names is not None:
        return config.submission.label_names, []
    written = list(dict.fromkeys(values))
    numbers = pd.to_numeric(values, errors="coerce")
    if all(value == "" for value in written) or not numbers.isna().any():
        notes = []
        if not numbers.isin([0, 1]).all() and not numbers.isna().any():
            notes.append(
                f"{where} holds numbers other than 0 and 1 (the first rows: "
                f"{', '.join(written[:3])}): if the competition wants probabilities, note that "
                "submissions here are decisions, 0 or 1"
            )
        return answer_names(config), notes
    words = make_label_map(config.labels)
    by_label = {words.get(value): value for value in written}
    if set(by_label) == {0, 1} and len(written) == 2:
        return (by_label[0], by_label[1]), []
    one, two = written if len(written) == 2 else ("REAL", "FAKE")
    raise UserError(
        f"{where}: its answers are {', '.join(map(repr, written[:4]))}; say in dataset.yaml how "
        f"real and fake are written: `submission: {{label_names: [{one}, {two}]}}`"
        + (f" if {one} is real, else `submission: {{label_names: [{two}, {one}]}}`"
           if len(written) == 2 else "")
    )  # fmt: skip
