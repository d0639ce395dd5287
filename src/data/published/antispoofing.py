"""Face anti-spoofing data as FLIP keeps it: a domain a folder, two frames a video.

Srivatsan et al., FLIP, ICCV 2023: `DOMAIN/{train,test}/{real,fake}/VIDEO_frame{0,1}.png`, and lists
`DOMAIN_{real,fake}_{train,test,shot}.txt` of such paths. Real is 1 there and 0 here.
"""

import re
from collections import Counter
from pathlib import Path

from src.data.items.dataset_yaml import DOMAIN, DatasetConfig
from src.data.items.files import read_bytes
from src.data.items.folder_groups import ask_above
from src.data.items.listing import Listing
from src.data.items.words import make_split_map
from src.data.published.reading import Clip, Reading
from src.errors import UserError

NAME = "antispoofing"
_FRAME = re.compile(
    r"^(?:.*/)?(?P<domain>(?!(?:train|test|val)/)[^/]+)/(?:(?P<part>train|test)/)?"
    r"(?P<word>real|fake)/(?P<video>[^/]+)_frame\d+\.[A-Za-z]+$"
)
_LIST = re.compile(r"^.+_(?P<word>real|fake)_(?:train|test|shot)\.txt$")
_PARTS = frozenset({"train", "test"})


def read(root: Path, listing: Listing, config: DatasetConfig) -> Reading | None:
    """Read the folders of one or several domains; train/ and test/ of a domain are pooled.

    Where lists lie beside them, only the videos that they name are read, with all their frames;
    a domain of which they name none is left out, with a warning.

    Other files than these, or one domain with train/ and test/ and no list, make it another
    layout, unless `layout:` of dataset.yaml names this one; other files are counted then.

    Raises:
        UserError: a list names a video under the other class.
    """
    clips: dict[str, Clip] = {}
    splits = make_split_map(config.splits, (entry.logical for entry in listing.media))
    for entry in listing.media:
        found = _FRAME.match(entry.logical)
        # `test_videos/real/x_frame0.png` is a test, no domain, unless dataset.yaml insists.
        if found is None or (config.layout != NAME and splits.read(found["domain"])[0]):
            if config.layout == NAME:
                continue
            return None
        key = entry.logical.rpartition("_frame")[0]
        # Train and test count their people separately; a real and a fake of one name may be one.
        video = f"{found['part'] or ''}/{found['video']}".lstrip("/")
        clip = Clip(found["domain"], video, int(found["word"] == "fake"), found["domain"])
        clips.setdefault(key, clip).paths.append(entry.logical)
    if not clips or (config.layout != NAME and _may_be_another(clips, listing, config)):
        return None
    if config.folders_above is None and config.layout != NAME:
        question = ask_above(Counter(c.domain for c in clips.values() for _ in c.paths))
        if question:
            raise UserError(f"{root}: {question}")
    reading = Reading(NAME, list(clips.values()))
    reading.notes.append(
        "labels: real/ is 0 and fake/ is 1 (FLIP's own lists call real 1: flipped on reading); "
        "train/ and test/ of a domain are pooled, as its protocols do"
    )
    listed = _listed(root, listing, clips, reading)
    if listed:
        reading.clips = [clip for key, clip in clips.items() if key in listed]
        _count_unlisted(reading, [clip for key, clip in clips.items() if key not in listed])
    return reading


def _count_unlisted(reading: Reading, clips: list[Clip]) -> None:
    """Count the frames of videos that no list names, and warn of domains that are gone."""
    gone: Counter[str] = Counter()
    kept = {clip.domain for clip in reading.clips}
    for clip in clips:
        reading.ignored["frames of videos that no list names"] += len(clip.paths)
        if clip.domain not in kept:
            gone[clip.domain] += len(clip.paths)
    if gone:
        named = ", ".join(f"{domain} ({count} files)" for domain, count in sorted(gone.items()))
        reading.notes.append(
            f"WARNING no list names a video of {len(gone)} of {len(gone) + len(kept)} domains, "
            f"which are left out: {named}; add lists of theirs, or take the lists of the others "
            "away to read every domain by its folders"
        )


def _may_be_another(clips: dict[str, Clip], listing: Listing, config: DatasetConfig) -> bool:
    """Tell `archive/{train,test}/{real,fake}/`, a competition's, from a lone domain of FLIP's.

    Folders that dataset.yaml calls people or videos are no domains of FLIP's either.
    """
    if config.folders_above not in (None, DOMAIN):
        return True
    lists = any(_LIST.match(entry.logical.rpartition("/")[2]) for entry in listing.texts)
    domains = {clip.domain for clip in clips.values()}
    return len(domains) == 1 and not lists and any("/" in clip.video for clip in clips.values())


def _listed(root: Path, listing: Listing, clips: dict[str, Clip], reading: Reading) -> set[str]:
    """Return the clips that lists name."""
    ends = {"/".join(key.split("/")[-_depth(key) :]): key for key in clips}
    listed: set[str] = set()
    names, absent = 0, []
    for entry in listing.texts:
        found = _LIST.match(entry.logical.rpartition("/")[2])
        if found is None:
            continue
        names += 1
        for number, line in enumerate(_lines(root, entry.path), 1):
            if not line:
                continue
            key = ends.get(line.rpartition("_frame")[0])
            if key is None:
                absent.append(f"{line} ({entry.path}, row {number})")
            elif clips[key].label != int(found["word"] == "fake"):
                raise UserError(
                    f"{root / entry.path}: row {number}: {line!r} stands in a list of "
                    f"{found['word']} faces, but lies in the folder of the other class"
                )
            else:
                listed.add(key)
    if names:
        reading.notes.append(f"{names} lists name {len(listed)} of {len(clips)} videos")
    if absent:
        reading.notes.append(
            f"WARNING {len(absent)} rows of lists name no file, the first is {absent[0]}"
        )
    return listed


def _depth(key: str) -> int:
    """Return how many parts of a path a list gives: DOMAIN/[PART/]WORD/VIDEO."""
    return 4 if key.split("/")[-3] in _PARTS else 3


def _lines(root: Path, path: str) -> list[str]:
    text = read_bytes(root, path).decode("utf-8-sig")
    return [line.strip().replace("\\", "/").removeprefix("./") for line in text.splitlines()]
