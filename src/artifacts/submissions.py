"""The submission CSV: exactly the columns, rows and order of the competition's sample."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from src.artifacts.answers import Asked, Holding, Names, Output, hold
from src.artifacts.atomic import atomic_path
from src.artifacts.files import csv_text, write_json
from src.errors import UserError


@dataclass(frozen=True)
class SubmissionFormat:
    """What a competition wants back."""

    id_column: str  # header of the key column
    answer_column: str | None  # header of the answers; None: nobody says, so it is what they are
    item_ids: list[str]  # every key, in the order of the sample submission
    label_names: Names = ("0", "1")  # what to write for label 0 and for label 1
    header: bool = True  # whether the columns are named in a first row
    # the sample's other columns and their cells, written as they are
    further: Mapping[str, Sequence[str]] = field(default_factory=dict)
    columns: tuple[str, ...] = ()  # all columns in order; empty: key and answer
    asked: Asked | None = None  # None where labels and probs would do alike

    def header_of(self, output: Output) -> list[str]:
        """Return the names of the columns, in order."""
        return list(self.columns or (self.id_column, self.answer_column or output))

    def table(self, output: Output, answers: Sequence[Any] | pd.Series) -> pd.DataFrame:
        """Return the rows to hand in, of (n,) answers in the order of the keys."""
        answer = self.answer_column or output
        cells = {**self.further, self.id_column: self.item_ids, answer: list(answers)}
        return pd.DataFrame({name: cells[name] for name in self.header_of(output)})


def write_submission(
    path: Path,
    layout: SubmissionFormat,
    votes: pd.DataFrame,
    sidecar: Mapping[str, Any],
    *,
    output: Output = "label",
    metric: str = "",
) -> Holding:
    """Check the votes against the sample, then write the CSV and its `.json` sidecar.

    Args:
        path: the CSV.
        layout: its columns, rows and order.
        votes: `prob` and `pred` as of `hold`, indexed by item_id, in any order.
        sidecar: what they were made from; `holds` is added, what the answer column holds.
        output, metric: as of `hold`.

    Raises:
        UserError: an id is missing, unknown or twice, an answer is wrong, or all items have the
            same prob or rank.
    """
    if not votes.index.is_unique:
        twice = votes.index[votes.index.duplicated()][0]
        raise UserError(f"{path}: test item {twice!r} was predicted twice")
    missing = pd.Index(layout.item_ids).difference(votes.index)
    if len(missing):
        raise UserError(
            f"{path}: {len(missing)} of the {len(layout.item_ids)} ids of the sample submission "
            f"have no prediction, the first is {missing[0]!r}"
        )
    unknown = votes.index.difference(pd.Index(layout.item_ids))
    if len(unknown):
        raise UserError(f"{path}: predicted item {unknown[0]!r} is not in the sample submission")
    try:
        answers, held = hold(votes.loc[layout.item_ids], layout.label_names, output, metric)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    refuse_constant(path, held)
    record = {**sidecar, "holds": held.record()}
    write_answers(path, layout.table(output, answers), record, header=layout.header)
    return held


def add_to_sidecar(path: Path, more: Mapping[str, Any]) -> None:
    """Add to the JSON beside a CSV of answers what was only found once it was written."""
    beside = path.with_suffix(".json")
    write_json(beside, json.loads(beside.read_text(encoding="utf-8")) | more)


def refuse_constant(path: Path, held: Holding) -> None:
    """Raise a UserError where all of several probs or ranks are equal: they say nothing."""
    if held.low is not None and held.rows > 1 and held.distinct == 1:
        raise UserError(
            f"{path}: all {held.rows} answers would be {held.low:.6g}, which ranks nothing: look "
            "at the test files, and at what each member says of them; nothing was written"
        )


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
