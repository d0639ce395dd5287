"""JSON of a data set, with the keys that stand twice: a parser keeps the last one silently."""

import json
from pathlib import Path
from typing import Any

from src.data.sources import read_bytes
from src.data.walk import Entry
from src.errors import UserError


def load_json(root: Path, entry: Entry) -> tuple[Any, list[str]]:
    """Return the content of a JSON file, and the keys that an object in it has twice.

    A key that stands twice with the same value is no contradiction, and not named.

    Raises:
        UserError: not readable as JSON.
    """
    twice: list[str] = []

    def make(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in pairs:
            if key in made and made[key] != value:
                twice.append(key)
            made[key] = value
        return made

    try:
        text = read_bytes(root, entry.path).decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=make), twice
    except (ValueError, RecursionError) as error:
        raise UserError(f"{root / entry.path}: not readable JSON ({error})") from None


def refuse_doubles(where: str, twice: list[str]) -> None:
    """Raise a UserError if keys stand twice."""
    if twice:
        raise UserError(
            f"{where}: {len(twice)} keys stand twice in one object with different values, the "
            f"first is {twice[0]!r}: which one holds? Take the other out"
        )
