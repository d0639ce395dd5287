"""FaceForensics++ and Celeb-DF as downloaded: folders of videos, or of their frames.

FaceForensics++'s published splits: `{train,val,test}.json`, lists of pairs of video ids.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from src.data.items.dataset_yaml import DatasetConfig, offer_ignore
from src.data.items.files import kind_of, read_bytes
from src.data.items.identities import CELEB_DF, DFD, FACEFORENSICS
from src.data.items.listing import Entry, Listing
from src.data.items.places import offer_aside
from src.data.items.tables import load_json
from src.data.items.words import make_split_map
from src.data.published.reading import LEVELS, Clip, Reading, choose_level, clip_name
from src.errors import UserError

FACEFORENSICS_NAME, CELEB_DF_NAME = "faceforensics", "celeb_df"
_ORIGINAL, _MANIPULATED = "original_sequences", "manipulated_sequences"
_CELEB = {"Celeb-real": 0, "YouTube-real": 0, "Celeb-synthesis": 1}
_CELEB_TEST = "List_of_testing_videos.txt"
_PLAIN = frozenset({"videos", "frames", "images", "faces", "crops"})
_NO_ITEMS = frozenset({"masks", "mask", "landmarks", "models"})
_ASIDE = "masks and landmarks"


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


def read_faceforensics(root: Path, listing: Listing, config: DatasetConfig) -> Reading | None:
    """Read `{original,manipulated}_sequences/METHOD/{raw,c23,c40}/{videos,frames}/VIDEO...`.

    Rössler et al., FaceForensics++, ICCV 2019, and the DeepFakeDetection set kept beside it.

    Raises:
        UserError: a file that lies elsewhere, the wanted compression level is not there, or the
            published lists of splits share a video.
    """
    reading = Reading(FACEFORENSICS_NAME, [])
    splits = make_split_map(config.splits, (entry.logical for entry in listing.media))
    elsewhere: list[str] = []
    found: list[tuple[str, str, str, tuple[str, ...], tuple[str, ...], Entry]] = []
    for entry in listing.media:
        parts = tuple(entry.logical.split("/"))
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
            found.append((parts[top], method, level, tuple(rest[1:]), parts[:top], entry))
    if elsewhere:
        raise UserError(
            f"{root}: {elsewhere[0]}: want {_ORIGINAL} or {_MANIPULATED}/METHOD/{{"
            f"{','.join(LEVELS)}}}/{{videos,frames}}/... or METHOD/masks/... as FaceForensics++ "
            f"comes ({len(elsewhere)} files lie otherwise); leave other files aside in "
            f"dataset.yaml: {offer_aside(elsewhere, (entry.logical for *_, entry in found))}"
        )
    if not found:
        return None
    level, note = choose_level(str(root), (found_in[2] for found_in in found), config)
    reading.notes.append(note)
    clips: dict[tuple[str, str], tuple[Clip, list[Entry]]] = {}
    for top, method, of, rest, above, entry in found:
        if of != level:
            reading.ignored[f"compression level {of}"] += 1
            continue
        family = DFD if method in ("actors", DFD) else FACEFORENSICS
        video = clip_name(rest)
        clip = Clip(family, video, int(top == _MANIPULATED), method, set())
        clip, entries = clips.setdefault((method, video), (clip, []))
        clip.splits.add(splits.of_folders(above) or "train")
        entries.append(entry)
    reading.clips = _frames_first(clips.values(), reading.ignored)
    place_in_splits(root, listing, reading)
    return reading


def read_celeb_df(root: Path, listing: Listing, config: DatasetConfig) -> Reading | None:
    """Read `{Celeb-real,YouTube-real,Celeb-synthesis}/[frames/]VIDEO...` (Li et al., CVPR 2020).

    The videos of List_of_testing_videos.txt, where that lies beside them, become test items; 1
    means real there. Several versions may lie side by side, each with its list.

    Raises:
        UserError: the list contradicts the folders.
    """
    splits = make_split_map(config.splits, (entry.logical for entry in listing.media))
    clips: dict[tuple[str, str, str], tuple[Clip, list[Entry]]] = {}
    reading = Reading(CELEB_DF_NAME, [])
    for entry in listing.media:
        parts = entry.logical.split("/")
        top = next((i for i, part in enumerate(parts) if part in _CELEB), None)
        if top is None:
            continue
        rest = parts[top + 1 :]
        if rest[0] in _NO_ITEMS:
            reading.ignored[_ASIDE] += 1
            continue
        video = clip_name(rest[1:] if rest[0] in _PLAIN and len(rest) > 1 else rest)
        split = splits.of_folders(parts[:top]) or "train"
        clip = Clip(CELEB_DF, video, _CELEB[parts[top]], CELEB_DF, {split})
        key = ("/".join(parts[:top]), parts[top], video)
        clips.setdefault(key, (clip, []))[1].append(entry)
    if not clips:
        return None
    _hold_out_listed(root, listing, clips, reading)
    reading.clips = _frames_first(clips.values(), reading.ignored)
    return reading


def _hold_out_listed(
    root: Path,
    listing: Listing,
    clips: dict[tuple[str, str, str], tuple[Clip, list[Entry]]],
    reading: Reading,
) -> None:
    for entry in listing.texts:
        if entry.logical.rpartition("/")[2] != _CELEB_TEST:
            continue
        lines = read_bytes(root, entry.path).decode("utf-8-sig").splitlines()
        above = entry.logical.rpartition("/")[0]
        # A list beside the folders is theirs alone; one that lies elsewhere is that of all.
        homes = {key[0] for key in clips}
        homes = {above} if above in homes else homes
        absent = []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            word, _, name = line.strip().partition(" ")
            folder, _, video = name.strip().partition("/")
            if word not in ("0", "1") or _CELEB.get(folder) != 1 - int(word):
                raise UserError(
                    f"{root / entry.path}: row {number}: {line.strip()!r}, want `1 Celeb-real/...`,"
                    " `1 YouTube-real/...` or `0 Celeb-synthesis/...` (1 means real there)"
                )
            stem = video.rpartition(".")[0] or video
            found = [clips[key] for home in homes if (key := (home, folder, stem)) in clips]
            for clip, _ in found:
                clip.splits = {"test"}
            if not found:
                absent.append(name)
        reading.notes.append(f"{entry.path}: its videos are test items (1 means real there)")
        if absent:
            reading.notes.append(
                f"WARNING {len(absent)} videos of {entry.path} are not here, the first is "
                f"{absent[0]}"
            )


def _frames_first(clips: Iterable[tuple[Clip, list[Entry]]], ignored: Counter[str]) -> list[Clip]:
    """Give each clip its frames, or its video where it has none."""
    done = []
    for clip, entries in clips:
        frames = [entry for entry in entries if kind_of(entry.logical) == "image"]
        ignored["videos whose frames are here too"] += len(entries) - len(frames) if frames else 0
        clip.paths = [entry.logical for entry in frames or entries]
        done.append(clip)
    return done
