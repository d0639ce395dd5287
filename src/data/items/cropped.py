"""Which data sets say that their pictures are faces already."""

import os
from functools import lru_cache
from pathlib import Path

from src import paths
from src.data.items.dataset_yaml import read_dataset_yaml


def part_of(path: str) -> str:
    """Return the neighbouring data set that an item is taken from; "" for its own."""
    words = path.split("/", 2)
    return words[1] if words[0] == ".." and len(words) == 3 else ""


@lru_cache(maxsize=64)
def says_cropped(root: Path, part: str) -> bool:
    """Tell whether `dataset.yaml` of a data set, or of a neighbour of it, says `faces: cropped`.

    Args:
        root: folder of the data set.
        part: name of the neighbour; "" for the data set itself.
    """
    folder = Path(os.path.normpath(root / ".." / part)) if part else root
    try:
        stands_for_it = paths.readable(paths.dataset_yaml(folder.name))
        return read_dataset_yaml(folder, stands_for_it).faces == "cropped"
    except OSError:
        return False
