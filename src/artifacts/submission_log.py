"""The book of submissions: `submissions/log.csv`."""

import datetime
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from src.artifacts.files import file_lock, read_csv, read_json, sha256_file, write_csv
from src.errors import UserError

COLUMNS = ["time", "data", "recipe", "rows", "share_fake", "in_sample", "cross_fitted", "low",
           "high", "incumbent", "public", "note", "sha256"]  # fmt: skip
NUMBERS = ["rows", "share_fake", "in_sample", "cross_fitted", "low", "high", "incumbent", "public"]


@dataclass(frozen=True)
class Entry:
    """One line of the book; None where a number is not known."""

    time: str
    data: str
    recipe: str
    rows: int
    share_fake: float
    in_sample: float | None
    cross_fitted: float | None
    low: float | None
    high: float | None
    incumbent: float | None
    public: float | None
    note: str
    sha256: str

    @classmethod
    def of(cls, path: Path, data: str, recipe: str, public: float | None, note: str) -> "Entry":
        """Make the line of a submission from its sidecar.

        Raises:
            UserError: no sidecar, or one that is not readable.
        """
        sidecar = read_json(path.with_suffix(".json"), schema=1, what="submission sidecar")
        scores = sidecar.get("scores") or {}
        low, high = scores.get("interval") or (None, None)
        return cls(
            time=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            data=data,
            recipe=recipe,
            rows=sidecar["rows"],
            share_fake=sidecar["share_fake"],
            in_sample=scores.get("in_sample"),
            cross_fitted=scores.get("cross_fitted"),
            low=low,
            high=high,
            incumbent=scores.get("incumbent"),
            public=public,
            note=" ".join(note.split()),
            sha256=sha256_file(path),
        )


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
    return table


def add_entry(path: Path, entry: Entry) -> None:
    """Add a line; the same file handed in again keeps its line, with what is new filled in."""
    with file_lock(path.with_suffix(".lock"), "the submission log", wait=True):
        table = read_log(path)
        new = pd.DataFrame([asdict(entry)], columns=pd.Index(COLUMNS))
        same = (table["sha256"] == entry.sha256) & (table["data"] == entry.data)
        if same.any():
            row = table.index[same][0]
            if entry.public is not None:
                table.loc[row, "public"] = entry.public
            if entry.note:
                table.loc[row, "note"] = entry.note
        else:
            table = new if table.empty else pd.concat([table, new], ignore_index=True)
        write_csv(path, table)
