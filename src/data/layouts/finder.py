"""What the rows of a table mean here: files, or folders of frames; whatever stood above them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from src.data.items.places import File, FileIndex, without_suffix
from src.data.items.words import NEUTRAL_WORDS, normalise

_TRIED = 100  # rows that tell where the paths of a table begin


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


class Finder:
    """Looks up files and folders by what a table calls them.

    Args:
        files: those that it may mean.
        root: `root:` of dataset.yaml, (start of the values, what goes in its place).
    """

    def __init__(self, files: Iterable[File], root: tuple[str, str] | None = None) -> None:
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
        for file in self._files:
            homes = tuple(name.rpartition("/")[0] for name in file.names)
            number = numbers.setdefault(homes, len(files))
            files += [[]] if number == len(files) else []
            files[number].append(file.index)
        folders = [File(n, _with_parents(homes)) for homes, n in numbers.items() if any(homes)]
        return FileIndex(folders), files


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
