"""A comparison as written down: ways to train, of which some may teach others, and where."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass

from src.config import ModelConfig, check_stem, config_file, model_names, read_model
from src.errors import UserError, unknown_name
from src.strict_yaml import STRICT, EachOnce, Int, Keys, Plain, Word
from src.strict_yaml import read_model as read_checked

TEACHER = "distil.teacher"


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
    against: Plain | None = None  # row that the others are held against; None takes the first


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

    def teachers(self) -> tuple[str, ...]:
        """Return the names of the models, recipes and files that teach it."""
        distil = None if self.merge is not None else self.config().distil
        return () if distil is None else distil.teachers


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
            one model, a row whose model's name was given to something else before, `against` no
            row, rows that teach each other in a circle.
    """
    check_stem(path)
    given = read_checked(path, ComparisonKeys, "`rows`, the ways to train: NAME: {set: ...}")
    models = {name: _model_of(name, keys, given.model, path) for name, keys in given.rows.items()}
    rows = [_row(name, keys, models, given.model, path) for name, keys in given.rows.items()]
    for place, row in enumerate(rows):
        for other in rows[:place]:
            if row.model == other.model:
                raise UserError(f"{path}: rows {other.name} and {row.name} are both {row.model}")
    if given.against is not None and given.against not in models:
        raise unknown_name("row", given.against, models, f"{path}: against")
    in_order(rows, path)
    return Comparison(path.stem, path, tuple(rows), given)


def in_order(rows: Sequence[Row], path: Path) -> list[Row]:
    """Return rows as they are to be made: teachers before students, merges after what trains.

    Raises:
        UserError: rows of the file `path` teach each other in a circle.
    """
    waiting, found = sorted(rows, key=lambda row: row.merge is not None), []
    while waiting:
        unmade = {row.model for row in waiting}
        ready = next((row for row in waiting if not unmade & set(row.teachers())), None)
        if ready is None:
            names = ", ".join(row.name for row in waiting)
            raise UserError(f"{path}: rows {names} wait for each other: distil.teacher goes round")
        waiting.remove(ready)
        found.append(ready)
    return found


def _model_of(name: str, keys: RowKeys, model: str | None, path: Path) -> str:
    """Return the name of the model that a row makes; "" where that is not said."""
    if keys.merge is not None:
        return Path(keys.merge).stem
    return f"{path.stem}_{name}" if keys.set else keys.model or model or ""


def _row(name: str, keys: RowKeys, models: Mapping[str, str], model: str | None, path: Path) -> Row:
    try:
        if keys.merge is not None:
            if keys != RowKeys(merge=keys.merge):
                raise UserError("a merge takes no other key; they go into its own file")
            merge = config_file("merges", keys.merge)
            return Row(name, merge.stem, merge=merge)
        parent, changes = keys.model or model, _taught(keys.set or {}, models)
        if parent is None:
            raise UserError("which model? give the row, or the file, a `model: NAME`")
        row = Row(name, models[name], parent, changes, keys.weights)
        _check_config(row)
    except UserError as error:
        raise UserError(f"{path}: row {name}: {error}") from None
    return row


def _taught(changes: Mapping[str, Any], models: Mapping[str, str]) -> dict[str, Any]:
    """Return changes in which a teacher that is a row of the file is the model of that row."""

    def named(teacher: object) -> object:
        if isinstance(teacher, list):
            return [named(one) for one in teacher]
        return models.get(teacher, teacher) if isinstance(teacher, str) else teacher

    found = dict(changes)
    if TEACHER in found:
        found[TEACHER] = named(found[TEACHER])
    whole = found.get("distil")
    if isinstance(whole, dict) and "teacher" in whole:
        found["distil"] = whole | {"teacher": named(whole["teacher"])}
    return found


def _check_config(row: Row) -> None:
    wanted = row.config()
    if row.changes and row.model in model_names() and read_model(row.model) != wanted:
        raise UserError(
            f"there is a model {row.model} of other settings (the row was changed since?):"
            " give the row another name"
        )
