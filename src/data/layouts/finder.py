"""What the rows of a table mean here: files, or folders of frames; never a guess."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from unicodedata import normalize

from src.data.items.files import without_suffix
from src.data.items.places import MediaFile
from src.data.items.words import NEUTRAL_WORDS, normalise
from src.data.pixels.frames import choose_frames

_TRIED = 100  # rows that tell where the paths of a table begin
# From the strictest reading to the loosest; an id with a folder in it is a path (the first two).
_READINGS = (
    lambda name: name,
    without_suffix,
    lambda name: name.rsplit("/", 1)[-1],
    lambda name: without_suffix(name.rsplit("/", 1)[-1]),
)

Named = tuple[int, tuple[str, ...]]  # the number of a file, and the paths it may be called by


class FileIndex:
    """Looks files up by what a table calls them: a path, a file name or a name without suffix.

    Each reading of names is indexed when the first id needs it: most tables need one of them.
    """

    def __init__(self, files: Iterable[Named]) -> None:
        self._files = list(files)
        self._levels: dict[tuple[int, bool], dict[str, int | list[int]]] = {}

    def find(self, item_id: str) -> Sequence[int]:
        """Return the files that an id fits, by the strictest reading that fits any."""
        name = _tidy(item_id)
        found = self._find(name, composed=False)
        if found or name.isascii():
            return found
        # Its accents may be written in the other way (macOS takes letters apart).
        return self._find(normalize("NFC", name), composed=True)

    def _find(self, name: str, *, composed: bool) -> Sequence[int]:
        for number in range(2 if "/" in name else 4):
            level = self._levels.get((number, composed))
            if level is None:
                level = self._levels[number, composed] = self._index(number, composed=composed)
            found = level.get(name)
            if found is not None:
                return (found,) if isinstance(found, int) else found
        return ()

    def _index(self, number: int, *, composed: bool) -> dict[str, int | list[int]]:
        """Index one reading; `composed` takes just the names with accents, put together."""
        level: dict[str, int | list[int]] = {}
        for index, names in self._files:
            for name in names:
                key = _READINGS[number](name)
                if composed and key.isascii():
                    continue
                key = normalize("NFC", key) if composed else key
                before = level.setdefault(key, index)
                # A list only where several have the name, for a million lists are large.
                if not isinstance(before, list):
                    if before != index:
                        level[key] = [before, index]
                elif before[-1] != index:  # the names of one file come together
                    before.append(index)
        return level


@dataclass(frozen=True)
class Fits:
    """What the values of one column mean."""

    names: list[str]  # the values, without what stood above the data on their author's disk
    files: list[Sequence[int]]  # the files that each one fits
    # row -> the files of the folder that it names, where it fits no file
    frames: dict[int, Sequence[int]]
    start: str = ""  # what was cut off the values

    def count(self) -> int:
        """Return how many values mean one thing."""
        return sum(len(found) == 1 for found in self.files) + len(self.frames)

    def same_as(self, other: "Fits") -> bool:
        """Return whether the values of another column mean the same."""
        return (self.files, self.frames) == (other.files, other.frames)


class Finder:
    """Looks up files and folders by what a table calls them.

    `root` is that of dataset.yaml: (start of the values, what goes in its place).
    """

    def __init__(self, files: Iterable[Named], root: tuple[str, str] | None = None) -> None:
        self._files = list(files)
        self._index = FileIndex(self._files)
        self._root = root

    def fits(self, values: Sequence[str]) -> Fits:
        """Look values up; where none fits, without the start that all have in common."""
        if self._root is not None:
            return self._look_up([_moved(value, *self._root) for value in values])
        found = self._look_up(values)
        if found.count() or any(found.files) or not values:
            return found
        start = self._start_of(values)
        if not start:
            return found
        cut = self._look_up([_tidy(value)[len(start) :] for value in values])
        return Fits(cut.names, cut.files, cut.frames, start)

    def _look_up(self, values: Sequence[str]) -> Fits:
        files = [self._index.find(value) for value in values]
        missing = [row for row, fit in enumerate(files) if not fit]
        # A missing file or two are no reason to index the folders of a million others.
        frames = {row: fit for row in missing if (fit := self._inside(values[row]))}
        return Fits(list(values), files, frames)

    def _start_of(self, values: Sequence[str]) -> str:
        """Return the shortest start of all values without which some fit; "" if none does."""
        tidy = [_tidy(value) for value in values]
        first, last = min(tidy), max(tidy)
        same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
        end = -1
        while (end := first.find("/", end + 1)) >= 0 and end < (same or len(first)):
            for value in islice(tidy, _TRIED):
                rest = value[end + 1 :]
                if self._index.find(rest) or self._inside(rest):
                    return first[: end + 1]
        return ""

    def _inside(self, name: str) -> Sequence[int]:
        """Return the files of the one folder that a value names, or is a clip's name of."""
        index, files = self._folders
        found = index.find(name.rstrip("/")) or index.find(without_suffix(name))
        return files[found[0]] if len(found) == 1 else ()

    @cached_property
    def _folders(self) -> tuple[FileIndex, list[list[int]]]:
        numbers: dict[tuple[str, ...], int] = {}
        files: list[list[int]] = []
        for index, names in self._files:
            homes = tuple(name.rpartition("/")[0] for name in names)
            number = numbers.setdefault(homes, len(files))
            files += [[]] if number == len(files) else []
            files[number].append(index)
        folders = [(n, _with_parents(homes)) for homes, n in numbers.items() if any(homes)]
        return FileIndex(folders), files


def choose_of_folder(
    files: list[MediaFile], numbers: Sequence[int], name: str, count: int | None
) -> tuple[dict[int, str], set[int]]:
    """Return the frames to take of a folder that a row names, with their ids, and the others."""
    frames = {files[number].entry.logical: number for number in numbers}
    chosen = {
        frames[path]: f"{name.rstrip('/')}/{path.rpartition('/')[2]}"
        for path in choose_frames(list(frames), count)
    }
    return chosen, {*frames.values()} - {*chosen}


def _with_parents(homes: Sequence[str]) -> tuple[str, ...]:
    """Add what a folder's frames may be named by too: `v1` for `v1/frames`."""
    names = {home: None for home in homes if home}
    for home in homes:
        above, _, last = home.rpartition("/")
        if above and normalise(last) in NEUTRAL_WORDS:
            names[above] = None
    return tuple(names)


def _tidy(value: str) -> str:
    return value.replace("\\", "/").removeprefix("./").lstrip("/")


def _moved(value: str, start: str, to: str) -> str:
    path, start = _tidy(value), _tidy(start).rstrip("/")
    below = path.removeprefix(start).lstrip("/") if (path + "/").startswith(start + "/") else path
    return f"{to.strip('/')}/{below}".lstrip("/") if below != path or not start else value
