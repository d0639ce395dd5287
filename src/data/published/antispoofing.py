"""Face anti-spoofing data as FLIP keeps it: a domain a folder, two frames a video.

Srivatsan et al., FLIP, ICCV 2023: `DOMAIN/{train,test}/{real,fake}/VIDEO_frame{0,1}.png`, and lists
`DOMAIN_{real,fake}_{train,test,shot}.txt` of such paths. Real is 1 there and 0 here.
"""

import re
from collections import Counter

from src.data.items.dataset_yaml import DOMAIN
from src.data.items.folder import Folder
from src.data.items.folder_groups import ask_above
from src.data.items.tables import read_text
from src.data.published.reading import Reading, Video, reader
from src.errors import UserError

NAME = "antispoofing"
_FRAME = re.compile(
    r"^(?:.*/)?(?P<domain>(?!(?:train|test|val)/)[^/]+)/(?:(?P<part>train|test)/)?"
    r"(?P<word>real|fake)/(?P<video>[^/]+)_frame\d+\.[A-Za-z]+$"
)
_LIST = re.compile(r"^.+_(?P<word>real|fake)_(?:train|test|shot)\.txt$")


@reader(NAME, rank=6)
def read(folder: Folder) -> Reading | None:
    """Read the folders of one or several domains; train/ and test/ of a domain are pooled.

    Where lists lie beside them, only the videos that they name are read, with all their frames; a
    domain of which they name none is left out, with a warning. Other files than these, or one
    domain with train/ and test/ and no list, make it another layout, unless `layout:` of
    dataset.yaml names this one; other files are counted then.
    """
    insists = folder.config.layout == NAME
    videos: dict[str, Video] = {}
    for entry in folder.listing.media:
        found = _FRAME.match(entry.logical)
        # `test_videos/real/x_frame0.png` is a test, no domain, unless dataset.yaml insists.
        if found is None or (not insists and folder.splits.read(found["domain"])[0]):
            if insists:
                continue
            return None
        key = entry.logical.rpartition("_frame")[0]
        # Train and test count their people separately; a real and a fake of one name may be one.
        name = f"{found['part'] or ''}/{found['video']}".lstrip("/")
        video = Video(found["domain"], name, int(found["word"] == "fake"), found["domain"])
        videos.setdefault(key, video).paths.append(entry.logical)
    if not videos or (not insists and _may_be_another(videos, folder)):
        return None
    if folder.config.folders_above is None and not insists:
        question = ask_above(Counter(one.domain for one in videos.values() for _ in one.paths))
        if question:
            raise UserError(f"{folder.root}: {question}")
    reading = Reading(list(videos.values()))
    reading.notes.append(
        "labels: real/ is 0 and fake/ is 1 (FLIP's own lists call real 1: flipped on reading); "
        "train/ and test/ of a domain are pooled, as its protocols do"
    )
    listed = _listed(folder, videos, reading)
    if listed:
        reading.videos = [video for key, video in videos.items() if key in listed]
        _count_unlisted(reading, [video for key, video in videos.items() if key not in listed])
    return reading


def _count_unlisted(reading: Reading, videos: list[Video]) -> None:
    """Count the frames of videos that no list names, and warn of domains that are gone."""
    gone: Counter[str] = Counter()
    kept = {video.domain for video in reading.videos}
    for video in videos:
        reading.ignored["frames of videos that no list names"] += len(video.paths)
        if video.domain not in kept:
            gone[video.domain] += len(video.paths)
    if gone:
        named = ", ".join(f"{domain} ({count} files)" for domain, count in sorted(gone.items()))
        reading.notes.append(
            f"WARNING no list names a video of {len(gone)} of {len(gone) + len(kept)} domains, "
            f"which are left out: {named}; add lists of theirs, or take the lists of the others "
            "away to read every domain by its folders"
        )


def _may_be_another(videos: dict[str, Video], folder: Folder) -> bool:
    """Tell `archive/{train,test}/{real,fake}/`, a competition's, from a lone domain of FLIP's."""
    if folder.config.folders_above not in (None, DOMAIN):
        return True  # people or videos
    lists = any(_LIST.match(entry.logical.rpartition("/")[2]) for entry in folder.listing.texts)
    domains = {video.domain for video in videos.values()}
    return len(domains) == 1 and not lists and any("/" in video.name for video in videos.values())


def _listed(folder: Folder, videos: dict[str, Video], reading: Reading) -> set[str]:
    """Return the keys of the videos that lists name."""
    ends = {_in_lists(key): key for key in videos}
    listed: set[str] = set()
    names, absent = 0, []
    for entry in folder.listing.texts:
        found = _LIST.match(entry.logical.rpartition("/")[2])
        if found is None:
            continue
        names += 1
        for number, row in enumerate(read_text(folder.root, entry).splitlines(), 1):
            line = row.strip().replace("\\", "/").removeprefix("./")
            key = ends.get(line.rpartition("_frame")[0])
            if not line:
                continue
            if key is None:
                absent.append(f"{line} ({entry.path}, row {number})")
            elif videos[key].label != int(found["word"] == "fake"):
                raise UserError(
                    f"{folder.where(entry)}: row {number}: {line!r} stands in a list of "
                    f"{found['word']} faces, but lies in the folder of the other class"
                )
            else:
                listed.add(key)
    if names:
        reading.notes.append(f"{names} lists name {len(listed)} of {len(videos)} videos")
    if absent:
        reading.notes.append(
            f"WARNING {len(absent)} rows of lists name no file, the first is {absent[0]}"
        )
    return listed


def _in_lists(key: str) -> str:
    """Return the end of a path that a list gives: DOMAIN/[PART/]WORD/VIDEO."""
    parts = key.split("/")
    return "/".join(parts[-4 if parts[-3] in ("train", "test") else -3 :])
