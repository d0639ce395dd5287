"""The book of submissions: `submissions/log.csv`."""

import datetime
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from src.artifacts.atomic import file_lock
from src.artifacts.files import read_csv, read_json, sha256_file, write_csv
from src.errors import UserError

COLUMNS = ["time", "data", "recipe", "rows", "share_fake", "in_sample", "cross_fitted", "low",
           "high", "incumbent", "public", "note", "sha256"]  # fmt: skip
NUMBERS = ["rows", "share_fake", "in_sample", "cross_fitted", "low", "high", "incumbent", "public"]

KINDS = {int: "a whole number", float: "a finite number", str: "text", list: "a list",
         dict: "an object"}  # fmt: skip
T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One line of the book; None where a number is not known.

    `caveats` say what parts a submission from its recipe as scored; they go after the note.
    """

    time: str
    data: str
    recipe: str
    rows: int | None
    share_fake: float | None
    in_sample: float | None
    cross_fitted: float | None
    low: float | None
    high: float | None
    incumbent: float | None
    public: float | None
    note: str
    sha256: str
    caveats: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: Path, data: str, recipe: str, public: float | None, note: str) -> "Entry":
        """Make the line of a submission from its sidecar.

        Raises:
            UserError: no sidecar, one that is not readable, or a value of a wrong kind there;
                names file and key.
        """
        file = path.with_suffix(".json")
        sidecar = read_json(file, schema=1, what="submission sidecar")
        sha256 = sha256_file(path)
        if sidecar.get("submission_sha256") != sha256:
            raise UserError(
                f"{file} is not about {path} as it is now (changed since, or another's); predict "
                "or vote again, and log what was handed in"
            )
        scores = _get(sidecar, "scores", dict, file) or {}
        low, high = _interval(scores, file)
        return cls(
            time=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            data=data,
            recipe=recipe,
            rows=_get(sidecar, "rows", int, file),
            share_fake=_number(sidecar, "share_fake", file),
            in_sample=_number(scores, "in_sample", file),
            cross_fitted=_number(scores, "cross_fitted", file),
            low=low,
            high=high,
            incumbent=_number(scores, "incumbent", file),
            public=public,
            note=" ".join(note.split()),
            sha256=sha256,
            caveats=_caveats(sidecar, file),
        )

    @property
    def full_note(self) -> str:
        """Return the note with the caveats after it."""
        return "; ".join(filter(None, (self.note, *self.caveats)))


def _get(record: Mapping[str, Any], key: str, kind: type[T], file: Path) -> T | None:
    """Return a value of a sidecar; None where it is not there."""
    value = record.get(key)
    if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
        raise UserError(f"{file}: {key} is {value!r}, want {KINDS[kind]}; write it again")
    return value


def _number(record: Mapping[str, Any], key: str, file: Path) -> float | None:
    value = record.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    value = _get(record, key, float, file)
    if value is not None and not math.isfinite(value):
        raise UserError(f"{file}: {key} is {value!r}, want {KINDS[float]}; write it again")
    return value


def _interval(scores: Mapping[str, Any], file: Path) -> tuple[float | None, float | None]:
    ends = _get(scores, "interval", list, file)
    if ends is None:
        return None, None
    if len(ends) != 2:
        raise UserError(f"{file}: interval is {ends!r}, want two numbers; write it again")
    low, high = ({"interval": end} for end in ends)
    return _number(low, "interval", file), _number(high, "interval", file)


def _caveats(sidecar: Mapping[str, Any], file: Path) -> tuple[str, ...]:
    """Return what parts a submission from its recipe as scored."""
    found = []
    voted = _get(sidecar, "voted", list, file)
    if voted is not None:
        found.append(f"vote of {len(voted)} files")
    prior = _get(sidecar, "prior", dict, file)
    if prior is not None:
        found.append(f"prior {_get(prior, 'method', str, file) or ''}".strip())
    if sidecar.get("refit"):
        found.append("refit")
    left_out = _get(sidecar, "left_out", dict, file)
    if left_out is not None:
        names = _get(left_out, "checkpoints", list, file) or []
        found.append(f"left out {', '.join(map(str, names))}")
    return tuple(found)


def read_log(path: Path) -> pd.DataFrame:
    """Read the book; empty where there is none.

    Raises:
        UserError: not the book's columns, or a value that is no number; names row and value.
    """
    if not path.exists():
        return pd.DataFrame(columns=pd.Index(COLUMNS))
    table = read_csv(path, COLUMNS, what="submission log")
    for column in NUMBERS:
        number = pd.to_numeric(table[column], errors="coerce").astype("float64")
        bad = (number.isna() & (table[column] != "")).to_numpy()
        if bad.any():
            row = int(bad.argmax())
            value = table[column].iloc[row]
            raise UserError(f"{path}: row {row + 2}: {column} is {value!r}, want a number")
        table[column] = number
    broken = (table["rows"] % 1 > 0).to_numpy()
    if broken.any():
        row = int(broken.argmax())
        value = table["rows"].iloc[row]
        raise UserError(f"{path}: row {row + 2}: rows is {value!r}, want a whole number")
    table["rows"] = table["rows"].astype("Int64")
    return table


def add_entry(path: Path, entry: Entry) -> None:
    """Add a line; the same file handed in again keeps its line, with what is new filled in."""
    with file_lock(path.with_suffix(".lock"), "the submission log", wait=True):
        table = read_log(path)
        line = asdict(entry) | {"note": entry.full_note}
        new = pd.DataFrame([line], columns=pd.Index(COLUMNS))
        new = new.astype(dict.fromkeys(NUMBERS, "float64") | {"rows": "Int64"})
        same = (table["sha256"] == entry.sha256) & (table["data"] == entry.data)
        if same.any():
            row = table.index[same][0]
            if entry.public is not None:
                table.loc[row, "public"] = entry.public
            if entry.note:
                table.loc[row, "note"] = entry.full_note
        else:
            table = new if table.empty else pd.concat([table, new], ignore_index=True)
        write_csv(path, table)
