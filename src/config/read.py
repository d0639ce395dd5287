"""Configs by name; a model's, read strictly: unknown keys and wrong kinds are errors."""

import json
import re
from pathlib import Path
from typing import Any

from src import paths
from src.config.schema import STANDARD, ModelConfig
from src.errors import UserError, unknown_name
from src.strict_yaml import PLAIN, checked, parse_yaml, read_mapping


def config_files(kind: str) -> dict[str, Path]:
    """Return the configs of a kind by name; the user's stands for a shipped one of its name."""
    folders = [folder for folder in paths.config_dirs(kind) if folder.is_dir()]
    return {file.stem: file for folder in folders[::-1] for file in sorted(folder.glob("*.yaml"))}


def config_file(kind: str, word: str, hint: str = "or the path of a .yaml file") -> Path:
    """Return the file of a config, given by its name, or by its path; UserError for neither.

    Args:
        kind: of configs (`models`, `merges`); a model's is given by its name alone.
        word: as typed.
        hint: what else may be given.
    """
    what = kind.removesuffix("s")
    if kind != "models" and word.endswith((".yaml", ".yml")):
        if not Path(word).exists():
            raise UserError(f"{word}: no such {what}")
        return Path(word)
    files = config_files(kind)
    if word not in files:
        raise unknown_name(what, word, files, hint)
    return files[word]


def check_stem(path: Path) -> None:
    """Raise a UserError where the name of a config's file cannot name what is made by it."""
    name = path.stem
    if not re.fullmatch(PLAIN, name) or paths.model_from_slug(name) != name:
        raise UserError(f"{path}: want a file name of letters, digits, '.', '_' and '-'")


def model_names() -> list[str]:
    """Return the names of all model configs, sorted."""
    return sorted(config_files("models"))


def model_path(name: str) -> Path:
    """Return the file of a model config; raises UserError for an unknown name."""
    return config_file("models", name, f"any timm backbone works as {paths.TIMM_PREFIX}NAME")


def read_model(name: str, changes: dict[str, Any] | None = None) -> ModelConfig:
    """Read a model config by name; `timm:NAME` is that backbone with the default settings.

    Args:
        name: of a file in `configs/models/`, or `timm:NAME`.
        changes: dotted keys to other values (`{"optim.lr": 1e-4}`), on top of the file.

    Raises:
        UserError: unknown name or key (with the nearest known one), or a value of a wrong kind.
    """
    if name.startswith(paths.TIMM_PREFIX):
        where = name
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name.removeprefix(paths.TIMM_PREFIX)):
            raise UserError(f"model {name!r}: want a plain timm name after {paths.TIMM_PREFIX}")
        content: dict[str, Any] = {"backbone": {"name": name.removeprefix(paths.TIMM_PREFIX)}}
    else:
        where = str(model_path(name))
        content = _read_with_parents(name, ())
    for key, value in (changes or {}).items():
        set_dotted(content, key.split("."), value)
    return parse_model(content, where)


def parse_model(content: dict[str, Any], where: str) -> ModelConfig:
    """Turn nested dicts into a checked `ModelConfig`.

    Raises:
        UserError: one line for each key that is unknown or has a wrong value, naming `where`.
    """
    config = checked(content, ModelConfig, where)
    try:
        json.dumps(config.as_dict(), allow_nan=False)  # as the run record will
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise UserError(f"{where}: {type(error).__name__}: {error}") from error
    return config


def _read_with_parents(name: str, children: tuple[str, ...]) -> dict[str, Any]:
    if name in children:
        raise UserError(f"configs extend each other in a circle: {' -> '.join([*children, name])}")
    content = read_mapping(model_path(name))
    parent = content.pop("extends", None)
    if parent is None:
        return content
    base = _read_with_parents(str(parent), (*children, name))
    merged = _merged(base, content)
    if "augment" in content:
        merged["augment"] = _augmented(base.get("augment"), content["augment"])
    return merged


def _augmented(old: Any, new: Any) -> Any:  # noqa: ANN401
    """Return `augment` as it is changed: settings are added to those of the same preset alone."""
    if old is None or not isinstance(new, dict):
        return new
    before = old if isinstance(old, dict) else {"name": old}
    name = before.get("name", STANDARD)
    return _merged(before, new) if new.get("name", name) == name else new


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if both else value
    return result


def set_dotted(content: dict[str, Any], parts: list[str], value: Any) -> None:  # noqa: ANN401
    """Set a nested key (`["optim", "lr"]`) in place; a mapping is merged, as `extends` does it.

    Raises:
        UserError: a part on the way has no keys.
    """
    if parts[0] == "augment" and len(parts) < 3:
        new = value if len(parts) == 1 else {parts[1]: value}
        content["augment"] = _augmented(content.get("augment"), new)
        return
    for part in parts[:-1]:
        content = content.setdefault(part, {})
        if not isinstance(content, dict):
            raise UserError(f"--set {'.'.join(parts)}: {part} has no keys")
    content.update(_merged(content, {parts[-1]: value}))


def parse_change(text: str) -> tuple[str, Any]:
    """Split `optim.lr=1e-4` into its key and its value, read as YAML.

    Raises:
        UserError: no `=`, or a value that is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"--set {text}: want KEY=VALUE, such as optim.lr=1e-4")
    return key.strip(), parse_yaml(value, f"--set {text}")
