"""The CSV and JSON of a data set: rows of strings that know their lines, keys that stand twice."""

import codecs
import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from src.data.items.files import read_bytes
from src.data.items.listing import Entry
from src.data.items.manifest import STRING
from src.errors import UnreadableImageError, UserError

Line = tuple[int, list[str]]  # number of the line, and its fields
_EMPTY = frozenset({"", "nan", "none", "null", "na", "n/a"})


def read_table(
    root: Path, entry: Entry, headerless: Callable[[Sequence[Line]], bool] | None = None
) -> pd.DataFrame:
    """Read a CSV as spreadsheets write it: UTF-8 or UTF-16, separated by `,`, `;` or tabs.

    Every value is a string, blanks around it cut off; the index is `row <line number>`;
    `attrs["separator"]` is what separates the columns, `attrs["header"]` whether there is one
    (without: `column_1`, ...), which `headerless` tells of the first rows.

    Raises:
        UserError: not readable, not text, not a CSV, a row with too many or too few fields, a
            column twice.
    """
    where = root / entry.path
    text = read_text(root, entry)
    separator = _separator(text)
    rows = split_rows(where, text, separator)
    if not rows:
        raise UserError(f"{where}: empty, want a header and rows")
    header = None if headerless is not None and headerless(rows) else rows.pop(0)[1]
    return make_table(where, rows, header or names_of(rows), separator, header=header is not None)


def split_rows(where: Path, text: str, separator: str) -> list[Line]:
    """Split a CSV into rows; blanks around a value are cut off, empty lines left out."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        return [(reader.line_num, [value.strip() for value in line]) for line in reader if line]
    except csv.Error as error:
        raise UserError(f"{where}: line {reader.line_num} is not CSV ({error})") from None


def make_table(
    where: Path, rows: Sequence[Line], columns: list[str], separator: str, *, header: bool
) -> pd.DataFrame:
    """Return rows as a table, as `read_table` does."""
    for number, line in rows:
        if len(line) != len(columns):
            first = "the header" if header else "the first row"
            raise UserError(
                f"{where}: row {number} has {len(line)} fields, {first} has {len(columns)}"
            )
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise UserError(f"{where}: column {twice[0]!r} stands twice in the header")
    # In Arrow's memory: a million rows of three cells are 200 MB of Python's strings.
    cells = {at: _words([line[at] for _, line in rows]) for at in range(len(columns))}
    index = pd.Index(_words([f"row {number}" for number, _ in rows]))
    table = pd.DataFrame(cells, index, copy=False)
    table.columns = pd.Index(columns, dtype=object)
    table.attrs |= {"separator": separator, "header": header}
    return table


def _words(texts: list[str]) -> pd.api.extensions.ExtensionArray:
    make: Any = STRING
    return make.__from_arrow__(pa.chunked_array([pa.array(texts, pa.large_string())]))


def names_of(rows: Sequence[Line]) -> list[str]:
    """Name the columns of rows without a header: `column_1`, `column_2`, ..."""
    return [f"column_{number + 1}" for number in range(len(rows[0][1]))]


def read_text(root: Path, entry: Entry) -> str:
    """Read a table or a list as text, UTF-8 or UTF-16; a UserError where it is none."""
    where = root / entry.path
    try:
        data = read_bytes(root, entry.path)
    except UnreadableImageError as error:
        raise UserError(f"{where}: not readable ({error})") from None
    encoding = (
        "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    )
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 ({error}); save it as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(
            f"{where}: line {line} holds a NUL byte, which no text does; save it as UTF-8"
        )
    return text


def _separator(text: str) -> str:
    """Return what separates the header's columns; a comma wherever there is one."""
    header = text[: max(0, text.find("\n"))] or text
    found = [mark for mark in (",", ";", "\t") if mark in header]
    return found[0] if found else ","


def is_empty(value: str) -> bool:
    """Return whether a CSV's value says that there is nothing."""
    return value.lower() in _EMPTY


def load_json(root: Path, entry: Entry) -> tuple[Any, list[str]]:
    """Return the content of a JSON file, and the keys that stand twice with different values.

    Raises:
        UserError: not readable as JSON.
    """
    twice: list[str] = []

    def make(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in pairs:
            if key in made and made[key] != value:
                twice.append(key)
            made[key] = value
        return made

    try:
        text = read_bytes(root, entry.path).decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=make), twice
    except (ValueError, RecursionError) as error:
        raise UserError(f"{root / entry.path}: not readable JSON ({error})") from None


def refuse_doubles(where: str, twice: list[str]) -> None:
    """Raise a UserError if keys stand twice."""
    if twice:
        raise UserError(
            f"{where}: {len(twice)} keys stand twice in one object with different values, the "
            f"first is {twice[0]!r}: which one holds? Take the other out"
        )
