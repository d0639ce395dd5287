"""A CSV as rows of strings that know their line numbers."""

import csv
import io
from pathlib import Path

import pandas as pd

from src.data.sources import Entry, read_bytes
from src.errors import UserError

_EMPTY = frozenset({"", "nan", "none", "null", "na", "n/a"})


def read_table(root: Path, entry: Entry) -> pd.DataFrame:
    """Read a CSV.

    Returns:
        Every value a string, blanks around it cut off; the index is `row <line number>`.

    Raises:
        UserError: not UTF-8, not a CSV, a row with too many or too few fields, a column twice.
    """
    where = root / entry.path
    try:
        text = read_bytes(root, entry.path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 ({error}); save it as UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
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
    for name in header:
        if header.count(name) > 1:
            raise UserError(f"{where}: column {name!r} stands twice in the header")
    return pd.DataFrame(
        [[value.strip() for value in line] for _, line in lines[1:]],
        index=pd.Index([f"row {number}" for number, _ in lines[1:]]),
        columns=pd.Index(header),
        dtype=object,
    )


def is_empty(value: str) -> bool:
    """Return whether a CSV's value says that there is nothing."""
    return value.lower() in _EMPTY
