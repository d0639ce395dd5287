"""What the rows of a table mean here: files, or folders of frames; never a guess."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import overload
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from src.data.items.files import without_suffix
from src.data.items.places import MediaFile
from src.data.items.words import NEUTRAL_WORDS, normalise
from src.data.pixels.frames import choose_frames
from src.texts import hashes_of

_TRIED = 100  # rows that tell where the paths of a table begin
_AT_ONCE = 2**16  # names that are strings at the same time
# From the strictest reading to the loosest; an id with a folder in it is a path (the first two).
_READINGS = (
    lambda name: name,
    without_suffix,
    lambda name: name.rsplit("/", 1)[-1],
    lambda name: without_suffix(name.rsplit("/", 1)[-1]),
)

_NONE, _SEVERAL = -1, -2  # in place of the number of a file

NamesOf = Callable[[int], tuple[str, ...]]  # the paths that the file of a number may be called by


@dataclass(frozen=True)
class FoundFiles(Sequence[Sequence[int]]):
    """The files that each of some ids fits, in numbers: no object for one that fits one file."""

    first: NDArray[np.int64]  # (n,) an id's file, `_NONE` or `_SEVERAL`
    several: dict[int, tuple[int, ...]] = field(default_factory=dict)  # place of an id -> its files

    def __len__(self) -> int:
        """Return the number of ids."""
        return len(self.first)

    @overload
    def __getitem__(self, place: int) -> Sequence[int]: ...
    @overload
    def __getitem__(self, place: slice) -> list[Sequence[int]]: ...
    def __getitem__(self, place: int | slice) -> Sequence[int] | list[Sequence[int]]:
        """Return the files of one id, or of a slice of them."""
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        number = int(self.first[place])
        if number == _SEVERAL:
            return self.several[place % len(self)]
        return () if number == _NONE else (number,)

    def __eq__(self, other: object) -> bool:
        """Tell whether the ids of another fit the same files."""
        if not isinstance(other, FoundFiles):
            return NotImplemented
        return np.array_equal(self.first, other.first) and self.several == other.several

    __hash__ = None  # type: ignore[assignment]

    def missing(self) -> list[int]:
        """Return the places of ids that fit nothing."""
        return np.flatnonzero(self.first == _NONE).tolist()


class FileIndex:
    """Looks files up by what a table calls them: a path, a file name or a name without suffix.

    Each reading of names is indexed when the first id needs it, for most tables need one of them:
    sorted hashes, 16 bytes a name. What has the hash is asked for its names again.

    Args:
        numbers: those of the files.
        names_of: what each may be called by.
    """

    def __init__(self, numbers: Sequence[int], names_of: NamesOf) -> None:
        self._numbers, self._names_of = numbers, names_of
        self._levels: dict[tuple[int, bool], tuple[NDArray[np.uint64], NDArray[np.int64]]] = {}

    def find(self, item_id: str) -> Sequence[int]:
        """Return the files that an id fits, by the strictest reading that fits any."""
        return self.find_all([item_id])[0]

    def find_all(self, ids: Sequence[str]) -> FoundFiles:
        """Return `find` of many, in a hundredth of the time."""
        found = FoundFiles(np.full(len(ids), _NONE, np.int64))
        for start in range(0, len(ids), _AT_ONCE):
            names = [_tidy(item_id) for item_id in ids[start : start + _AT_ONCE]]
            left = self._find(names, range(len(names)), found, start, composed=False)
            # Accents may be written in the other way (macOS takes letters apart).
            left = [at for at in left if not names[at].isascii()]
            for at in left:
                names[at] = normalize("NFC", names[at])
            self._find(names, left, found, start, composed=True)
        return found

    def _find(
        self,
        names: list[str],
        left: Sequence[int],
        found: FoundFiles,
        start: int,
        *,
        composed: bool,
    ) -> list[int]:
        """Note the files of some names (places, which begin at `start`); returns those left."""
        left = list(left)
        for number in range(4):
            asked = left if number < 2 else [at for at in left if "/" not in names[at]]
            if not asked:
                continue
            level = self._levels.get((number, composed))
            if level is None:
                level = self._levels[number, composed] = self._index(number, composed=composed)
            hashes, numbers = level
            wanted = hashes_of([names[at] for at in asked])
            begin = np.searchsorted(hashes, wanted, "left").tolist()
            end = np.searchsorted(hashes, wanted, "right").tolist()
            hits = set()
            for at, low, high in zip(asked, begin, end, strict=True):
                files = tuple(dict.fromkeys(
                    file for file in numbers[low:high].tolist()
                    if names[at] in self._keys(file, number, composed=composed)
                )) if low < high else ()  # fmt: skip
                if files:
                    hits.add(at)
                    found.first[start + at] = files[0] if len(files) == 1 else _SEVERAL
                    if len(files) > 1:
                        found.several[start + at] = files
            left = [at for at in left if at not in hits]
        return left

    def _index(
        self, number: int, *, composed: bool
    ) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Index one reading; `composed` takes just the names with accents, put together."""
        hashes: list[NDArray[np.uint64]] = [np.zeros(0, np.uint64)]
        files: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        for start in range(0, len(self._numbers), _AT_ONCE):
            keys: list[str] = []
            counts: list[int] = []
            part = self._numbers[start : start + _AT_ONCE]
            for file in part:
                more = self._keys(file, number, composed=composed)
                keys += more
                counts.append(len(more))
            hashes.append(hashes_of(keys))
            files.append(np.repeat(np.array(part, np.int64), counts))
        every = np.concatenate(hashes)
        order = np.argsort(every, kind="stable")
        return every[order], np.concatenate(files)[order]

    def _keys(self, file: int, number: int, *, composed: bool) -> Sequence[str]:
        read = _READINGS[number]
        keys = tuple(dict.fromkeys([read(name) for name in self._names_of(file)]))
        if not composed:
            return keys
        return tuple(dict.fromkeys(normalize("NFC", key) for key in keys if not key.isascii()))


