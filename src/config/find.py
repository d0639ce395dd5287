"""Configs by name: models, merges, comparisons."""

import re
from pathlib import Path

from src import paths
from src.errors import UserError, unknown_name
from src.strict_yaml import PLAIN


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
