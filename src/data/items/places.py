"""Where each media file stands: its split, class folder and name within the split.

Which file does an id mean: a path, a file name or a name without suffix; never a guess.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from src.data.items.dataset_yaml import offer, offer_ignore
from src.data.items.files import kind_of, suffix_of
from src.data.items.listing import Entry
from src.data.items.words import (
    NO_SPLITS,
    LabelMap,
    Place,
    SplitMap,
    is_plain,
    read_folder,
    read_word,
)
from src.errors import UserError


@dataclass(frozen=True, slots=True)
class File:
    """A media file with its place."""

    index: int  # its number in the listing
    # paths it may be called by, relative to its split, the data set and so on
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


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A media file and what its folders say."""

    entry: Entry  # the file
    place: Place  # what its folders say
    name: str  # path within its split; the item_id where nothing else gives one

    @property
    def folder(self) -> str:
        """Return the logical path of its folder, "" for the top."""
        return self.entry.logical.rpartition("/")[0]

    def known_as(self, index: int) -> File:
        """Return the names by which a table may call it."""
        return File(index, tuple(dict.fromkeys((self.name, self.entry.logical))))


def place_files(
    root: Path, media: list[Entry], labels: LabelMap, splits: SplitMap = NO_SPLITS
) -> list[MediaFile]:
    """Read the folders above each file; a folder around everything counts for nothing.

    Raises:
        UserError: folders of one path that contradict each other.
    """
    folders = {entry.logical.rpartition("/")[0] for entry in media}
    depth = _wrapping(folders, labels, splits)
    places: dict[str, Place] = {}
    for folder in folders:
        places[folder] = read_folder("/".join(folder.split("/")[depth:]), labels, splits)
    for folder in sorted(folders):
        if places[folder].at_odds:
            raise _at_odds(root, folder, places)
    files = []
    for entry in media:
        folder, _, base = entry.logical.rpartition("/")
        place = places[folder]
        files.append(MediaFile(entry, place, f"{place.inner}/{base}" if place.inner else base))
    return files


def own_folders(folders: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    """Return for each folder the highest one, of it and those above, that holds none of others.

    "" where there is none: files of both lie side by side.
    """
    taken = {above for other in others for above in _upwards(other)}
    return {
        folder: next((above for above in _upwards(folder) if above not in taken), "")
        for folder in folders
    }


def _upwards(folder: str) -> list[str]:
    """Return a folder and all above it, the highest (the top, "") first."""
    parts = folder.split("/") if folder else []
    return ["/".join(parts[:count]) for count in range(len(parts) + 1)]


def refuse_outside(root: Path, files: list[MediaFile], test: Collection[int]) -> None:
    """Raise a UserError for files outside the splits where there is a train/.

    Args:
        root: the data set's folder.
        files: its media files.
        test: numbers of those that are test items.
    """
    outside = [f for i, f in enumerate(files) if not f.place.split and i not in test]
    inside = [f for i, f in enumerate(files) if f.place.split or i in test]
    if not outside or not any(f.place.split == "train" for f in inside):
        return
    own = own_folders({f.folder for f in outside}, {f.folder for f in inside})
    homes = sorted({own[f.folder] for f in outside} - {""})
    said = offer("splits", {home.rpartition("/")[2]: "test" for home in homes})
    raise UserError(
        f"{root}: {len(outside)} files lie outside train/, val/ and test/, the first is "
        f"{outside[0].entry.path}; move them, or say in dataset.yaml "
        + (f"which split their folder is ({said}, or train, or val), or " * bool(homes))
        + "to leave them aside: "
        + offer_aside((f.entry.logical for f in outside), (f.entry.logical for f in inside))
    )


def offer_aside(outside: Iterable[str], inside: Iterable[str]) -> str:
    """Return the line for dataset.yaml that leaves some files aside, and none of the others.

    Args:
        outside, inside: logical paths of these and of the others.
    """
    aside = {path: path.rpartition("/")[0] for path in outside}
    own = own_folders(aside.values(), {path.rpartition("/")[0] for path in inside})
    return offer_ignore(*sorted({f"{own[f]}/*" if own[f] else path for path, f in aside.items()}))


def note_splits(files: list[MediaFile], splits: SplitMap) -> list[str]:
    """Say which names of folders were taken for a split that not everybody would read so."""
    said: dict[str, str] = {}
    for folder, split in sorted({(file.folder, file.place.split) for file in files}):
        for name in folder.split("/"):
            if split and splits.read(name)[0][-1:] == (split,):
                said[name] = split
    odd = [name for name in said if not is_plain(name) and splits.of_given(name) is None]
    if not odd:
        return []
    named = ", ".join(f"{name}/ is {said[name]}" for name in odd[:10]) + " ..." * (len(odd) > 10)
    first = next((name for name in odd if said[name] != "train"), odd[0])
    other = "val" if said[first] == "train" else "train"
    return [
        f"splits, by a word in the name: {named} (dataset.yaml: {offer('splits', {first: other})}, "
        "or train, val, test, or none, decides otherwise)"
    ]


def _at_odds(root: Path, folder: str, places: dict[str, Place]) -> UserError:
    """Say which folders of a path contradict each other, and what settles it."""
    said = places[folder].at_odds
    what = "label" if isinstance(said[0][1], int) else "split"
    values = " and ".join(str(value) for value in dict.fromkeys(value for _, value in said))
    outer: dict[str, int] = {
        place.word: place.label for place in places.values() if place.label is not None
    }
    inner = list(dict.fromkeys(name for name, value in said if value != said[0][1]))
    head, _, _ = folder.rpartition(f"/{inner[-1]}")
    ways = [offer_ignore(f"{head}/{inner[-1]}/*") + " leaves it aside"] if head else []
    if what == "split" and inner[0] == said[0][0]:
        ways.append(f"{offer('splits', {inner[0]: said[0][1]})} (or what it is)")
    elif what == "split":
        ways.append(offer("splits", dict.fromkeys(inner, "none")) + " takes it for no split's name")
    elif set(outer.values()) == {0, 1} and not set(outer) & set(inner):
        ways.append(offer("labels", dict(sorted(outer.items()))) + " names the class folders alone")
    settle = f", or say in dataset.yaml: {', or '.join(ways)}" if ways else ""
    return UserError(
        f"{root}: the folders of {folder}/ contradict each other ({what} is {values}); rename one"
        + settle
    )


def _wrapping(folders: set[str], labels: LabelMap, splits: SplitMap) -> int:
    """Return how many top folders hold everything and say nothing (`archive/real_vs_fake/`).

    A longer name that holds a split's word (`train_test_split/`) says nothing either where each
    file has a split of its own below it.
    """
    paths = [folder.split("/") if folder else [] for folder in folders]
    depth = 0
    while True:
        tops = {path[depth] if len(path) > depth else None for path in paths}
        top = tops.pop()
        if tops or top is None:
            return depth
        meaning = read_word(top, labels, splits)
        longer = meaning.rest or len(meaning.splits) > 1
        below = longer and all(splits.of_folders(path[depth + 1 :]) for path in paths)
        if meaning.label is not None or (meaning.splits and not below):
            return depth
        depth += 1
