"""A changed model gets a name of its own: a config file that extends the original."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from src import paths
from src.artifacts.files import write_text
from src.config import model_names, model_path, read_model, set_dotted
from src.errors import LockedError, UserError
from src.strict_yaml import dump_yaml

_WRITTEN: list[Path] = []


@contextmanager
def taken_back_if_refused() -> Iterator[None]:
    """Remove the variants that the block wrote if it ends with a UserError before one began.

    Else the corrected command would be told that the name is another model's.
    """
    first = len(_WRITTEN)
    try:
        yield
    except LockedError:  # another process trains one of them
        raise
    except UserError:
        for path in _WRITTEN[first:]:
            runs = paths.checkpoints_home().glob(f"*/*/{path.stem}/fold_*")
            if all(file.suffix in (".lock", ".log") for file in runs):
                path.unlink(missing_ok=True)
        raise


def seed_members(model: str, first: int, seeds: int) -> dict[str, int]:
    """Return the further members of a model whose own seed is `first`: their names and seeds."""
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: want 1 or more members")
    name = model.replace(":", "_")
    return {f"{name}_s{seed}": seed for seed in range(first + 1, first + seeds)}


def is_written(name: str, parent: str, changes: dict[str, Any]) -> bool:
    """Tell whether a variant is there already; nothing is written.

    Raises:
        UserError: see `write_variant`.
    """
    plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name)
    if not plain or paths.model_from_slug(name) != name:
        raise UserError(
            f"--as {name}: want a plain name of letters, digits, '.', '_' and '-', not timm--NAME"
        )
    wanted = read_model(parent, changes)
    if name not in model_names():
        return False
    if read_model(name) != wanted:
        raise UserError(f"--as {name}: {model_path(name)} is another model; take a new name")
    return True


def write_variant(name: str, parent: str, changes: dict[str, Any]) -> Path:
    """Write a named variant of a model, so that its name says what was trained.

    Returns the new file in the user's `configs/models/`; an equal one that exists is left alone.

    Raises:
        UserError: the name is taken by another config, or is not a plain file name.
    """
    if is_written(name, parent, changes):
        return model_path(name)
    path = paths.config_dirs("models")[0] / f"{name}.yaml"
    content: dict[str, Any] = {}
    if parent.startswith(paths.TIMM_PREFIX):
        content["backbone"] = {"name": parent.removeprefix(paths.TIMM_PREFIX)}
    else:
        content["extends"] = parent
    for key, value in changes.items():
        set_dotted(content, key.split("."), value)
    write_text(path, dump_yaml(content))
    _WRITTEN.append(path)
    return path
