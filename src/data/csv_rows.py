"""A CSV as rows of strings that know their line numbers."""

import codecs
import csv
import io
from collections import Counter
from pathlib import Path

import pandas as pd

from src.data.images import UnreadableImageError
from src.data.sources import Entry, read_bytes
from src.errors import UserError

_EMPTY = frozenset({"", "nan", "none", "null", "na", "n/a"})


def read_table(root: Path, entry: Entry) -> pd.DataFrame:
    """Read a CSV as spreadsheets write it: UTF-8 or UTF-16, separated by `,`, `;` or tabs.

    Returns:
        Every value a string, blanks around it cut off; the index is `row <line number>`;
        `attrs["separator"]` is what separates the columns.

    Raises:
        UserError: not readable, not text, not a CSV, a row with too many or too few fields, a
            column twice.
    """
    where = root / entry.path
    text = _decode(root, entry)
    separator = _separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        lines = [(reader.line_num, line) for line in reader if line]
    except csv.Error as error:
        raise UserError(f"{where}: line {reader.line_num} is not CSV ({error})") from None
    if not lines:
        raise UserError(f"{where}: empty, want a header and rows")
    header = [name.strip() for name in lines[0][1]]
    for number, line in lines:
        if len(line) != len(header):
            raise UserError(
                f"{where}: row {number} has {len(line)} fields, the header has {len(header)}"
            )
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise UserError(f"{where}: column {twice[0]!r} stands twice in the header")
    table = pd.DataFrame(
        [[value.strip() for value in line] for _, line in lines[1:]],
        index=pd.Index([f"row {number}" for number, _ in lines[1:]]),
        columns=pd.Index(header),
        dtype=object,
    )
    table.attrs["separator"] = separator
    return table


def _decode(root: Path, entry: Entry) -> str:
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
