"""The book of submissions: `submissions/log.csv`."""

import datetime
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass

from src.artifacts.atomic import file_lock
from src.artifacts.files import read_csv, read_json, sha256_file, write_csv
from src.errors import UserError
from src.strict_yaml import Float, Int, checked

NUMBERS = ["rows", "share_fake", "in_sample", "cross_fitted", "low", "high", "incumbent", "public"]
_BOUNDS = {"log_loss": (0, math.inf), "mcc": (-1, 1)}  # of metrics that do not go from 0 to 1
_SOME = ConfigDict(extra="ignore", allow_inf_nan=False)  # sidecars say more than the book wants


@checked_dataclass(frozen=True, config=_SOME)
class _ScoreKeys:
    in_sample: Float | None = None
    cross_fitted: Float | None = None
    interval: Annotated[list[Float], Field(min_length=2, max_length=2)] | None = None
    incumbent: Float | None = None


@checked_dataclass(frozen=True, config=_SOME)
class _Prior:
    method: str = ""


@checked_dataclass(frozen=True, config=_SOME)
class _LeftOutKeys:
    checkpoints: list[str]


@checked_dataclass(frozen=True, config=_SOME)
class _HoldsKeys:
    output: str = ""


@checked_dataclass(frozen=True, config=_SOME)
class _Sidecar:
    """What the book wants of the JSON beside a submission."""

    submission_sha256: str
    metric: str | None = None
    holds: _HoldsKeys | None = None
    rows: Int | None = None
    share_fake: Float | None = None
    scores: _ScoreKeys | None = None
    voted: list[Any] | None = None
    prior: _Prior | None = None
    refit: Any = None
    left_out: _LeftOutKeys | None = None

    @property
    def caveats(self) -> tuple[str, ...]:
        """Return what parts a submission from its recipe as scored."""
        found = []
        if self.voted is not None:
            found.append(f"vote of {len(self.voted)} files")
        if self.prior is not None:
            found.append(f"prior {self.prior.method}".strip())
        if self.refit:
            found.append("refit")
        if self.left_out is not None:
            found.append(f"left out {', '.join(self.left_out.checkpoints)}")
        return tuple(found)


@dataclass(frozen=True)
class Submitted:
    """One line of the book; None where a number is not known."""

    time: str
    data: str
    recipe: str
    metric: str  # that the scores are of
    output: str  # what the answers are: label, prob or rank
    rows: int | None
    share_fake: float | None
    in_sample: float | None
    cross_fitted: float | None
    low: float | None  # of the interval round `cross_fitted`
    high: float | None
    incumbent: float | None
    public: float | None  # the leaderboard's
    note: str
    sha256: str  # of the CSV

    @classmethod
    def of(cls, path: Path, data: str, recipe: str, public: float | None) -> "Submitted":
        """Make the line of a submission from its sidecar; the note says what the sidecar does.

        Raises:
            UserError: a public score that the metric cannot have; no sidecar, one that is not
                readable, or a value of a wrong kind there; names file and key.
        """
        file = path.with_suffix(".json")
        content = read_json(file, schema=1, what="submission sidecar")
        sidecar = checked(content, _Sidecar, str(file))
        sha256 = sha256_file(path)
        if sidecar.submission_sha256 != sha256:
            raise UserError(
                f"{file} is not about {path} as it is now (changed since, or another's); predict "
                "or vote again, and log what was handed in"
            )
        _check_public(public, sidecar.metric)
        scores = sidecar.scores or _ScoreKeys()
        low, high = scores.interval or (None, None)
        return cls(
            time=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            data=data,
            recipe=recipe,
            metric=sidecar.metric or "",
            output=sidecar.holds.output if sidecar.holds else "",
            rows=sidecar.rows,
            share_fake=sidecar.share_fake,
            in_sample=scores.in_sample,
            cross_fitted=scores.cross_fitted,
            low=low,
            high=high,
            incumbent=scores.incumbent,
            public=public,
            note="; ".join(sidecar.caveats),
            sha256=sha256,
        )


def _check_public(score: float | None, metric: str | None) -> None:
    low, high = _BOUNDS.get(metric or "", (0, 1))
    if score is not None and not low <= score <= high:
        of = f" of {metric}" if metric else ""
        most = f"from {low} to {high}" if math.isfinite(high) else f"of {low} or more"
        raise UserError(f"--public {score}: want a score{of} {most}")


COLUMNS = [field.name for field in fields(Submitted)]


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


def add_submission(path: Path, submitted: Submitted, note: str = "") -> None:
    """Add a line; the same file handed in again keeps its line, with what is new filled in.

    Args:
        path: the book.
        submitted: the line.
        note: of the user's; what the entry's own note says comes after it.
    """
    note = "; ".join(filter(None, (" ".join(note.split()), submitted.note)))
    with file_lock(path.with_suffix(".lock"), "the submission log", wait=True):
        table = read_log(path)
        new = pd.DataFrame([asdict(submitted) | {"note": note}], columns=pd.Index(COLUMNS))
        new = new.astype(dict.fromkeys(NUMBERS, "float64") | {"rows": "Int64"})
        same = (table["sha256"] == submitted.sha256) & (table["data"] == submitted.data)
        if same.any():
            row = table.index[same][0]
            if submitted.public is not None:
                table.loc[row, "public"] = submitted.public
            if note != submitted.note:
                table.loc[row, "note"] = note
        else:
            table = new if table.empty else pd.concat([table, new], ignore_index=True)
        write_csv(path, table)
