"""Which file does an id mean: a path, a file name or a name without suffix; never a guess."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from unicodedata import normalize

from src.data.sources import kind_of, suffix_of


@dataclass(frozen=True, slots=True)
class File:
    """A media file with its place.

    Attributes:
        index: its number in the listing.
        names: paths it may be called by, relative to its split, the data set and so on.
    """

    index: int
    names: tuple[str, ...]


def without_suffix(name: str) -> str:
    """Cut off a media suffix: `a/x.jpg` -> `a/x`; `v1.2` stays."""
    return name[: -len(suffix_of(name))] if kind_of(name) else name


# From the strictest reading to the loosest; an id with a folder in it is a path (the first two).
_READINGS = (
    lambda name: name,
    without_suffix,
    lambda name: name.rsplit("/", 1)[-1],
    lambda name: without_suffix(name.rsplit("/", 1)[-1]),
)


class FileIndex:
    """Looks files up by what a table calls them.

    Each reading of names is indexed when the first id needs it: most tables need one of them.
    """

    def __init__(self, files: Iterable[File]) -> None:
        self._files = list(files)
        self._plain: dict[int, dict[str, int | list[int]]] = {}
        self._composed: dict[int, dict[str, int | list[int]]] = {}

    def find(self, item_id: str) -> Sequence[int]:
        """Return the files that an id fits, by the strictest reading that fits any.

        An id with a folder in it is a path; one without may also be a bare file name.
        """
        name = item_id.replace("\\", "/").removeprefix("./").lstrip("/")
        depth = 2 if "/" in name else 4
        found = self._find(self._plain, name, depth, composed=False)
        if found or name.isascii():
            return found
        # Its accents may be written in the other way (macOS takes letters apart).
        return self._find(self._composed, normalize("NFC", name), depth, composed=True)

    def _find(
        self,
        levels: dict[int, dict[str, int | list[int]]],
        name: str,
        depth: int,
        *,
        composed: bool,
    ) -> Sequence[int]:
        for number in range(depth):
            level = levels.get(number)
            if level is None:
                level = levels[number] = self._index(number, composed=composed)
            found = level.get(name)
            if found is not None:
                return (found,) if isinstance(found, int) else found
        return ()

    def _index(self, number: int, *, composed: bool) -> dict[str, int | list[int]]:
        """Index one reading; `composed` takes just the names with accents, put together."""
        read = _READINGS[number]
        level: dict[str, int | list[int]] = {}
        for file in self._files:
            for name in file.names:
                key = read(name)
                if composed:
                    if key.isascii():
                        continue
                    key = normalize("NFC", key)
                _add(level, key, file.index)
        return level


def _add(level: dict[str, int | list[int]], key: str, index: int) -> None:
    """Note a file; a list only where several have the name, for a million lists are large."""
    before = level.setdefault(key, index)
    if isinstance(before, list):
        if before[-1] != index:  # the names of one file come together
            before.append(index)
    elif before != index:
        level[key] = [before, index]
