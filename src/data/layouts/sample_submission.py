"""The sample submission: ids, columns, order, and how labels are written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import pandas as pd

from src.artifacts.submissions import SubmissionFormat
from src.data.items.files import suffix_of
from src.data.items.folder import Folder
from src.data.items.listing import TEXT_SUFFIX, Entry
from src.data.items.manifest import answer_names
from src.data.items.words import normalise
from src.data.layouts.finder import FileIndex
from src.data.layouts.lists import read_rows
from src.data.layouts.table_columns import MEANS_REAL, Table
from src.errors import UserError, unknown_name


@dataclass(frozen=True)
class Sample:
    """A sample submission as read."""

    table: Table
    layout: SubmissionFormat  # what to hand in
    notes: list[str]  # what was understood

    def at(self, row: int) -> str:
        """Return where a row (its number) stands, and its id, for messages."""
        return f"{self.table.at(row)}: id {self.layout.item_ids[row]!r}"


def find_sample(folder: Folder) -> tuple[Sample | None, list[Entry]]:
    """Find and read the sample submission; returns it, and all other tables and texts.

    Raises:
        UserError: several samples, no two columns, an id twice or empty, answers not understood.
    """
    tables = [*folder.listing.tables, *folder.listing.texts]
    wanted = folder.config.submission.file
    samples = [e for e in tables if (e.logical == wanted if wanted else _is_sample(e))]
    if wanted and not samples:
        where = folder.root / "dataset.yaml"
        raise unknown_name(f"submission.file in {where}:", wanted, [e.logical for e in tables])
    if len(samples) > 1:
        raise UserError(
            f"{folder.root}: {' and '.join(e.path for e in samples)} are both sample submissions; "
            f"say which in dataset.yaml: `submission: {{file: {samples[0].logical}}}`"
        )
    rest = [entry for entry in tables if entry not in samples and not _is_sample(entry)]
    return (_read_sample(folder, samples[0]) if samples else None), rest


def match_sample(sample: Sample, index: FileIndex, unread: Mapping[str, str]) -> dict[int, str]:
    """Return file -> id for all ids of a sample; `unread` tells of files that are left aside.

    Raises:
        UserError: an id fits no file or several, or two ids fit one file; names file and row.
    """
    found: dict[int, str] = {}
    missing: list[int] = []
    for row, item_id in enumerate(sample.layout.item_ids):
        fits = index.find(item_id)
        if not fits:
            missing.append(row)
        elif len(fits) > 1:
            many = f"fits {len(fits)} test files; the sample must give paths"
            raise UserError(f"{sample.at(row)} {many}")
        elif fits[0] in found:
            raise UserError(f"{sample.at(row)} and id {found[fits[0]]!r} fit the same test file")
        else:
            found[fits[0]] = item_id
    if missing:
        row, why = left_aside(sample, missing, unread) or (missing[0], "")
        raise UserError(
            f"{sample.at(row)} has no file among the test items ({len(missing)} such ids of "
            f"{len(sample.layout.item_ids)}): {why or 'is the test archive complete?'}"
        )
    return found


def left_aside(
    sample: Sample, rows: Sequence[int], unread: Mapping[str, str]
) -> tuple[int, str] | None:
    """Return the first of some rows that fit no item whose file is not read, and what to do."""
    aside = list(unread)
    index = FileIndex((number, _tails(path)) for number, path in enumerate(aside))
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


def _is_sample(entry: Entry) -> bool:
    name = PurePosixPath(entry.logical).stem.lower().replace("_", "").replace("-", "")
    return entry.suffix in (".csv", ".tsv") and name.startswith(
        ("samplesubmission", "submissionformat")
    )


def _read_sample(folder: Folder, entry: Entry) -> Sample:
    where, given = folder.where(entry), folder.config.submission
    rows = read_rows(folder, entry)
    if rows is None:
        raise UserError(f"{where}: no list of files, want rows of an id and an answer")
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
    table = Table(where, rows, folder.config)
    table.check_ids(id_column)
    answers = rows[label_column] if others else pd.Series([""])
    names, notes = _label_names(where, answers, folder)
    if not (given.label_names or folder.config.labels) and normalise(label_column) in MEANS_REAL:
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
    layout = SubmissionFormat(id_column, label_column, rows[id_column].tolist(), names, header)
    return Sample(table, layout, notes)


def _label_names(
    where: str, values: pd.Series, folder: Folder
) -> tuple[tuple[str, str], list[str]]:
    """Find out how the answers are written: `0`/`1`, or the competition's own two words."""
    if folder.config.submission.label_names is not None:
        return folder.config.submission.label_names, []
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
        return answer_names(folder.config), notes
    by_label = {folder.labels.get(value): value for value in written}
    if set(by_label) == {0, 1} and len(written) == 2:
        return (by_label[0], by_label[1]), []
    one, two = written if len(written) == 2 else ("REAL", "FAKE")
    other = f" if {one} is real, else `submission: {{label_names: [{two}, {one}]}}`"
    raise UserError(
        f"{where}: its answers are {', '.join(map(repr, written[:4]))}; say in dataset.yaml how "
        f"real and fake are written: `submission: {{label_names: [{one}, {two}]}}`"
        f"{other * (len(written) == 2)}"
    )
