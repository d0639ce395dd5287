"""Where each media file stands: its split, class folder and name within the split."""

from dataclasses import dataclass
from pathlib import Path

from src.data.matching import File
from src.data.sources import Entry
from src.data.words import LabelMap, Place, read_folder, read_word
from src.errors import UserError


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A media file and what its folders say.

    Attributes:
        entry: the file.
        place: what its folders say.
        name: path within its split; the item_id where nothing else gives one.
    """

    entry: Entry
    place: Place
    name: str

    def known_as(self, index: int) -> File:
        """Return the names by which a table may call it."""
        return File(index, tuple(dict.fromkeys((self.name, self.entry.logical))))


def place_files(root: Path, media: list[Entry], labels: LabelMap) -> list[MediaFile]:
    """Read the folders above each file; a folder around everything counts for nothing.

    Raises:
        UserError: folders that contradict each other, or files outside a train/ that exists.
    """
    depth = _wrapping(media, labels)
    places: dict[str, Place] = {}
    files = []
    for entry in media:
        folder, _, base = entry.logical.rpartition("/")
        if folder not in places:
            inside = "/".join(folder.split("/")[depth:])
            places[folder] = read_folder(inside, labels, str(root))
        place = places[folder]
        files.append(MediaFile(entry, place, f"{place.inner}/{base}" if place.inner else base))
    outside = [f for f in files if not f.place.split]
    if outside and len(outside) < len(files) and any(f.place.split == "train" for f in files):
        raise UserError(
            f"{root}: {len(outside)} files lie outside train/, val/ and test/, the first is "
            f"{outside[0].entry.path}; move them, or leave them aside in dataset.yaml: "
            f"`ignore: ['{outside[0].entry.logical.split('/')[0]}*']`"
        )
    return files


def _wrapping(media: list[Entry], labels: LabelMap) -> int:
    """Return how many top folders hold everything and say nothing (`archive/real_vs_fake/`)."""
    folders = {tuple(entry.logical.split("/")[:-1]) for entry in media}
    depth = 0
    while True:
        tops = {folder[depth] if len(folder) > depth else None for folder in folders}
        top = tops.pop()
        if tops or top is None:
            return depth
        meaning = read_word(top, labels)
        if meaning.split is not None or meaning.label is not None:
            return depth
        depth += 1
