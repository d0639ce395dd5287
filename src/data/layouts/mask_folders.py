"""Folders of masks: which files in folders called `masks` are masks, and of which picture.

Such a folder may as well hold pictures, of attacks with a mask; what it holds tells.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from src.data.items.dataset_yaml import offer
from src.data.items.files import kind_of, read_bytes, without_suffix
from src.data.items.folder import Folder
from src.data.items.listing import Entry
from src.data.items.masks import set_apart
from src.data.items.words import NEUTRAL_WORDS, LabelMap, read_word
from src.errors import UnreadableImageError

_WORDS = ("masks", "mask")
_LOOKED_AT = 5  # files of a folder that are decoded
_FEW = 16  # colours that a mask may have
_NEAR = (
    16  # of 255: what JPEG adds to black, takes from white, and pulls the channels of grey apart
)
_COLOURED = 0.01  # share of pixels with a colour from which a file is a picture
_SURE = 0.75  # share of pixels, black or white, from which a grey file is a mask


@dataclass
class _Home:
    """A folder that may be one of masks."""

    entries: list[Entry] = field(default_factory=list)
    fits: bool = False  # some file has a picture
    of: dict[str, Entry] = field(default_factory=dict)  # picture -> its mask
    fakes: int = 0  # files whose picture lies in a class folder of fakes beside this one
    reals: int = 0  # those of them for which a picture of reals would do as well


@dataclass(frozen=True)
class _Neighbours:
    """Names of folders beside which a folder of masks may stand."""

    plain: list[str]  # images, frames ...
    splits: list[str]
    classes: dict[str, int]  # name as it is written -> label

    def of(self, label: int) -> list[str]:
        """Return the names of one class."""
        return sorted({name.lower() for name, own in self.classes.items() if own == label})


def part_masks(folder: Folder) -> tuple[Folder, list[str]]:
    """Return a folder in whose listing masks are told from what may become items, and notes.

    `A/masks/B` is the mask of the picture `A/B`, or of `A/frames/B` (images, faces ...), whatever
    the suffixes; one of `masks/`, not `mask/`, also of `A/fake/B` and `A/train/B`. Where no file in
    folders of one of the two names fits a picture, they are none of masks (an attack with a mask,
    say), nor is one that `labels:` of dataset.yaml calls a class, nor one beside `fake/` whose
    files look like pictures.
    """
    media = folder.listing.media
    if not any("mask" in entry.logical.lower() for entry in media):
        return folder, []
    homes: dict[str, _Home] = defaultdict(_Home)
    index: dict[str, list[str]] = defaultdict(list)
    places: set[str] = set()  # of pictures
    for entry in media:
        home = _home_of(entry.logical, folder.labels)
        if home:
            homes[home].entries.append(entry)
        else:
            index[_key(entry.logical)].append(entry.logical)
            places.add(entry.logical.rpartition("/")[0])
    beside = _beside(places, folder.labels)
    for home, held in homes.items():
        _fit(home, held, index, beside)
    wrong = {home for home, held in homes.items() if held.fakes and _holds_pictures(folder, held)}
    words = {_word(home) for home, held in homes.items() if held.fits and home not in wrong}
    right = {home: homes[home] for home in homes if _word(home) in words and home not in wrong}
    files = [entry for held in right.values() for entry in held.entries]
    of = {picture: entry for held in right.values() for picture, entry in held.of.items()}
    notes = [f"{home}: its files look like pictures, so they are no masks" for home in wrong]
    return set_apart(folder, files, of), [*_note([*right], len(files), beside), *sorted(notes)]


def _home_of(logical: str, labels: LabelMap) -> str:
    """Return the folder that may be one of masks and holds a file; "" where none is called so."""
    parts = logical.split("/")[:-1]
    for place, part in enumerate(parts):
        if part.lower() in _WORDS and labels.get(part) is None:
            return "/".join(parts[: place + 1])
    return ""


def _word(home: str) -> str:
    """Return what a folder is called."""
    return home.rpartition("/")[2].lower()


def _key(logical: str) -> str:
    """Return a path by which a mask finds its picture: folders in lower case, no suffix."""
    folder, _, name = logical.rpartition("/")
    return f"{folder.lower()}/{without_suffix(name)}".lstrip("/")


def _beside(folders: Collection[str], labels: LabelMap) -> _Neighbours:
    names = {part for folder in folders for part in folder.split("/") if part}
    told = {name: read_word(name, labels) for name in sorted(names)}
    return _Neighbours(
        sorted({name.lower() for name in told} & NEUTRAL_WORDS),
        sorted({name.lower() for name, one in told.items() if one.splits}),
        {name: one.label for name, one in told.items() if one.label is not None},
    )


def _fit(home: str, held: _Home, index: Mapping[str, list[str]], beside: _Neighbours) -> None:
    """Find the one picture that each mask is of: none where several would do."""
    above, fakes = home.rpartition("/")[0], set(beside.of(1))
    more = sorted({*beside.splits, *fakes}) if _word(home) == "masks" else []

    def find(below: str, names: Sequence[str]) -> dict[str, str]:
        tried = (("/".join(filter(None, (above, name, below))), name) for name in names)
        return {picture: name for path, name in tried for picture in index.get(_key(path), ())}

    for entry in held.entries:
        below = entry.logical[len(home) + 1 :]
        found = find(below, [""]) or find(below, [*beside.plain, *more])
        if len(found) != 1:
            continue
        picture, name = found.popitem()
        held.fits = True
        if name in fakes:
            held.fakes += 1
            held.reals += bool(find(below, beside.of(0)))
        if "video" not in (kind_of(entry.logical), kind_of(picture)):
            held.of[picture] = entry


def _holds_pictures(folder: Folder, held: _Home) -> bool:
    """Tell whether files that lie beside class folders are one class more, by some of them.

    Most have colours; or they are grey all over, unlike most masks, and their names fit reals too.
    """
    files = [entry for entry in held.entries if kind_of(entry.logical) == "image"]
    places = np.linspace(0, len(files) - 1, min(_LOOKED_AT, len(files))).astype(int)
    seen = [_look(folder.root, files[place].path) for place in places]
    doubtful = "picture" if 2 * held.reals > held.fakes else "mask"
    says = [doubtful if one == "grey" else one for one in seen if one] or [doubtful]
    return 2 * says.count("picture") > len(says)


def _look(root: Path, path: str) -> str:
    """Say what a file shows: `mask`, `picture`, `grey` where it may be either, "" if unreadable."""
    from src.data.pixels.decode import decode_values  # only here is anything decoded

    try:
        values = decode_values(read_bytes(root, path))
    except UnreadableImageError:
        return ""
    pixels = values[::2, ::2].astype(np.float64)
    pixels = pixels.reshape(pixels.shape[0] * pixels.shape[1], -1)
    if len(np.unique(pixels, axis=0)) <= _FEW:
        return "mask"
    pixels *= 255 / max(pixels.max(), 1e-9)  # of any depth
    if (np.ptp(pixels, axis=1) > _NEAR).mean() > _COLOURED:
        return "picture"
    sure = (pixels.max(axis=1) < _NEAR) | (pixels.max(axis=1) > 255 - _NEAR)
    return "mask" if sure.mean() > _SURE else "grey"


def _note(homes: list[str], files: int, beside: _Neighbours) -> list[str]:
    """Say which folders are read as masks, and how to say otherwise."""
    if not homes:
        return []
    more = f" and {len(homes) - 1:,} more folders" if len(homes) > 1 else ""
    words = {home.rpartition("/")[2]: 1 for home in homes}
    way = "rename what holds pictures"
    if set(beside.classes.values()) == {0, 1}:
        way = f"for pictures say {offer('labels', beside.classes | words)} in dataset.yaml"
    return [f"read as masks, no pictures: {homes[0]}{more} ({files:,} files); {way}"]
