"""What `--extra` names: members from elsewhere, as typed or listed in a YAML."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from src.errors import UserError, unknown_name
from src.strict_yaml import read_mapping

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_KEYS = ("oof", "test")


@dataclass(frozen=True)
class Extra:
    """A member from elsewhere: its name, its out-of-fold CSV and its test CSV."""

    name: str
    oof: Path
    test: Path


def named_extras(texts: Sequence[str]) -> list[Extra]:
    """Return what every `--extra` names, in order.

    Args:
        texts: `NAME=OOF.csv,TEST.csv`, or a YAML that maps names to `{oof: PATH, test: PATH}`, the
            paths relative to it.

    Raises:
        UserError: another form, a name that is no plain word, an unknown or missing key, or a file
            that is not there.
    """
    found = []
    for text in texts:
        listed = text.endswith((".yaml", ".yml"))
        found += _from_yaml(Path(text)) if listed else [_parse(text)]
    for extra in found:
        for path in (extra.oof, extra.test):
            if not path.is_file():
                raise UserError(f"--extra {extra.name}: {path} is not there")
    return found


def _parse(text: str) -> Extra:
    name, equals, files = text.partition("=")
    oof, comma, test = files.partition(",")
    if not (equals and comma and oof and test) or not _NAME.fullmatch(name):
        raise UserError(
            f"--extra {text}: want NAME=OOF.csv,TEST.csv with a plain name, or a YAML that lists "
            "NAME: {oof: OOF.csv, test: TEST.csv}"
        )
    return Extra(name, Path(oof), Path(test))


def _from_yaml(path: Path) -> list[Extra]:
    content = read_mapping(path)
    if not content:
        raise UserError(f"{path}: it lists no member; want NAME: {{oof: PATH, test: PATH}}")
    return [_entry(path, name, entry) for name, entry in content.items()]


def _entry(path: Path, name: object, entry: object) -> Extra:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(f"{path}: {name!r} is no plain name of a member")
    if not isinstance(entry, dict):
        raise UserError(f"{path}: {name}: want {{oof: PATH, test: PATH}}, found {entry!r}")
    for key in entry:
        if key not in _KEYS:
            raise unknown_name(f"key in {path}: {name}:", str(key), _KEYS)
    for key in _KEYS:
        if not isinstance(entry.get(key), str) or not entry[key]:
            raise UserError(f"{path}: {name}: {key} is {entry.get(key)!r}, want a path")
    return Extra(name, path.parent / entry["oof"], path.parent / entry["test"])
