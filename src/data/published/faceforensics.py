"""FaceForensics++ and Celeb-DF as downloaded: folders of videos, or of their frames."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from src.data.items.dataset_yaml import offer_ignore
from src.data.items.files import kind_of
from src.data.items.folder import Folder
from src.data.items.identities import CELEB_DF, DFD, FACEFORENSICS
from src.data.items.listing import Entry
from src.data.items.places import offer_aside
from src.data.items.tables import load_json, read_text
from src.data.published.reading import (
    LEVELS,
    Reading,
    Video,
    choose_level,
    reader,
    video_name,
)
from src.errors import UserError

_ORIGINAL, _MANIPULATED = "original_sequences", "manipulated_sequences"
_CELEB = {"Celeb-real": 0, "YouTube-real": 0, "Celeb-synthesis": 1}
_CELEB_TEST = "List_of_testing_videos.txt"
_PLAIN = frozenset({"videos", "frames", "images", "faces", "crops"})
_NO_ITEMS = frozenset({"masks", "mask", "landmarks", "models"})
_ASIDE = "masks and landmarks"
_ID = re.compile(r"^\d{3}$")

_Files = tuple[Video, list[Entry]]  # a video and the files that are its


@reader("faceforensics", rank=2)
def read_faceforensics(folder: Folder) -> Reading | None:
    """Read `{original,manipulated}_sequences/METHOD/{raw,c23,c40}/{videos,frames}/VIDEO...`.

    Rössler et al., FaceForensics++, ICCV 2019, and the DeepFakeDetection set kept beside it.
    """
    reading = Reading()
    elsewhere: list[str] = []
    found: list[tuple[str, str, str, list[str], list[str], Entry]] = []
    for entry in folder.listing.media:
        parts = entry.logical.split("/")
        top = next((i for i, part in enumerate(parts) if part in (_ORIGINAL, _MANIPULATED)), None)
        if top is None:
            continue
        if not _NO_ITEMS.isdisjoint(parts[top + 2 : -1]):
            reading.ignored[_ASIDE] += 1
            continue
        _, method, level, *rest = parts[top:] if len(parts) > top + 3 else (*parts[top:], "", "")
        if level not in LEVELS or not rest or rest[0] not in _PLAIN:
            elsewhere.append(entry.logical)
        elif len(rest) > 1:
            found.append((parts[top], method, level, rest[1:], parts[:top], entry))
    if elsewhere:
        raise UserError(
            f"{folder.root}: {elsewhere[0]}: want {_ORIGINAL} or {_MANIPULATED}/METHOD/{{"
            f"{','.join(LEVELS)}}}/{{videos,frames}}/... or METHOD/masks/... as FaceForensics++ "
            f"comes ({len(elsewhere)} files lie otherwise); leave other files aside in "
            f"dataset.yaml: {offer_aside(elsewhere, (entry.logical for *_, entry in found))}"
        )
    if not found:
        return None
    level, note = choose_level(str(folder.root), (one[2] for one in found), folder.config)
    reading.notes.append(note)
    videos: dict[tuple[str, str], _Files] = {}
    for top, method, of, rest, above, entry in found:
        if of != level:
            reading.ignored[f"compression level {of}"] += 1
            continue
        family = DFD if method in ("actors", DFD) else FACEFORENSICS
        name = video_name(rest)
        video = Video(family, name, int(top == _MANIPULATED), method, set())
        video, entries = videos.setdefault((method, name), (video, []))
        video.splits.add(folder.splits.of_folders(above) or "train")
        entries.append(entry)
    reading.videos = _frames_first(videos.values(), reading.ignored)
    _read_splits(folder, reading)
    return reading


def _read_splits(folder: Folder, reading: Reading) -> None:
    """Give the videos their published splits where `{train,val,test}.json` lie beside them.

    A pair `["000", "003"]` stands for these originals and the swaps 000_003 and 003_000. A video
    of which no list names the people is always trained on.
    """
    split_of: dict[str, str] = {}
    names = []
    for entry in folder.listing.tables:
        split = PurePosixPath(entry.logical).stem
        if entry.suffix != ".json" or split not in ("train", "val", "test"):
            continue
        content, _ = load_json(folder.root, entry)
        if not (isinstance(content, list) and content and all(map(_is_pair, content))):
            continue
        names.append(entry.path)
        reading.tables.add(entry.logical)
        for video in (video for pair in content for video in pair):
            other = split_of.setdefault(video, split)
            if other != split:
                raise UserError(
                    f"{folder.where(entry)}: video {video} stands in a list of {other} too; lists "
                    "of splits may not share a video: correct one, or leave them aside in "
                    f"dataset.yaml: {offer_ignore(entry.logical)}"
                )
    if names:
        _apply_splits(reading, split_of, names)


def _is_pair(pair: Any) -> bool:  # noqa: ANN401 - whatever a JSON holds
    if not isinstance(pair, list) or len(pair) != 2:
        return False
    return all(isinstance(video, str) and _ID.match(video) for video in pair)


def _apply_splits(reading: Reading, split_of: dict[str, str], names: list[str]) -> None:
    unlisted: list[str] = []
    mixed: list[str] = []
    for video in reading.videos:
        people = video.name.split("_") if video.family == FACEFORENSICS else []
        video.splits = {split_of[person] for person in people if person in split_of}
        if not video.splits:
            unlisted.append(video.name)
        elif len(video.splits) > 1:
            video.splits -= {"test"}
            mixed.append(video.name)
    reading.notes.append(
        f"splits: {', '.join(names)} (pairs of videos), those of test are test items"
    )
    for some, what in ((unlisted, "stand in no list"), (mixed, "mix people of several lists")):
        if some:
            reading.notes.append(
                f"WARNING {len(some)} videos {what} of splits, the first is {some[0]}: they "
                "are train items"
            )


@reader("celeb_df", rank=3)
def read_celeb_df(folder: Folder) -> Reading | None:
    """Read `{Celeb-real,YouTube-real,Celeb-synthesis}/[frames/]VIDEO...` (Li et al., CVPR 2020).

    The videos of List_of_testing_videos.txt, where that lies beside them, become test items; 1
    means real there. Several versions may lie side by side, each with its list.
    """
    videos: dict[tuple[str, str, str], _Files] = {}
    reading = Reading()
    for entry in folder.listing.media:
        parts = entry.logical.split("/")
        top = next((i for i, part in enumerate(parts) if part in _CELEB), None)
        if top is None:
            continue
        rest = parts[top + 1 :]
        if rest[0] in _NO_ITEMS:
            reading.ignored[_ASIDE] += 1
            continue
        name = video_name(rest[1:] if rest[0] in _PLAIN and len(rest) > 1 else rest)
        split = folder.splits.of_folders(parts[:top]) or "train"
        video = Video(CELEB_DF, name, _CELEB[parts[top]], CELEB_DF, {split})
        key = ("/".join(parts[:top]), parts[top], name)
        videos.setdefault(key, (video, []))[1].append(entry)
    if not videos:
        return None
    for entry in folder.listing.texts:
        if entry.logical.rpartition("/")[2] == _CELEB_TEST:
            _hold_out_listed(folder, entry, {key: video for key, (video, _) in videos.items()},
                             reading)  # fmt: skip
    reading.videos = _frames_first(videos.values(), reading.ignored)
    return reading


def _hold_out_listed(
    folder: Folder, entry: Entry, videos: dict[tuple[str, str, str], Video], reading: Reading
) -> None:
    # A list beside the folders is theirs alone; one that lies elsewhere is that of all.
    above = entry.logical.rpartition("/")[0]
    homes = {key[0] for key in videos}
    homes = {above} if above in homes else homes
    absent = []
    for number, row in enumerate(read_text(folder.root, entry).splitlines(), 1):
        line = row.strip()
        if not line:
            continue
        word, _, path = line.partition(" ")
        top, _, name = path.strip().partition("/")
        if word not in ("0", "1") or _CELEB.get(top) != 1 - int(word):
            raise UserError(
                f"{folder.where(entry)}: row {number}: {line!r}, want `1 Celeb-real/...`,"
                " `1 YouTube-real/...` or `0 Celeb-synthesis/...` (1 means real there)"
            )
        stem = name.rpartition(".")[0] or name
        found = [videos[key] for home in homes if (key := (home, top, stem)) in videos]
        for video in found:
            video.splits = {"test"}
        absent += [] if found else [path.strip()]
    reading.notes.append(f"{entry.path}: its videos are test items (1 means real there)")
    if absent:
        reading.notes.append(
            f"WARNING {len(absent)} videos of {entry.path} are not here, the first is {absent[0]}"
        )


def _frames_first(videos: Iterable[_Files], ignored: Counter[str]) -> list[Video]:
    """Give each video its frames, or its file where it has none."""
    done = []
    for video, entries in videos:
        frames = [entry for entry in entries if kind_of(entry.logical) == "image"]
        ignored["videos whose frames are here too"] += len(entries) - len(frames) if frames else 0
        video.paths = [entry.logical for entry in frames or entries]
        done.append(video)
    return done
