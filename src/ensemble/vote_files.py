"""Hard voting of submission files: labels only, no out-of-fold predictions needed."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic.dataclasses import dataclass as checked_dataclass

from src.artifacts.files import read_csv
from src.ensemble.rule import TIE
from src.errors import UserError
from src.strict_yaml import STRICT, Float, Keys, read_model


@checked_dataclass(frozen=True, config=STRICT)
class _VoteKeys(Keys):
    path: str  # of a CSV, relative to the YAML
    weight: Float = 1.0  # how much it counts


@checked_dataclass(frozen=True, config=STRICT)
class _List(Keys):
    files: list[str | _VoteKeys]  # what is voted on


_WANT = "`files:`, a list of paths or of {path: P, weight: W}"


@dataclass(frozen=True)
class Ballots:
    """Submission files and how much each counts."""

    paths: list[Path]  # the CSVs
    weights: list[float]  # one each, > 0


def read_ballots(names: Sequence[str], weights: Sequence[float] | None) -> Ballots:
    """Take files as typed, or the list in one YAML.

    A YAML holds `files:`, a list of paths or of `{path: P, weight: W}`; paths are relative to it.

    Raises:
        UserError: fewer than two files, one twice, a file that is not there, weights that do not
            fit or are not > 0, an unknown key.
    """
    if len(names) == 1 and names[0].endswith((".yaml", ".yml")):
        if weights is not None:
            raise UserError("--vote-weights goes with files as typed; the YAML has its own")
        path = Path(names[0])
        entries = read_model(path, _List, _WANT).files
        listed = [_VoteKeys(entry) if isinstance(entry, str) else entry for entry in entries]
        ballots = Ballots([path.parent / e.path for e in listed], [e.weight for e in listed])
    else:
        ballots = Ballots([Path(n) for n in names], list(weights or [1.0] * len(names)))
    if len(ballots.weights) != len(ballots.paths):
        raise UserError(f"{len(ballots.paths)} files and {len(ballots.weights)} weights")
    if not all(np.isfinite(w) and w > 0 for w in ballots.weights):
        raise UserError(f"weights {ballots.weights}: want finite numbers > 0")
    for place, path in enumerate(ballots.paths):
        if not path.is_file():
            raise UserError(f"--vote: {path} is not there")
        if path.resolve() in [other.resolve() for other in ballots.paths[:place]]:
            raise UserError(f"--vote: {path} is named twice; give it a weight instead")
    if len(ballots.paths) < 2:
        raise UserError("--vote wants two or more submission files, or a YAML that lists them")
    return ballots


def vote_files(ballots: Ballots) -> tuple[pd.DataFrame, int]:
    """Take the weighted majority, item by item; a tie goes to the file of the highest weight.

    Among equal weights that is the one named first: list the best submission first. The CSVs have
    two columns, id and label, the same header, ids and label words.

    Returns:
        The table, in the order of the first file and with its labels, and the number of ties.

    Raises:
        UserError: another header, an id twice, missing or unknown, a label that only one file
            knows; names file, row and value.
    """
    tables = [_read(path) for path in ballots.paths]
    first = tables[0]
    ids, header = first.iloc[:, 0], list(first.columns)
    known: list[str] = []
    for path, table in zip(ballots.paths, tables, strict=True):
        for row, word in enumerate(table.iloc[:, 1]):
            known += [word] if word not in known else []
            if len(known) > 2:
                raise UserError(
                    f"{path}: row {row + 2}: label {word!r} is a third one beside {known[0]!r} and "
                    f"{known[1]!r}; voting on files wants labels, not probabilities"
                )
    words = sorted(known)
    share = np.zeros(len(first))
    votes = []
    weights = [weight / max(ballots.weights) for weight in ballots.weights]  # no overflow
    for path, table, weight in zip(ballots.paths, tables, weights, strict=True):
        if list(table.columns) != header:
            raise UserError(
                f"{path}: columns are {list(table.columns)}, the first file has {header}"
            )
        answer = _in_order(path, table, ids, ballots.paths[0])
        votes.append(answer == words[-1])
        share += np.where(votes[-1], weight, -weight)
    leader = votes[int(np.argmax(ballots.weights))]
    tie = np.abs(share) <= TIE * sum(weights)
    picked = np.where(tie, leader, share > 0)
    answer = np.where(picked, words[-1], words[0])
    return pd.DataFrame({header[0]: ids, header[1]: answer}), int(tie.sum())


def _in_order(path: Path, table: pd.DataFrame, ids: pd.Series, first: Path) -> np.ndarray:
    place = pd.Index(table.iloc[:, 0]).get_indexer(pd.Index(ids))
    if (place < 0).any():
        lacking = ids.iloc[int((place < 0).argmax())]
        raise UserError(f"{path}: id {lacking!r} of {first} is missing ({(place < 0).sum()} such)")
    if len(table) > len(ids):
        extra = table.iloc[:, 0][~table.iloc[:, 0].isin(ids)].iloc[0]
        raise UserError(f"{path}: id {extra!r} is not in {first}")
    return table.iloc[:, 1].to_numpy()[place]


def _read(path: Path) -> pd.DataFrame:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next((row for row in csv.reader(file) if row), [])
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: not a readable CSV ({error})") from None
    if len(header) != 2 or header[0] == header[1]:
        raise UserError(f"{path}: want two columns, id and label, found {header}")
    table = read_csv(path, header, what="submission")
    if table.empty:
        raise UserError(f"{path}: holds no row below its header")
    for column, bad, why in (
        (0, table.iloc[:, 0].duplicated().to_numpy(), "stands there twice"),
        (1, (table.iloc[:, 1] == "").to_numpy(), "is empty"),
    ):
        if bad.any():
            row = int(bad.argmax())
            raise UserError(f"{path}: row {row + 2}: {table.iloc[row, column]!r} {why}")
    return table
