"""The submission CSV: exactly the columns, rows and order of the competition's sample."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from src.artifacts.atomic import atomic_path
from src.artifacts.files import csv_text, write_json
from src.errors import UserError


@dataclass(frozen=True)
class SubmissionFormat:
    """What a competition wants back."""

    id_column: str  # header of the key column
    label_column: str  # header of the answer column
    item_ids: list[str]  # every key, in the order of the sample submission
    label_names: tuple[str, str] = ("0", "1")  # what to write for label 0 and for label 1
    header: bool = True  # whether the columns are named in a first row

    @property
    def written(self) -> str:
        """Say how the two classes are written, for people."""
        return f"written as {self.label_names[0]} (real) and {self.label_names[1]} (fake)"


def write_submission(
    path: Path, layout: SubmissionFormat, preds: pd.Series, sidecar: dict[str, Any]
) -> pd.DataFrame:
    """Check the decisions against the sample, then write the CSV and its `.json` sidecar.

    `preds` are 0/1 decisions indexed by item_id, in any order; the sidecar says what they were made
    from. Returns the table as written.

    Raises:
        UserError: an id is missing, unknown or twice, or a decision is not 0/1.
    """
    if not preds.index.is_unique:
        twice = preds.index[preds.index.duplicated()][0]
        raise UserError(f"{path}: test item {twice!r} was predicted twice")
    missing = pd.Index(layout.item_ids).difference(preds.index)
    if len(missing):
        raise UserError(
            f"{path}: {len(missing)} of the {len(layout.item_ids)} ids of the sample submission "
            f"have no prediction, the first is {missing[0]!r}"
        )
    unknown = preds.index.difference(pd.Index(layout.item_ids))
    if len(unknown):
        raise UserError(f"{path}: predicted item {unknown[0]!r} is not in the sample submission")
    answer = preds.loc[layout.item_ids]
    if not answer.isin([0, 1]).all():
        raise UserError(f"{path}: a decision is not 0 or 1: {sorted(set(answer))}")
    table = pd.DataFrame(
        {
            layout.id_column: layout.item_ids,
            layout.label_column: [layout.label_names[int(pred)] for pred in answer],
        }
    )
    write_answers(path, table, sidecar, header=layout.header)
    return table


def write_answers(
    path: Path, table: pd.DataFrame, sidecar: Mapping[str, Any], *, header: bool = True
) -> None:
    """Write a CSV of answers, and before it the `.json` beside it, which names it by its SHA-256.

    A full disk leaves an older pair as it was. Killed in between, nothing is left that could be
    taken for a pair: an older CSV goes first.
    """
    text = csv_text(table, header=header)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    record = {"schema": 1, "submission_sha256": sha256, **sidecar}
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        write_json(path.with_suffix(".json"), record, before=lambda: path.unlink(missing_ok=True))
