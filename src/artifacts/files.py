"""Every shared file: CSV and JSON, written whole, read strictly; their fingerprints."""

import csv
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src.artifacts.atomic import atomic_path
from src.errors import UserError

SEAL = "sha256"  # key of a JSON's own fingerprint
_LARGEST = 2**53  # above it a float64 skips whole numbers


def write_text(
    path: Path, text: str, *, new: bool = False, before: Callable[[], None] | None = None
) -> None:
    r"""Write UTF-8 text with `\n` line ends, whole or not at all.

    `new` refuses to replace a file, with a FileExistsError; `before` is called when all is
    written, before it is moved into place.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        if before is not None:
            before()
        if new:
            _claim(temporary, path)


def _claim(temporary: Path, path: Path) -> None:
    """Put a finished file where none may be yet; raises FileExistsError where one is."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        path.open("x").close()


def write_csv(path: Path, table: pd.DataFrame, *, new: bool = False) -> None:
    r"""Write a table as CSV: UTF-8, `\n`, header, no index, floats in their exact repr."""
    write_text(path, csv_text(table), new=new)


def csv_text(table: pd.DataFrame, *, header: bool = True) -> str:
    """Return what `write_csv` writes."""
    text = table.to_csv(index=False, lineterminator="\n", header=header)
    if "\r" in text:  # a name with a carriage return, which is quoted only if all text is
        quoted = csv.QUOTE_NONNUMERIC
        text = table.to_csv(index=False, lineterminator="\n", header=header, quoting=quoted)
    return text


def read_csv(path: Path, columns: Sequence[str], *, what: str) -> pd.DataFrame:
    """Read a CSV whose header is exactly `columns`, in that order; every value stays a string.

    Raises:
        UserError: it is missing, not a CSV, has another header, or a row has too many or too few
            fields (which pandas would shift or fill up); calls the file `what`.
    """
    import pyarrow as pa  # slow to import
    from pyarrow import csv

    ragged: list[csv.InvalidRow] = []

    def note(row: csv.InvalidRow) -> str:
        ragged.append(row)
        return "skip"

    text = _read_utf8(path, what, "CSV")
    if text.count('"') % 2:  # pyarrow takes what is left of such a file for the field
        raise UserError(f"{path}: this {what} is not a readable CSV (a quote is not closed)")
    try:
        table = csv.read_csv(
            pa.BufferReader(text.encode() + b"\n"),
            read_options=csv.ReadOptions(use_threads=False),  # else rows have no numbers
            parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: this {what} is not a readable CSV ({error})") from None
    if table.column_names != list(columns):
        raise UserError(f"{path}: columns are {table.column_names}, want {list(columns)}")
    for row in ragged:
        number, found = row.number, row.actual_columns
        raise UserError(f"{path}: row {number} has {found} fields, want {len(columns)}")
    return pd.DataFrame({name: table[name].to_pandas().astype(str) for name in columns})


def _read_utf8(path: Path, what: str, form: str) -> str:
    """Return a file's text; raises UserError where it is missing, forbidden or not text."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such {what}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: this {what} is not a readable {form} ({error})") from None
    if "\0" in text:
        raise UserError(f"{path}: this {what} is not a readable {form} (it holds NUL bytes)")
    return text


def parse_column(
    table: pd.DataFrame, column: str, kind: type[int] | type[float], path: Path
) -> pd.Series:
    """Turn a column of strings into int64 or finite float64.

    Raises:
        UserError: a value is not such a number; names file, row (header is row 1) and value.
    """
    numbers = pd.to_numeric(table[column], errors="coerce").astype("float64")
    bad = ~np.isfinite(numbers.to_numpy())
    if kind is int:
        bad |= ((numbers != numbers.round()) | (numbers.abs() > _LARGEST)).to_numpy()
    if bad.any():
        row = int(bad.argmax())
        want = "a whole number" if kind is int else "a finite number"
        value = table[column].iloc[row]
        raise UserError(f"{path}: row {row + 2}: {column} is {value!r}, want {want}")
    if kind is int:
        return numbers.astype("int64")
    # float() is exact for repr; pandas' fast parser may be one unit off in the last place.
    return table[column].map(float).astype("float64")


def check_unique(table: pd.DataFrame, column: str, path: Path) -> None:
    """Raise a UserError naming the first value that stands twice in a column."""
    twice = table[column].duplicated()
    if twice.any():
        row = int(twice.to_numpy().argmax())
        value = table[column].iloc[row]
        first = int((table[column] == value).to_numpy().argmax())
        raise UserError(
            f"{path}: row {row + 2}: {column} {value!r} stands already in row {first + 2}"
        )


def write_json(
    path: Path,
    record: Mapping[str, Any],
    *,
    seal: bool = False,
    before: Callable[[], None] | None = None,
) -> None:
    """Write a JSON object; NaN and infinity are refused, since JSON has none.

    A `seal` adds `sha256`, the fingerprint of everything else in it: `read_json(sealed=True)` then
    tells a file that was edited or damaged. `before`: see `write_text`.
    """
    text = sealed_text(record) if seal else _json_text(record)
    write_text(path, text, before=before)


def sealed_text(record: Mapping[str, Any]) -> str:
    """Return what `write_json` writes with a seal, for what is written elsewhere than on a disk."""
    return _json_text({**record, SEAL: _seal(record)})


def _json_text(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def read_json(
    path: Path,
    *,
    schema: int,
    what: str,
    keys: Sequence[str] | None = None,
    sealed: bool = False,
) -> dict[str, Any]:
    """Read a JSON object with a `schema` number, its seal checked and left out if it is `sealed`.

    Raises:
        UserError: missing, not JSON, another schema, other `keys` beside the schema and the seal,
            or not what was written; calls the file `what`.
    """
    text = _read_utf8(path, what, "JSON")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: this {what} is not readable JSON ({error})") from None
    if not isinstance(record, dict) or record.get("schema") != schema:
        found = record.get("schema") if isinstance(record, dict) else type(record).__name__
        raise UserError(f"{path}: this {what} has schema {found!r}, this version reads {schema}")
    seal = record.pop(SEAL, None) if sealed else None
    if keys is not None:
        wrong = set(record) ^ {"schema", *keys}
        if wrong:
            more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            keys = f"{sorted(wrong)[:5]}{more}"
            raise UserError(f"{path}: {what} has missing or unknown keys: {keys}")
    if sealed and seal != _seal(record):
        raise UserError(f"{path}: this {what} is not what was written (edited, or damaged)")
    return record


def _seal(record: Mapping[str, Any]) -> str:
    return sha256_json(json.loads(json.dumps(record)))  # keys as JSON has them: strings


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:  # noqa: ANN401 - anything json.dumps takes
    """Return the SHA-256 of a value's canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
