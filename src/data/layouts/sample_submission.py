"""The sample submission: ids, columns, order, and how labels are written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import pandas as pd

from src.artifacts.answers import Asked, answer_columns, asks_for_prob
from src.artifacts.submissions import SubmissionFormat
from src.data.items.dataset_yaml import DatasetConfig
from src.data.items.files import suffix_of
from src.data.items.folder import Folder
from src.data.items.listing import TEXT_SUFFIX, Entry
from src.data.items.manifest import answer_names, check_direction, is_number, summary
from src.data.layouts.finder import FileIndex
from src.data.layouts.lists import read_rows
from src.data.layouts.table_columns import Table
from src.errors import UserError, unknown_name

_LOOKED_AT = 50  # rows that tell which column holds ids


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
    ids = sample.layout.item_ids
    for row, (item_id, fits) in enumerate(zip(ids, index.find_all(ids), strict=True)):
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
    index = FileIndex(range(len(aside)), lambda number: _tails(aside[number]))
    found = index.find_all([sample.layout.item_ids[row] for row in rows]) if aside else ()
    for row, fits in zip(rows, found, strict=bool(aside)):
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
    for key, column in (("id_column", given.id_column), ("answer_column", given.answer_column)):
        if column is not None and column not in rows.columns:
            raise unknown_name(f"column (submission.{key}) of {where}:", column, rows.columns)
    header = bool(rows.attrs["header"])
    id_column = given.id_column or ("filename" if not header else _id_column(folder, rows))
    answer_column = _answer_column(where, rows, id_column, folder)
    if rows.empty:
        raise UserError(f"{where}: it has a header and no rows")
    table = Table(where, rows, folder.config)
    table.check_ids(id_column)
    others = [str(column) for column in rows.columns if column not in (id_column, answer_column)]
    answers = rows[answer_column] if answer_column else pd.Series([""])
    names, notes = _label_names(where, answers, folder)
    check_direction(where, answer_column, names, folder.config)
    if rows.attrs["separator"] != "," and len(rows.columns) > 1:
        mark = rows.attrs["separator"]
        notes.append(f"{where} is separated by {mark!r}; the submission is written with commas")
    if not header:
        notes.append(f"{where} has no header, and neither will the submission")
    if others:
        kept = f"{', '.join(others)} as in the sample"
        notes.append(f"submission: {answer_column} is the answer; {kept}")
    layout = SubmissionFormat(
        id_column,
        answer_column,
        rows[id_column].tolist(),
        names,
        header,
        further={name: rows[name].tolist() for name in others},
        columns=tuple(map(str, rows.columns)) if answer_column else (),
        asked=_asked(table.name, answer_column or "", answers, folder),
    )
    return Sample(table, layout, [_summary(table.name, layout, folder.config), *notes])


def _id_column(folder: Folder, rows: pd.DataFrame) -> str:
    """Return the column of ids: the first, unless it names no file and another one does."""
    head = rows.iloc[:_LOOKED_AT]
    hits = {str(name): sum(map(folder.has_named, head[name])) for name in rows.columns}
    first = next(iter(hits))
    return first if hits[first] or len(hits) < 3 else max(hits, key=lambda name: hits[name])


def _answer_column(where: str, rows: pd.DataFrame, id_column: str, folder: Folder) -> str | None:
    """Return the column of answers; None of a list of ids that dataset.yaml calls the sample."""
    given = folder.config.submission
    others = [str(column) for column in rows.columns if column != id_column]
    if given.answer_column is not None and given.answer_column != id_column:
        return given.answer_column
    if given.answer_column == id_column or not (others or given.file):
        raise UserError(
            f"{where}: its columns are {list(rows.columns)}, want two or more: an id and an answer"
        )
    found = answer_columns(others) if len(others) > 1 else others
    if len(found) == 1 or not others:
        return found[0] if found else None
    ways = " or ".join(f"`submission: {{answer_column: {name}}}`" for name in found or others)
    raise UserError(
        f"{where}: which of the columns {', '.join(others)} is the answer? Say in dataset.yaml: "
        f"{ways}; the others are written as they are"
    )


def _label_names(
    where: str, values: pd.Series, folder: Folder
) -> tuple[tuple[str, str], list[str]]:
    """Find out how the answers are written: `0`/`1`, or the competition's own two words."""
    if folder.config.submission.label_names is not None:
        return folder.config.submission.label_names, []
    written = list(dict.fromkeys(values))
    numbers = pd.to_numeric(values, errors="coerce")
    if all(value == "" for value in written) or not numbers.isna().any():
        known = values.map(folder.labels.get).notna() | numbers.between(0, 1)
        odd = [] if numbers.isna().any() else values[~known].tolist()
        note = f"{where} holds neither labels nor probabilities, such as {''.join(odd[:1])}: taken "
        return answer_names(folder.config), [note + "for what is to be written over"] * bool(odd)
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


def _asked(name: str, column: str, answers: pd.Series, folder: Folder) -> Asked | None:
    """Tell by a sample's answers, or else by the name of their column, what it asks for."""
    given = folder.config.submission.label_names
    words = [word for word in given or () if not is_number(word)]
    if words:
        return Asked("label", f"dataset.yaml writes the answers as {' and '.join(given or ())}")
    numbers = pd.to_numeric(answers, errors="coerce")
    said = ", ".join(dict.fromkeys(answers[numbers.isna() & (answers != "")][:3]))
    if said:
        return Asked("label", f"{name} holds the answers {said}")
    between = answers[(numbers > 0) & (numbers < 1)]
    if len(between):
        return Asked("prob", f"{name} holds answers such as {between.iloc[0]}")
    if asks_for_prob(column):
        return Asked("prob", f"{name} calls its answers {column!r}")
    return None


def _summary(name: str, layout: SubmissionFormat, config: DatasetConfig) -> str:
    """Say what is to be handed in; a WARNING where metric and sample contradict each other."""
    try:
        return f"submission: {name}, {len(layout.item_ids)} rows of {summary(layout, config)}"
    except UserError as error:
        return f"WARNING {error}"
