"""A data set's folder: what lies there, what dataset.yaml says, and what its files are called."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from src.data.items.dataset_yaml import DatasetConfig
from src.data.items.files import without_suffix
from src.data.items.listing import Entry, Listing
from src.data.items.words import LabelMap, SplitMap, make_label_map, make_split_map, read_word
from src.texts import hash_of, hashes_of

_AT_ONCE = 2**16  # names that are strings at the same time


@dataclass(frozen=True)
class Folder:
    """A data set's folder, listed, before anything in it is understood."""

    name: str  # of the data set
    root: Path
    config: DatasetConfig
    listing: Listing

    @cached_property
    def labels(self) -> LabelMap:
        """Return what its classes are called."""
        return make_label_map(self.config.labels)

    @cached_property
    def splits(self) -> SplitMap:
        """Return what the folders of its splits are called."""
        return make_split_map(self.config.splits, (entry.logical for entry in self.listing.media))

    @cached_property
    def on_disk(self) -> frozenset[str]:
        """Return the logical paths of its images and videos."""
        return frozenset(entry.logical for entry in self.listing.media)

    def where(self, entry: Entry) -> str:
        """Return a file's path, for messages."""
        return str(self.root / entry.path)

    def has_named(self, cell: str) -> bool:
        """Tell whether a file or folder, whichever, has the last part of a table's cell as name."""
        base = _composed(cell.replace("\\", "/").rstrip("/").rpartition("/")[2])
        return base != "" and any(self._is_name(one) for one in {base, without_suffix(base)})

    def _is_name(self, text: str) -> bool:
        wanted = np.uint64(hash_of(text))
        place = np.searchsorted(self._names, wanted)
        return bool(place < len(self._names) and self._names[place] == wanted)

    @cached_property
    def _names(self) -> NDArray[np.uint64]:
        """Return hashes of all names, sorted: a set of a million strings takes 200 MB."""
        folders: set[str] = set()
        found, media = [], self.listing.media
        for start in range(0, len(media), _AT_ONCE):
            names = set()
            for entry in media[start : start + _AT_ONCE]:
                folder, _, base = entry.logical.rpartition("/")
                folders.add(folder)
                names |= {_composed(base), _composed(without_suffix(base))}
            found.append(hashes_of(list(names)))
        parts = {part for folder in folders for part in folder.split("/")}
        # `real` in a row is a label, whatever lies there.
        plain = [_composed(part) for part in parts if read_word(part, self.labels).plain]
        return np.unique(np.concatenate([*found, hashes_of(plain)]))


def _composed(name: str) -> str:
    return name if name.isascii() else normalize("NFC", name)
