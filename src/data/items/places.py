"""Where each media file stands: its split, class folder and name within the split."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from src.data.items.dataset_yaml import offer, offer_ignore
from src.data.items.folder import Folder
from src.data.items.listing import Entry
from src.data.items.words import LabelMap, Meaning, SplitMap, is_plain, read_word
from src.errors import UserError


@dataclass(frozen=True)
class Place:
    """What the folders above a file say."""

    split: str  # `train`, `val`, `test`, or "" where no folder says
    label: int | None  # 0, 1 or None
    domain: str  # the folders above the class folder, joined by `/`
    below: str  # the folders below the class folder, joined by `/`
    inner: str  # path of the folder within its split (what an item_id starts with)
    word: str = ""  # what says the label, as it is written; "" where nothing does
    # (name, what it says) of folders that contradict each other; empty
    at_odds: tuple[tuple[str, str | int], ...] = ()


def read_folder(folder: str, labels: LabelMap, splits: SplitMap) -> Place:
    """Read the folders above a file, `folder` being the logical path of the last one."""
    parts = [part for part in folder.split("/") if part]
    meanings = [read_word(part, labels, splits) for part in parts]
    if any(m.label is not None and not p.isdecimal() for m, p in zip(meanings, parts, strict=True)):
        # `real/0/`, `real/1/`: numbered videos or people, not classes.
        meanings = [
            Meaning() if part.isdecimal() and labels.common else meaning
            for part, meaning in zip(parts, meanings, strict=True)
        ]
    named = list(zip(parts, meanings, strict=True))
    said_splits = [(part, split) for part, one in named for split in one.splits]
    said_labels = [(part, one.label) for part, one in named if one.label is not None]
    first = next((at for at, (_, one) in enumerate(named) if one.label is not None), len(named))
    above = [
        part if one.plain else one.rest for part, one in named[:first] if one.plain or one.rest
    ]
    below = [
        part if one.plain else one.rest for part, one in named[first:] if one.plain or one.rest
    ]
    at_odds = [
        pair
        for said in (said_splits, said_labels)
        if len({v for _, v in said}) > 1
        for pair in said
    ]
    return Place(
        split=said_splits[0][1] if said_splits else "",
        label=said_labels[0][1] if said_labels else None,
        domain="/".join(above),
        below="/".join(below),
        inner="/".join(part for part, one in named if one.kept),
        word=next((one.word for _, one in named if one.label is not None), ""),
        at_odds=tuple(at_odds),
    )


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A media file and what its folders say."""

    entry: Entry  # the file
    place: Place  # what its folders say

    @property
    def name(self) -> str:
        """Return its path within its split; the item_id where nothing else gives one."""
        base = self.entry.logical.rpartition("/")[2]
        return f"{self.place.inner}/{base}" if self.place.inner else base

    @property
    def folder(self) -> str:
        """Return the logical path of its folder, "" for the top."""
        return self.entry.logical.rpartition("/")[0]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the paths by which a table may call it."""
        return tuple(dict.fromkeys((self.name, self.entry.logical)))


def place_files(folder: Folder, splits: SplitMap) -> list[MediaFile]:
    """Read the folders above each file; a folder around everything counts for nothing.

    Raises:
        UserError: folders of one path that contradict each other.
    """
    media, labels = folder.listing.media, folder.labels
    folders = {entry.logical.rpartition("/")[0] for entry in media}
    depth = _wrapping(folders, labels, splits)
    places: dict[str, Place] = {}
    for path in folders:
        places[path] = read_folder("/".join(path.split("/")[depth:]), labels, splits)
    for path in sorted(folders):
        if places[path].at_odds:
            raise _at_odds(folder.root, path, places)
    return [MediaFile(entry, places[entry.logical.rpartition("/")[0]]) for entry in media]


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
    """Raise a UserError for files outside the splits, no test items, where there is a train/."""
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
    """Return the line for dataset.yaml that leaves some logical paths aside, and no others."""
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
