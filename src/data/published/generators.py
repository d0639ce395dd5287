"""Sets of generated images, a generator a folder: GenImage, and CNNDetection's ForenSynths.

`GENERATOR/{train,val}/{nature,ai}/x` (Zhu et al., GenImage, NeurIPS 2023) and
`GENERATOR/[CATEGORY/]{0_real,1_fake}/x` (Wang et al., CNN-generated images, CVPR 2020).
"""

from collections import Counter

from src.data.items.folder import Folder
from src.data.items.places import offer_aside
from src.data.items.words import SplitMap
from src.data.published.reading import Reading, Video, reader
from src.errors import UserError

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


@reader("generators", rank=7)
def read(folder: Folder) -> Reading | None:
    """Read images by generator, which becomes the domain; each is its own group.

    val/ is pooled with train/; test/ becomes test items.
    """
    reading = Reading()
    placed: list[tuple[tuple[str, ...], int, str]] = []
    outside: list[str] = []
    for path in (entry.logical for entry in folder.listing.media):
        parts = path.split("/")
        at = next((i for i, part in enumerate(parts[:-1]) if part.lower() in _CLASSES), None)
        if at is None:
            outside.append(path)
            continue
        label = _CLASSES[parts[at].lower()]
        reading.words.add((label, parts[at]))
        placed.append((tuple(parts[:at]), label, path))
    if _MARKS.isdisjoint(word.lower() for _, word in reading.words):
        return None
    if outside:
        raise UserError(
            f"{folder.root}: {len(outside)} files lie in no class folder (nature and ai, or 0_real "
            f"and 1_fake), the first is {outside[0]}; leave them aside in dataset.yaml: "
            + offer_aside(outside, (path for _, _, path in placed))
        )
    above = {parts: _without_split(parts, folder.splits) for parts, _, _ in placed}
    domains = _domains(above, folder.root.name)
    for parts, label, path in placed:
        split = folder.splits.of_folders(parts) or "train"
        reading.videos.append(Video("", path, label, domains[parts], {split}, [path]))
    counts = Counter(picture.domain for picture in reading.videos)
    found = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    reading.notes.append(f"images of {len(counts)} generators, which are the domains: {found}")
    return reading


def _without_split(parts: tuple[str, ...], splits: SplitMap) -> tuple[str, ...]:
    """Drop the word of the split: the first such folder's, for `train` is a category too."""
    at = next((i for i, part in enumerate(parts) if splits.read(part)[0]), len(parts))
    rest = (splits.read(part)[1] for part in parts[at : at + 1])
    return (*parts[:at], *(name for name in rest if name), *parts[at + 1 :])


def _domains(
    above: dict[tuple[str, ...], tuple[str, ...]], otherwise: str
) -> dict[tuple[str, ...], str]:
    """Return the generator of each folder that holds class folders."""
    nameless = {parts for parts, names in above.items() if not _KNOWN & {n.lower() for n in names}}
    progan = {above[parts][0] for parts in nameless if above[parts]} & _PROGAN
    wrap = _wrapping(list(above.values()))
    domains = {}
    for parts, names in above.items():
        if parts in nameless and names and names[0] in progan and len(progan) >= _FEWEST:
            domains[parts] = "progan"
        else:
            known = next((name for name in names if name.lower() in _KNOWN), None)
            domains[parts] = known or (names[wrap] if names else otherwise)
    return domains


def _wrapping(folders: list[tuple[str, ...]]) -> int:
    """Return how many top folders are the same for all; one is left to each."""
    longest = max(0, min(map(len, folders)) - 1)
    same = 0
    while same < longest and len({folder[same] for folder in folders}) == 1:
        same += 1
    return same
