"""A comparison as written down: ways to train, side by side, each a row."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from src import paths
from src.config import ModelConfig, model_names, read_model
from src.errors import UserError, unknown_name
from src.strict_yaml import read_mapping

KEYS = ("about", "data", "scheme", "folds", "model", "weights", "out_of_domain", "rows")
ROW_KEYS = ("model", "set", "weights", "merge")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


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
    data: str | None = None  # data set to train on; None leaves it to the command
    scheme: str | None = None  # fold scheme; None takes the only one, or the default
    folds: tuple[int, ...] = ()  # to train; none stands for all
    weights: Path | None = None  # to start from, where a row names none
    out_of_domain: tuple[str, ...] = ()  # data sets to score on as well


def comparison_file(word: str) -> Path:
    """Return the file of a comparison, given as a path or by name; UserError for neither."""
    return _config_file(word, "comparison")


def read_comparison(path: Path) -> Comparison:
    """Read a comparison.

    Raises:
        UserError: not readable, a key that is unknown (with the nearest known one) or stands
            twice, a value of a wrong kind, no row, a row whose config is refused, two rows of
            one model, a row whose model's name was given to something else before.
    """
    content, name = read_mapping(path), path.stem
    if not _PLAIN.fullmatch(name):
        raise UserError(f"{path}: want a file name of letters, digits, '.', '_' and '-'")
    _check_keys(content, KEYS, str(path))
    texts = {key: _text(content, key, str(path)) for key in ("data", "scheme", "model", "weights")}
    rows = content.get("rows")
    if not isinstance(rows, dict) or not rows:
        raise UserError(f"{path}: `rows` holds the ways to train, NAME: {{set: ...}}; it has none")
    read = [_row(key, value, texts["model"], path) for key, value in rows.items()]
    for place, row in enumerate(read):
        for other in read[:place]:
            if row.model == other.model:
                raise UserError(f"{path}: rows {other.name} and {row.name} are both {row.model}")
    return Comparison(
        name, path, tuple(read), texts["data"], texts["scheme"],
        tuple(_list(content, "folds", int, "[0, 1]", path)), _file(texts["weights"]),
        tuple(_list(content, "out_of_domain", str, "[other_data]", path)),
    )  # fmt: skip


def _row(name: Any, content: Any, model: str | None, path: Path) -> Row:  # noqa: ANN401
    where = f"{path}: row {name}"
    if not isinstance(name, str) or not _PLAIN.fullmatch(name):
        raise UserError(f"{path}: row {name!r}: want a name of letters, digits, '.', '_' and '-'")
    if not isinstance(content, dict):
        raise UserError(f"{where}: want keys and values, such as {{set: {{strategy: lp_ft}}}}")
    _check_keys(content, ROW_KEYS, where)
    if "merge" in content:
        if len(content) > 1:
            raise UserError(f"{where}: a merge takes no other key; they go into its own file")
        merge = _config_file(str(_text(content, "merge", where)), "merge", where)
        return Row(name, merge.stem, merge=merge)
    parent, changes = _text(content, "model", where) or model, content.get("set") or {}
    if parent is None:
        raise UserError(f"{where}: which model? give the row, or the file, a `model: NAME`")
    if not isinstance(changes, dict) or not all(isinstance(key, str) for key in changes):
        raise UserError(f"{where}: `set` holds keys of a config, such as {{optim.epochs: 3}}")
    own = f"{path.stem}_{name}" if changes else parent
    row = Row(name, own, parent, changes, _file(_text(content, "weights", where)))
    _check_config(row, where)
    return row


def _check_config(row: Row, where: str) -> None:
    try:
        wanted = row.config()
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if row.changes and row.model in model_names() and read_model(row.model) != wanted:
        raise UserError(
            f"{where}: there is a model {row.model} of other settings (the row was changed since?):"
            " give the row another name"
        )


def _config_file(word: str, kind: str, where: str = "") -> Path:
    """Return a file named by its path, or by its stem in `configs/<kind>s/`."""
    if word.endswith((".yaml", ".yml")):
        if not Path(word).is_file():
            raise UserError(f"{where}{': ' * bool(where)}{word}: no such {kind}")
        return Path(word)
    folders = [folder for folder in paths.config_dirs(f"{kind}s") if folder.is_dir()]
    files = {file.stem: file for folder in folders[::-1] for file in folder.glob("*.yaml")}
    if word not in files:
        error = unknown_name(kind, word, files, "or the path of a .yaml file")
        raise UserError(f"{where}: {error}") if where else error
    return files[word]


def _check_keys(content: Mapping[Any, Any], known: Collection[str], where: str) -> None:
    for key in content:
        if key not in known:
            raise UserError(f"{where}: {unknown_name('key', str(key), known)}")


def _text(content: Mapping[str, Any], key: str, where: str) -> str | None:
    value = content.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise UserError(f"{where}: {key} is {value!r}, want a name")
    return value


def _list(content: Mapping[str, Any], key: str, kind: type, such: str, path: Path) -> list[Any]:
    values = content.get(key)
    values = [] if values is None else values
    plain = isinstance(values, list) and all(type(value) is kind for value in values)
    if not plain or len(set(values)) < len(values):
        raise UserError(f"{path}: {key} is {values!r}, want a list such as {such}, each once")
    return values


def _file(text: str | None) -> Path | None:
    return None if text is None else Path(text)
