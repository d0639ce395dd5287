"""Data sets of the field as they are downloaded: which reader fits, and what comes of its videos.

A reader is a function from a folder to what it understood there, filed by `reader`; every module
of this folder is imported when one is looked for.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import pandas as pd

from src.artifacts.label_names import make_label_names
from src.data.items.dataset_yaml import DatasetConfig
from src.data.items.folder import Folder
from src.data.items.identities import VIDEO, group_sources, sources_of, video_of_frame
from src.data.items.listing import Entry
from src.data.items.manifest import (
    NO_STAMPS,
    Dataset,
    Item,
    make_manifest,
    without_sample,
)
from src.data.items.masks import masks_of_items
from src.data.pixels.frames import BEYOND, choose_frames
from src.errors import UserError, unknown_name
from src.registry import import_all

LEVELS = ("raw", "c23", "c40")
FOLDERS = "folders"  # in `layout:` of dataset.yaml: none of the field's, a competition's


@dataclass(slots=True)
class Video:
    """One video of a data set: its frames, or the video file itself."""

    # whose way of naming videos it follows (`identities.family_of`); "" for an image that belongs
    # to no video and has no group
    family: str
    name: str  # without suffix; what groups are made from
    label: int  # 0 real, 1 fake
    domain: str  # manipulation, generator, capture set-up or data set
    # `train`, `val`, `test`: where it stands; empty where published splits name others and not it
    splits: set[str] = field(default_factory=lambda: {"train"})
    # logical paths of its files, in order; each becomes an item with that id
    paths: list[str] = field(default_factory=list)
    # who is in it, the one of the video that was changed first, where the name does not tell
    people: tuple[str, ...] = ()

    def sources(self, by: str) -> Sequence[str]:
        """Return what it was made from (see `identities.sources_of`)."""
        if self.people:
            return self.people[:1] if by == VIDEO else self.people
        return sources_of(self.family, self.name, by)


@dataclass
class Reading:
    """What a reader understood."""

    videos: list[Video] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # one sentence each
    tables: set[str] = field(default_factory=set)  # logical paths of the CSV and JSON files it read
    ignored: Counter[str] = field(default_factory=Counter)  # reason -> number of files left aside
    # (label, what says so, as it is written), where two words do
    words: set[tuple[int, str]] = field(default_factory=set)
    layout: str = ""  # the reader's name
    # logical path of a picture -> its mask, where a table names it
    masks: dict[str, Entry] = field(default_factory=dict)


Reader = Callable[[Folder], Reading | None]
_READERS: dict[str, tuple[int, Reader]] = {}


def reader(name: str, *, rank: int = 100) -> Callable[[Reader], Reader]:
    """Return a decorator that files a reader, under its name in `layout:` of dataset.yaml.

    It returns None where its layout does not fit, and raises a UserError, which names file and row,
    for what it does not understand. Those of a lower rank are asked first.
    """

    def add(read: Reader) -> Reader:
        _READERS[name] = rank, read
        return read

    return add


def all_readers() -> dict[str, Reader]:
    """Return the readers by name, those that are asked first before the others."""
    import_all("src.data.published")
    return {name: read for name, (_, read) in sorted(_READERS.items(), key=lambda one: one[1][0])}


def read_published(folder: Folder, *, has_sample: bool) -> Reading | None:
    """Read a folder by the first layout of the field that fits it, None if none does.

    A folder that `has_sample` (a sample submission) is a competition's.

    Raises:
        UserError: see `reader`; `layout:` of dataset.yaml is unknown or does not fit.
    """
    wanted = folder.config.layout or ("deepfakebench" if folder.config.json else None)
    if wanted == FOLDERS or (wanted is None and has_sample):
        return None
    readers = all_readers()
    if wanted is not None and wanted not in readers:
        where = folder.root / "dataset.yaml"
        raise unknown_name(f"layout in {where}:", wanted, [*readers, FOLDERS])
    for name in readers if wanted is None else [wanted]:
        reading = readers[name](folder)
        if reading is not None:
            reading.layout = name
            return reading
    if wanted is not None:
        raise UserError(
            f"{folder.root}: nothing there has the layout {wanted} that dataset.yaml names (docs/"
            "datasets.md shows it)"
        )
    return None


def make_dataset(folder: Folder, reading: Reading) -> tuple[list[Entry], Dataset]:
    """Make a data set of what a reader understood; entry i belongs to item i.

    Raises:
        UserError: one file under two labels, or no file is there where missing ones are passed
            over.
    """
    config, entries = folder.config, folder.listing.media
    _join_shared(folder, reading)
    held_out = _hold_out(reading, config)
    rows = _rows(reading, config)
    missing = _missing(folder, reading, rows)
    _thin(folder, reading, rows, held_out)
    by_path = {entry.logical: entry for entry in entries}
    parts: tuple[list[Item], list[Item]] = ([], [])
    for path, (video, group) in rows.items():
        entry = by_path.get(path) or Entry(path, path, 0, 0)
        parts[id(video) in held_out].append(Item(entry, path, video.label, group, video.domain))
    train, test = ([row.item_id for row in part] for part in parts)
    chosen, items, truth = make_manifest(*parts)
    folds, about_val = split_folds(
        {path: _fold_of(rows[path][0].splits) for path in train},
        {path: rows[path][0].label for path in train},
    )
    reading.notes += [*_chained(rows, config), *about_val]
    unnamed = len(entries) - (len(rows) - len(missing))
    reading.ignored[f"files that no part of the {reading.layout} layout names"] += max(
        0, unnamed - reading.ignored.total()
    )
    submission, about_test = without_sample(test, config)
    ignored = {k: n for k, n in (Counter(folder.listing.ignored) + reading.ignored).items() if n}
    return chosen, Dataset(
        name=folder.name,
        root=folder.root,
        items=items,
        stamps=NO_STAMPS,
        submission=submission,
        test_labels=truth,
        given_folds=folds,
        from_splits=folds is not None,
        masks=masks_of_items(folder.listing, chosen, items, ignored, reading.masks),
        config=config,
        labels=make_label_names(reading.words),
        notes=[f"layout: {reading.layout}", *_summary(reading), *about_test, *reading.notes],
        ignored=ignored,
        missing=tuple(sorted(missing)),
    )


def _hold_out(reading: Reading, config: DatasetConfig) -> set[int]:
    """Return the `id`s of the videos that become test items; notes splits that overlap."""
    shared = Counter("+".join(sorted(v.splits)) for v in reading.videos if len(v.splits) > 1)
    only = config.overlap == "train"
    if shared:
        how = ", ".join(f"{count} videos in {splits}" for splits, count in sorted(shared.items()))
        verdict = "a train item" if only else "a test item where test names it"
        other = "test" if only else "train"
        reading.notes.append(
            f"WARNING splits overlap: {how}, of {len(reading.videos)}; each is read once, as "
            f"{verdict} (dataset.yaml: `overlap: {other}` decides otherwise)"
        )
    wanted = (video for video in reading.videos if "test" in video.splits)
    return {id(video) for video in wanted if not (only and len(video.splits) > 1)}


def _join_shared(folder: Folder, reading: Reading) -> None:
    """Make one video of those that name the same file, in the splits of both; notes how many."""
    owner: dict[str, Video] = {}
    kept: list[Video] = []
    joined: list[tuple[Video, Video]] = []
    for video in reading.videos:
        shared = [path for path in video.paths if path in owner]
        if not shared:
            owner |= dict.fromkeys(video.paths, video)
            kept.append(video)
            continue
        first = owner[shared[0]]
        for path in shared:
            if owner[path].label != video.label:
                raise UserError(
                    f"{folder.root}: {path} stands as real and as fake (videos "
                    f"{owner[path].name!r} and {video.name!r}); is a folder of the path missing on "
                    "disk?"
                )
        first.splits |= video.splits
        new = [path for path in video.paths if path not in owner]
        first.paths += new
        owner |= dict.fromkeys(new, first)
        joined.append((first, video))
    reading.videos = kept
    if joined:
        first, video = joined[0]
        reading.notes.append(
            f"WARNING {len(joined)} videos name files of another one, the first are {video.name} "
            f"({video.domain}) and {first.name} ({first.domain}): each file is read once, as the "
            "latter's, in the splits of both"
        )


def split_folds(
    folds: Mapping[str, int], labels: Mapping[str, int]
) -> tuple[pd.Series | None, list[str]]:
    """Return the folds that given splits make, None without a val of both classes; and notes.

    `folds` says of each train item: 0 holds out val, 1 train, -1 where no split names it.
    """
    val = sum(fold == 0 for fold in folds.values())
    if not val:
        return None, []
    pooled = f"val: {val} items, pooled with train and split again by the folds"
    if len({(fold, labels[path]) for path, fold in folds.items() if fold >= 0}) < 4:
        return None, [f"{pooled} (train or val has one class alone)"]
    note = (
        f"{pooled}; `--scheme fixed` keeps them apart: fold 0 is trained on train and scored on "
        "val, fold 1 the other way round"
    )
    return pd.Series(folds, dtype="int64", name="fold").sort_index(), [note]


def _fold_of(splits: AbstractSet[str]) -> int:
    return int("train" in splits or "val" not in splits) if splits else -1


def choose_level(where: str, found: Iterable[str], config: DatasetConfig) -> tuple[str, str]:
    """Return the compression level to read, and a note on it.

    Raises:
        UserError: dataset.yaml wants one that is not there, or there are several without c23.
    """
    levels = sorted(set(found))
    wanted = config.compression or (levels[0] if len(levels) == 1 else "c23")
    if wanted not in levels:
        raise UserError(
            f"{where}: compression level {wanted} is not there, only {', '.join(levels)}; say in "
            f"dataset.yaml which to read: `compression: {levels[0]}`"
        )
    others = ", ".join(level for level in levels if level != wanted)
    also = f"; {others} left aside (dataset.yaml: `compression:`)" if others else ""
    return wanted, f"compression level: {wanted}{also}"


def _thin(
    folder: Folder, reading: Reading, rows: dict[str, tuple[Video, str]], held_out: set[int]
) -> None:
    """Take out the frames beyond `frames_per_video`: evenly spaced ones of those here stay."""
    counts = folder.config.frames_per_video
    for video in reading.videos if any(counts) else ():
        if video.family:  # else a picture of no video
            here = [path for path in video.paths if path in folder.on_disk and path in rows]
            for path in {*here} - {*choose_frames(here, counts[id(video) in held_out])}:
                del rows[path]
                reading.ignored[BEYOND] += 1


def _rows(reading: Reading, config: DatasetConfig) -> dict[str, tuple[Video, str]]:
    """Return path -> its video and group."""
    named = [video for video in reading.videos if video.family]
    made_from = ((video.family, video.sources(config.group_by)) for video in named)
    groups = {id(video): of for video, of in zip(named, group_sources(made_from), strict=True)}
    return {path: (one, groups.get(id(one), "")) for one in reading.videos for path in one.paths}


def _chained(rows: dict[str, tuple[Video, str]], config: DatasetConfig) -> list[str]:
    named = Counter(group for _, group in rows.values() if group)
    if config.group_by == VIDEO or not named:
        return []
    group, count = named.most_common(1)[0]
    videos = {id(video): video for video, of in rows.values() if of == group}.values()
    if count <= len(rows) / 2 or len({video.sources(VIDEO)[0] for video in videos}) < 2:
        return []
    return [
        f"WARNING shared identities chain {count} of {len(rows)} items into one group ({group}); "
        f"`group_by: {VIDEO}` in dataset.yaml ties a swap to the clip that it changes alone"
    ]


def _missing(folder: Folder, reading: Reading, rows: dict[str, tuple[Video, str]]) -> list[str]:
    """Return the files that are not there; where they are to be passed over, takes them out."""
    missing = [path for path in rows if path not in folder.on_disk]
    if not missing or folder.config.missing_files != "ignore":
        return missing
    if len(missing) == len(rows):
        raise UserError(
            f"{folder.root}: none of the {len(missing)} files that the {reading.layout} layout "
            f"names is there, the first is {missing[0]}"
        )
    for path in missing:
        del rows[path]
    reading.notes.append(f"{len(missing)} files are named but not there: passed over")
    return []


def _summary(reading: Reading) -> list[str]:
    fakes = sum(video.label for video in reading.videos)
    empty = [video for video in reading.videos if not video.paths]
    what = "videos" if any(video.family for video in reading.videos) else "pictures"
    notes = [f"{len(reading.videos) - fakes} real and {fakes} fake {what}"]
    if empty:
        notes.append(
            f"WARNING {len(empty)} videos have no frame, the first is {empty[0].name} "
            f"({empty[0].domain}): no item"
        )
    return notes


def video_name(parts: Sequence[str]) -> str:
    """Return the video of a file (its path below the folder that holds all videos or frames).

    That is its folder, or its own name without the number of the frame.
    """
    if len(parts) > 1:
        return parts[-2]
    stem = PurePosixPath(parts[-1]).stem
    return video_of_frame(stem) or stem
