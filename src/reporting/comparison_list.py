"""A comparison as written down: ways to train, side by side, each a row."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass

from src.config import ModelConfig, check_stem, config_file, model_names, read_model
from src.errors import UserError
from src.strict_yaml import STRICT, EachOnce, Int, Keys, Plain, Word
from src.strict_yaml import read_model as read_checked


@checked_dataclass(frozen=True, config=STRICT)
class RowKeys(Keys):
    """A row as written down: a model with other settings, or a merge."""

    model: Word | None = None  # the model that it changes, or is; None takes the file's
    set: dict[str, Any] | None = None  # keys of the config to other values
    weights: Path | None = None  # to start from; None leaves it to the comparison
    merge: Word | None = None  # a merge by name or file; it takes no other key


@checked_dataclass(frozen=True, config=STRICT)
class ComparisonKeys(Keys):
    """A comparison as written down."""

    rows: Annotated[dict[Plain, RowKeys], Field(min_length=1)]  # the ways to train, by name
    about: str | None = None  # what it is for
    data: Word | None = None  # data set to train on; None leaves it to the command
    scheme: Word | None = None  # fold scheme; None takes the only one, or the default
    folds: Annotated[tuple[Int, ...], EachOnce] | None = None  # to train; none stands for all
    model: Word | None = None  # of rows that name none
    weights: Path | None = None  # to start from, where a row names none
    # data sets to score on as well
    out_of_domain: Annotated[tuple[Word, ...], EachOnce] | None = None


@dataclass(frozen=True)
class Row:
    """One way to come by a model."""

    name: str  # of the row
    model: str  # what it makes, the name under which its artefacts lie
    parent: str = ""  # the model that it changes, or is; "" for a merge
    # dotted keys of the config to other values
    changes: Mapping[str, Any] = field(default_factory=dict)
    weights: Path | None = None  # to start from; None leaves it to the comparison
    merge: Path | None = None  # the file of a merge; None where something is trained

    def config(self) -> ModelConfig:
        """Return the config that a row trains."""
        return read_model(self.parent, dict(self.changes))


@dataclass(frozen=True)
class Comparison:
    """A file of rows."""

    name: str  # of the file
    path: Path  # of the file
    rows: tuple[Row, ...]  # in its order
    given: ComparisonKeys  # what else it says


def read_comparison(path: Path) -> Comparison:
    """Read a comparison.

    Raises:
        UserError: not readable, a key that is unknown (with the nearest known one) or stands
            twice, a value of a wrong kind, no row, a row whose config is refused, two rows of
            one model, a row whose model's name was given to something else before.
    """
    check_stem(path)
    given = read_checked(path, ComparisonKeys, "`rows`, the ways to train: NAME: {set: ...}")
    rows = [_row(name, keys, given.model, path) for name, keys in given.rows.items()]
    for place, row in enumerate(rows):
        for other in rows[:place]:
            if row.model == other.model:
                raise UserError(f"{path}: rows {other.name} and {row.name} are both {row.model}")
    return Comparison(path.stem, path, tuple(rows), given)


def _row(name: str, keys: RowKeys, model: str | None, path: Path) -> Row:
    try:
        if keys.merge is not None:
            if keys != RowKeys(merge=keys.merge):
                raise UserError("a merge takes no other key; they go into its own file")
            merge = config_file("merges", keys.merge)
            return Row(name, merge.stem, merge=merge)
        parent, changes = keys.model or model, keys.set or {}
        if parent is None:
            raise UserError("which model? give the row, or the file, a `model: NAME`")
        own = f"{path.stem}_{name}" if changes else parent
        row = Row(name, own, parent, changes, keys.weights)
        _check_config(row)
    except UserError as error:
        raise UserError(f"{path}: row {name}: {error}") from None
    return row


def _check_config(row: Row) -> None:
    wanted = row.config()
    if row.changes and row.model in model_names() and read_model(row.model) != wanted:
        raise UserError(
            f"there is a model {row.model} of other settings (the row was changed since?):"
            " give the row another name"
        )
