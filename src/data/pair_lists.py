"""FaceForensics++'s published splits: `{train,val,test}.json`, lists of pairs of video ids."""

import re
from pathlib import Path, PurePosixPath

from src.data.dataset_yaml import offer_ignore
from src.data.field import Reading
from src.data.identities import FACEFORENSICS
from src.data.json_files import load_json
from src.data.sources import Listing
from src.errors import UserError

_SPLITS = ("train", "val", "test")
_ID = re.compile(r"^\d{3}$")


def place_in_splits(root: Path, listing: Listing, reading: Reading) -> None:
    """Give the clips their splits where lists lie beside them, `[["000", "003"], ...]`.

    A pair stands for the originals 000 and 003 and the swaps 000_003 and 003_000. A video of
    which no list names the people is always trained on.

    Args:
        root, listing: of the data set.
        reading: its clips of FaceForensics++ get `splits`; the tables and notes are added.

    Raises:
        UserError: a list is not readable, or two lists share a video.
    """
    split_of: dict[str, str] = {}
    names = []
    for entry in listing.tables:
        split = PurePosixPath(entry.logical).stem
        if entry.suffix != ".json" or split not in _SPLITS:
            continue
        content, _ = load_json(root, entry)
        if not _is_pairs(content):
            continue
        names.append(entry.path)
        reading.tables.add(entry.logical)
        for video in (video for pair in content for video in pair):
            other = split_of.setdefault(video, split)
            if other != split:
                raise UserError(
                    f"{root / entry.path}: video {video} stands in a list of {other} too; lists of "
                    "splits may not share a video: correct one, or leave them aside in "
                    f"dataset.yaml: {offer_ignore(entry.logical)}"
                )
    if names:
        _apply(reading, split_of, names)


def _is_pairs(content: object) -> bool:
    return isinstance(content, list) and bool(content) and all(map(_is_pair, content))


def _is_pair(pair: object) -> bool:
    if not isinstance(pair, list) or len(pair) != 2:
        return False
    return all(isinstance(video, str) and _ID.match(video) for video in pair)


def _apply(reading: Reading, split_of: dict[str, str], names: list[str]) -> None:
    unlisted: list[str] = []
    mixed: list[str] = []
    for clip in reading.clips:
        people = clip.video.split("_") if clip.family == FACEFORENSICS else []
        clip.splits = {split_of[person] for person in people if person in split_of}
        if not clip.splits:
            unlisted.append(clip.video)
        elif len(clip.splits) > 1:
            clip.splits -= {"test"}
            mixed.append(clip.video)
    reading.notes.append(
        f"splits: {', '.join(names)} (pairs of videos), those of test are test items"
    )
    for videos, what in ((unlisted, "stand in no list"), (mixed, "mix people of several lists")):
        if videos:
            reading.notes.append(
                f"WARNING {len(videos)} videos {what} of splits, the first is {videos[0]}: they "
                "are train items"
            )
