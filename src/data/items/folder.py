"""A data set's folder: what lies there, what dataset.yaml says, and what its files are called."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from unicodedata import normalize

from src.data.items.dataset_yaml import DatasetConfig
from src.data.items.files import without_suffix
from src.data.items.listing import Entry, Listing
from src.data.items.words import LabelMap, SplitMap, make_label_map, make_split_map, read_word


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
        return base in self._names or without_suffix(base) in self._names

    @cached_property
    def _names(self) -> set[str]:
        names, folders = set(), set()
        for logical in self.on_disk:
            folder, _, base = logical.rpartition("/")
            folders.add(folder)
            names |= {base, without_suffix(base)}
        parts = {part for folder in folders for part in folder.split("/")}
        # `real` in a row is a label, whatever lies there.
        names |= {part for part in parts if read_word(part, self.labels).plain}
        return {_composed(name) for name in names} - {""}


def _composed(name: str) -> str:
    return name if name.isascii() else normalize("NFC", name)
