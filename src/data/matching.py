"""Which file does an id mean: a path, a file name or a name without suffix; never a guess."""

from collections.abc import Iterable
from dataclasses import dataclass

from src.data.sources import kind_of, suffix_of


@dataclass(frozen=True)
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


class FileIndex:
    """Looks files up by what a table calls them."""

    def __init__(self, files: Iterable[File]) -> None:
        self._levels: list[dict[str, set[int]]] = [{}, {}, {}, {}]
        for file in files:
            for name in file.names:
                base = name.rsplit("/", 1)[-1]
                keys = (name, without_suffix(name), base, without_suffix(base))
                for level, key in zip(self._levels, keys, strict=True):
                    level.setdefault(key, set()).add(file.index)

    def find(self, item_id: str) -> set[int]:
        """Return the files that an id fits, by the strictest reading that fits any.

        An id with a folder in it is a path; one without may also be a bare file name.
        """
        name = item_id.replace("\\", "/").removeprefix("./").lstrip("/")
        for level in self._levels[: 2 if "/" in name else 4]:
            if name in level:
                return level[name]
        return set()
