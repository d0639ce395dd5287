"""Masks say which pixels of a picture were manipulated: set apart from pictures, told to items.

A mask lies in a folder of masks (`data/layouts/mask_folders`), or a table or a JSON names it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import pandas as pd

from src.data.items.folder import Folder
from src.data.items.listing import Entry, Listing
from src.data.items.manifest import STRING

_SPARE = "masks of no train picture"
NOTHING: Mapping[str, Entry] = MappingProxyType({})


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
    if not of and not listing.mask_files:
        return as_series({})
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
    return pd.Series([*masks.values()], pd.Index([*masks], dtype=STRING), STRING, name="mask")


def describe_masks(items: pd.DataFrame, masks: pd.Series) -> list[str]:
    """Say how many fakes have a mask; nothing where no item has one."""
    if not len(masks):
        return []
    train = items[items["split"] == "train"]
    has = train["item_id"].isin(masks.index)
    fakes, reals = (int((has & (train["label"] == label)).sum()) for label in (1, 0))
    also = f"; {reals:,} reals have one too, which must be empty" if reals else ""
    return [f"masks: {fakes:,} of {int((train['label'] == 1).sum()):,} fakes have one{also}"]
