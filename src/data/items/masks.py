"""Which files of a data set are masks, no pictures, and of which picture each one is.

A mask says which pixels were manipulated. It lies in a folder `masks` (or `mask`) under the name of
its picture, or a table or a JSON names it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import pandas as pd

from src.data.items.files import kind_of, without_suffix
from src.data.items.folder import Folder
from src.data.items.listing import Entry, Listing
from src.data.items.words import NEUTRAL_WORDS, LabelMap, read_word

_WORDS = ("masks", "mask")
_SPARE = "masks of no train picture"
NOTHING: Mapping[str, Entry] = MappingProxyType({})


def part_masks(folder: Folder) -> Folder:
    """Return a folder in whose listing the masks are told from what may become items.

    `A/masks/B` is the mask of the picture `A/B`, or of `A/frames/B` (images, faces ...), whatever
    the suffixes; one of `masks/`, not `mask/`, also of `A/fake/B` and `A/train/B`. Where no file in
    folders of one of the two names fits a picture, they are none of masks (an attack with a mask,
    say), nor is one that `labels:` of dataset.yaml calls a class.
    """
    media = folder.listing.media
    if not any("mask" in entry.logical.lower() for entry in media):
        return folder
    homes = {entry.logical: _home_of(entry.logical, folder.labels) for entry in media}
    pictures = [entry for entry in media if not homes[entry.logical]]
    index: dict[str, list[str]] = {}
    for entry in pictures:
        index.setdefault(_key(entry.logical), []).append(entry.logical)
    beside = _siblings({entry.logical.rpartition("/")[0] for entry in pictures}, folder.labels)
    of: dict[str, Entry] = {}
    found: set[str] = set()  # what folders of masks are called here
    for entry in media:
        home = homes[entry.logical]
        picture = _picture_of(entry.logical, home, index, beside) if home else ""
        if picture:
            found.add(_word(home))
        if picture and "video" not in (kind_of(entry.logical), kind_of(picture)):
            of[picture] = entry
    return set_apart(folder, [e for e in media if _word(homes[e.logical]) in found], of)


def set_apart(folder: Folder, masks: Iterable[Entry], of: Mapping[str, Entry]) -> Folder:
    """Return a folder in whose listing some files are masks, `of` these pictures."""
    listing = folder.listing
    gone = {entry.logical: entry for entry in masks}
    if not gone:
        return folder
    kept = [entry for entry in listing.media if entry.logical not in gone]
    every = {entry.logical: entry for entry in listing.mask_files} | gone
    both = {**listing.mask_of, **of}
    changed = replace(listing, media=kept, mask_files=[*every.values()], mask_of=both)
    return replace(folder, listing=changed)


def masks_of_items(
    listing: Listing,
    entries: Sequence[Entry],
    items: pd.DataFrame,
    ignored: dict[str, int],
    named: Mapping[str, Entry] = NOTHING,
) -> pd.Series:
    """Return item_id -> path of the mask, of the train items that have one.

    `entries` are the files of `items`, row by row; `named` are masks of pictures that a table names
    beside those that the listing knows. Masks of no train item are counted in `ignored`.
    """
    of = {**listing.mask_of, **named}
    rows = zip(entries, items["item_id"], items["split"], strict=True)
    found = {
        str(item): of[entry.logical].path
        for entry, item, split in rows
        if split == "train" and entry.logical in of
    }
    spare = len({entry.path for entry in listing.mask_files} - set(found.values()))
    if spare:
        ignored[_SPARE] = spare
    return as_series(found)


def as_series(masks: Mapping[str, str]) -> pd.Series:
    """Return item_id -> path as a series of strings, an empty one too."""
    return pd.Series(masks, index=pd.Index([*masks], dtype=object), dtype=object, name="mask")


def describe_masks(items: pd.DataFrame, masks: pd.Series) -> list[str]:
    """Say how many fakes have a mask; nothing where no item has one."""
    if not len(masks):
        return []
    train = items[items["split"] == "train"]
    has = train["item_id"].isin(masks.index)
    fakes, reals = (int((has & (train["label"] == label)).sum()) for label in (1, 0))
    also = f"; {reals:,} reals have one too, which must be empty" if reals else ""
    return [f"masks: {fakes:,} of {int((train['label'] == 1).sum()):,} fakes have one{also}"]


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


def _siblings(folders: Collection[str], labels: LabelMap) -> dict[str, list[str]]:
    """Return the names of folders beside which a folder `masks`, or `mask`, may stand."""
    names = {part for folder in folders for part in folder.split("/") if part}
    told = {name.lower(): read_word(name, labels) for name in names}
    plain = sorted(name for name in told if name in NEUTRAL_WORDS)
    more = sorted(n for n, one in told.items() if one.splits or one.label == 1)
    return {"mask": plain, "masks": [*plain, *more]}


def _picture_of(
    logical: str, home: str, index: Mapping[str, list[str]], beside: Mapping[str, list[str]]
) -> str:
    """Return the one picture that a mask is of; "" where none fits, or several do."""
    above, below = home.rpartition("/")[0], logical[len(home) + 1 :]
    for names in ([""], beside[_word(home)]):
        tried = ("/".join(filter(None, (above, name, below))) for name in names)
        found = {picture for path in tried for picture in index.get(_key(path), ())}
        if found:
            return found.pop() if len(found) == 1 else ""
    return ""
