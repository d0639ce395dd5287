"""Voting on submission files alone, no out-of-fold predictions needed.

Files of labels: the majority. Files of probabilities: their mean, or the mean of their ranks.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from pydantic.dataclasses import dataclass as checked_dataclass

from src.artifacts.answers import Holding, Output, answer_columns, rank_share
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


class Voted(NamedTuple):
    """What files say together."""

    # the first file's rows, with the answers in place of its own; columns beside id and answer are
    # those of the first file
    table: pd.DataFrame
    id_column: str
    answer_column: str
    output: Output  # what the answers are
    ties: int  # of labels: rows in which both had half of the weight
    clipped: int = 0  # of probs: rows that were nearer to 0 or 1 than `EDGE`

    def hold(self) -> Holding:
        """Return what the answer column holds."""
        answer = self.table[self.answer_column]
        n, distinct = len(answer), answer.nunique()
        if self.output == "label":
            words = " and ".join(sorted(map(str, answer.unique())))
            return Holding("label", f"written as {words}", n, distinct)
        means = {"prob": "the mean of the files' probabilities",
                 "rank": "the mean of the files' ranks as a share of the rows"}  # fmt: skip
        bounds = float(answer.min()), float(answer.max())
        return Holding(self.output, means[self.output], n, distinct, *bounds, self.clipped)


def vote_files(
    ballots: Ballots, kind: Output | None = None, columns: tuple[str, str] | None = None
) -> Voted:
    """Vote on CSVs of the same header and ids, item by item.

    Labels: the weighted majority; a tie goes to the file of the highest weight, among equal ones to
    that named first: list the best submission first. Probabilities: the weighted mean.

    Args:
        ballots: the files.
        kind: `rank` takes the mean of ranks (of each file's own rows, as shares in (0, 1)) in place
            of the mean of probs; None goes by what the files hold.
        columns: those of the ids and of the answers; None takes the first, and of two columns the
            other, of several the one whose name says so.

    Raises:
        UserError: another header, an id twice, missing or unknown, a label that only one file
            knows, a probability outside [0, 1], labels beside probabilities, a `kind` that the
            files do not hold; names file, row and value.
    """
    paths, header = ballots.paths, _header(ballots.paths[0])
    columns = columns or _columns(paths[0], header)
    tables = [_read(path, header, columns) for path in paths]
    first, (id_column, answer_column) = tables[0], columns
    answers = [
        _in_order(path, table[list(columns)], first[id_column], paths[0])
        for path, table in zip(paths, tables, strict=True)
    ]
    weights = np.array(ballots.weights) / max(ballots.weights)  # no overflow
    are_probs, ties = _hold_probs(answers), 0
    output = kind or ("prob" if are_probs else "label")
    if are_probs == (output == "label"):
        raise UserError(
            f"{paths[0]} and the others hold {'probabilities' if are_probs else 'labels'}, of "
            f"which no {output} is made; vote on other files, or say so: --output-kind "
            f"{'prob, or rank' if are_probs else 'label'}"
        )
    if are_probs:
        found = _mean(paths, answers, weights, rank=output == "rank")
    else:
        found, ties = _majority(answers, weights, _two_words(paths, answers))
    table = first.assign(**{answer_column: found})
    return Voted(table, id_column, answer_column, output, ties)


def _majority(
    answers: Sequence[pd.Series], weights: np.ndarray, words: Sequence[str]
) -> tuple[np.ndarray, int]:
    """Return (n,) words, and the number of ties."""
    votes = [answer.to_numpy() == words[-1] for answer in answers]
    share = np.sum([np.where(v, w, -w) for v, w in zip(votes, weights, strict=True)], axis=0)
    tie = np.abs(share) <= TIE * weights.sum()
    picked = np.where(tie, votes[int(np.argmax(weights))], share > 0)
    return np.where(picked, words[-1], words[0]), int(tie.sum())


def _mean(
    paths: Sequence[Path], answers: Sequence[pd.Series], weights: np.ndarray, *, rank: bool
) -> np.ndarray:
    """Return (n,) means of probs, or of ranks."""
    total = np.zeros(len(answers[0]))
    for path, answer, weight in zip(paths, answers, weights, strict=True):
        values = answer.map(_as_number)
        wrong = ~values.between(0, 1).to_numpy()  # NaN too: a word
        if wrong.any():
            row, said = answer.index[int(wrong.argmax())], answer[wrong].iloc[0]
            raise UserError(
                f"{path}: row {row + 2}: {said!r} is no probability from 0 to 1, and the files "
                "hold probabilities"
            )
        if values.isin([0, 1]).all():
            raise UserError(
                f"{path}: holds labels alone, beside probabilities in other files; vote on files "
                "of one kind"
            )
        total += weight * (rank_share(values) if rank else values).to_numpy()
    return np.clip(total / weights.sum(), 0, 1)


def _hold_probs(answers: Sequence[pd.Series]) -> bool:
    """Tell whether a file holds a number that is not whole, which no label is."""
    return any((answer.map(_as_number) % 1 > 0).any() for answer in answers)


def _as_number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return float("nan")


def _two_words(paths: Sequence[Path], answers: Sequence[pd.Series]) -> list[str]:
    """Return the labels, sorted; raises for a third one."""
    known: list[str] = []
    for path, answer in zip(paths, answers, strict=True):
        for word in answer.unique():
            known += [word] if word not in known else []
            if len(known) > 2:
                row = answer.index[int((answer == word).to_numpy().argmax())]
                raise UserError(
                    f"{path}: row {row + 2}: label {word!r} is a third one beside {known[0]!r} and "
                    f"{known[1]!r}"
                )
    return sorted(known)


def _in_order(path: Path, table: pd.DataFrame, ids: pd.Series, first: Path) -> pd.Series:
    """Return a file's answers (its second column) by the ids of the first; the index is the row."""
    place = pd.Index(table.iloc[:, 0]).get_indexer(pd.Index(ids))
    if (place < 0).any():
        lacking = ids.iloc[int((place < 0).argmax())]
        raise UserError(f"{path}: id {lacking!r} of {first} is missing ({(place < 0).sum()} such)")
    if len(table) > len(ids):
        extra = table.iloc[:, 0][~table.iloc[:, 0].isin(ids)].iloc[0]
        raise UserError(f"{path}: id {extra!r} is not in {first}")
    return table.iloc[place, 1]


def _header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next((row for row in csv.reader(file) if row), [])
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: not a readable CSV ({error})") from None
    if len(header) < 2 or len(set(header)) < len(header):
        raise UserError(f"{path}: want two columns or more, an id and an answer, found {header}")
    return header


def _columns(path: Path, header: Sequence[str]) -> tuple[str, str]:
    """Return the columns of ids and of answers."""
    others = header[1:]
    found = answer_columns(others) if len(others) > 1 else others
    if len(found) != 1:
        raise UserError(
            f"{path}: which of the columns {', '.join(others)} is the answer? Leave one, or say by "
            "--data NAME whose sample submission they follow"
        )
    return header[0], found[0]


def _read(path: Path, header: Sequence[str], columns: tuple[str, str]) -> pd.DataFrame:
    found = _header(path)
    if found != list(header):
        raise UserError(f"{path}: columns are {found}, the first file has {list(header)}")
    lacking = [name for name in columns if name not in header]
    if lacking:
        raise UserError(f"{path}: columns are {found}, and none is {lacking[0]!r}")
    table = read_csv(path, header, what="submission")
    if table.empty:
        raise UserError(f"{path}: holds no row below its header")
    ids, answers = (table[name] for name in columns)
    for values, bad, why in (
        (ids, ids.duplicated().to_numpy(), "stands there twice"),
        (answers, (answers == "").to_numpy(), "is empty"),
    ):
        if bad.any():
            row = int(bad.argmax())
            raise UserError(f"{path}: row {row + 2}: {values.iloc[row]!r} {why}")
    return table
