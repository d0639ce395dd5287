"""Sets of generated images, a generator a folder: GenImage, and CNNDetection's ForenSynths.

`GENERATOR/{train,val}/{nature,ai}/x` (Zhu et al., GenImage, NeurIPS 2023) and
`GENERATOR/[CATEGORY/]{0_real,1_fake}/x` (Wang et al., CNN-generated images, CVPR 2020).
"""

from collections import Counter
from pathlib import Path

from src.data.items.dataset_yaml import DatasetConfig
from src.data.items.listing import Listing
from src.data.items.places import offer_aside
from src.data.items.words import SplitMap, make_split_map
from src.data.published.reading import Clip, Reading
from src.errors import UserError

NAME = "generators"
_CLASSES = {"nature": 0, "0_real": 0, "ai": 1, "1_fake": 1}
_MARKS = frozenset({"nature", "0_real", "1_fake"})  # `ai` alone is any data set's folder
# Generators that have folders of categories below them in ForenSynths.
_KNOWN = frozenset((
    "progan", "stylegan", "stylegan2", "biggan", "cyclegan", "stargan", "gaugan", "crn", "imle",
    "san", "seeingdark", "deepfake", "whichfaceisreal",
))  # fmt: skip
# What ProGAN's training set has on top: LSUN's categories, and no folder of the generator's name.
_PROGAN = frozenset((
    "airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
))  # fmt: skip
_FEWEST = 10  # of these categories, to be taken for ProGAN's and not for generators


def read(root: Path, listing: Listing, config: DatasetConfig) -> Reading | None:
    """Read images by generator, which becomes the domain; each is its own group.

    val/ is pooled with train/; test/ becomes test items.

    Raises:
        UserError: a file in no class folder.
    """
    reading = Reading(NAME, [])
    placed: list[tuple[tuple[str, ...], int, str]] = []
    outside: list[str] = []
    marked = False
    for entry in listing.media:
        parts = entry.logical.split("/")
        at = next((i for i, part in enumerate(parts[:-1]) if part.lower() in _CLASSES), None)
        if at is None:
            outside.append(entry.logical)
            continue
        marked |= parts[at].lower() in _MARKS
        reading.words.add((_CLASSES[parts[at].lower()], parts[at]))
        placed.append((tuple(parts[:at]), _CLASSES[parts[at].lower()], entry.logical))
    if not marked:
        return None
    if outside:
        raise UserError(
            f"{root}: {len(outside)} files lie in no class folder (nature and ai, or 0_real and "
            f"1_fake), the first is {outside[0]}; leave them aside in dataset.yaml: "
            + offer_aside(outside, (path for _, _, path in placed))
        )
    folders = {parts for parts, _, _ in placed}
    splits = make_split_map(config.splits, (entry.logical for entry in listing.media))
    domains = _domains({parts: _above(parts, splits) for parts in folders}, root.name)
    for parts, label, path in placed:
        split = splits.of_folders(parts) or "train"
        reading.clips.append(Clip("", path, label, domains[parts], {split}, [path]))
    counts = Counter(clip.domain for clip in reading.clips)
    found = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    reading.notes.append(f"images of {len(counts)} generators, which are the domains: {found}")
    return reading


def _above(parts: tuple[str, ...], splits: SplitMap) -> tuple[str, ...]:
    """Drop the word of the split: the first such folder's, for `train` is a category too."""
    at = next((i for i, part in enumerate(parts) if splits.read(part)[0]), len(parts))
    rest = (splits.read(part)[1] for part in parts[at : at + 1])
    return (*parts[:at], *(name for name in rest if name), *parts[at + 1 :])


def _domains(
    above: dict[tuple[str, ...], tuple[str, ...]], otherwise: str
) -> dict[tuple[str, ...], str]:
    nameless = {parts for parts, names in above.items() if not _KNOWN & {n.lower() for n in names}}
    progan = {above[parts][0] for parts in nameless if above[parts]} & _PROGAN
    wrap = _wrapping(list(above.values()))
    domains = {}
    for parts, names in above.items():
        if parts in nameless and names and names[0] in progan and len(progan) >= _FEWEST:
            domains[parts] = "progan"
        else:
            domains[parts] = _generator(names, wrap, otherwise)
    return domains


def _wrapping(folders: list[tuple[str, ...]]) -> int:
    """Return how many top folders are the same for all; one is left to each."""
    longest = max(0, min(map(len, folders)) - 1)
    same = 0
    while same < longest and len({folder[same] for folder in folders}) == 1:
        same += 1
    return same


def _generator(folder: tuple[str, ...], wrap: int, otherwise: str) -> str:
    known = next((part for part in folder if part.lower() in _KNOWN), None)
    return known or (folder[wrap] if folder else otherwise)