@dataclass(frozen=True)
class Fits:
    """What the values of one column mean."""

    names: list[str]  # the values, without what stood above the data on their author's disk
    files: FoundFiles  # the files that each one fits
    # row -> the files of the folder that it names, where it fits no file
    frames: dict[int, Sequence[int]]
    start: str = ""  # what was cut off the values

    def count(self) -> int:
        """Return how many values mean one thing."""
        return int((self.files.first >= 0).sum()) + len(self.frames)

    def same_as(self, other: "Fits") -> bool:
        """Return whether the values of another column mean the same."""
        return (self.files, self.frames) == (other.files, other.frames)


class Finder:
    """Looks up files and folders by what a table calls them.

    `root` is that of dataset.yaml: (start of the values, what goes in its place).
    """

    def __init__(
        self, numbers: Sequence[int], names_of: NamesOf, root: tuple[str, str] | None = None
    ) -> None:
        self._numbers, self._names_of = numbers, names_of
        self._index = FileIndex(numbers, names_of)
        self._root = root

    def fits(self, values: Sequence[str]) -> Fits:
        """Look values up; where none fits, without the start that all have in common."""
        if self._root is not None:
            return self._look_up([_moved(value, *self._root) for value in values])
        found = self._look_up(values)
        if found.count() or found.files.several or not values:
            return found
        start = self._start_of(values)
        if not start:
            return found
        cut = self._look_up([_tidy(value)[len(start) :] for value in values])
        return Fits(cut.names, cut.files, cut.frames, start)

    def _look_up(self, values: Sequence[str]) -> Fits:
        files = self._index.find_all(values)
        # A missing file or two are no reason to index the folders of a million others.
        missing = files.missing()
        inside = self._inside([values[row] for row in missing])
        frames = {row: fit for row, fit in zip(missing, inside, strict=True) if fit}
        return Fits(list(values), files, frames)

    def _start_of(self, values: Sequence[str]) -> str:
        """Return the shortest start of all values without which some fit; "" if none does."""
        tidy = [_tidy(value) for value in values]
        first, last = min(tidy), max(tidy)
        same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
        end = -1
        while (end := first.find("/", end + 1)) >= 0 and end < (same or len(first)):
            rest = [value[end + 1 :] for value in tidy[:_TRIED]]
            if len(self._index.find_all(rest).missing()) < len(rest) or any(self._inside(rest)):
                return first[: end + 1]
        return ""

    def _inside(self, names: Sequence[str]) -> Iterator[Sequence[int]]:
        """Yield the files of the one folder that a value names, or is a clip's name of."""
        if not names:
            return
        index, files = self._folders
        plain = index.find_all([name.rstrip("/") for name in names])
        short = index.find_all([without_suffix(name) for name in names])
        for one, other in zip(plain, short, strict=True):
            found = one or other
            yield files[found[0]] if len(found) == 1 else ()

    @cached_property
    def _folders(self) -> tuple[FileIndex, list[list[int]]]:
        numbers: dict[tuple[str, ...], int] = {}
        files: list[list[int]] = []
        for index in self._numbers:
            homes = tuple(name.rpartition("/")[0] for name in self._names_of(index))
            number = numbers.setdefault(homes, len(files))
            files += [[]] if number == len(files) else []
            files[number].append(index)
        folders = {n: _with_parents(homes) for homes, n in numbers.items() if any(homes)}
        return FileIndex(list(folders), folders.__getitem__), files


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
