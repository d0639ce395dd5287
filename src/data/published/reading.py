"""Data sets of the field as they are downloaded: from clips of a reader to a manifest.

What published splits mean: which clips are held out, and which folds train and val make.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pandas as pd

from src.artifacts.label_names import make_label_names
from src.data.items.dataset_yaml import DatasetConfig
from src.data.items.identities import VIDEO, group_sources, sources_of, video_of_frame
from src.data.items.listing import Entry
from src.data.items.manifest import Dataset, Row, make_manifest, without_sample
from src.data.pixels.frames import BEYOND, choose_frames
from src.errors import UserError

LEVELS = ("raw", "c23", "c40")


def hold_out(reading: "Reading", config: DatasetConfig) -> set[int]:
    """Return the ids of the clips that become test items; notes splits that overlap."""
    shared = Counter(
        "+".join(sorted(clip.splits)) for clip in reading.clips if len(clip.splits) > 1
    )
    only = config.overlap == "train"
    if shared:
        how = ", ".join(f"{count} videos in {splits}" for splits, count in sorted(shared.items()))
        verdict = "a train item" if only else "a test item where test names it"
        other = "test" if only else "train"
        reading.notes.append(
            f"WARNING splits overlap: {how}, of {len(reading.clips)}; each is read once, as "
            f"{verdict} (dataset.yaml: `overlap: {other}` decides otherwise)"
        )
    wanted = (clip for clip in reading.clips if "test" in clip.splits)
    return {id(clip) for clip in wanted if not (only and len(clip.splits) > 1)}


def join_shared(root: Path, reading: "Reading") -> None:
    """Make one clip of those that name the same file, in the splits of both; notes how many.

    Raises:
        UserError: a file stands as real and as fake.
    """
    owner: dict[str, Clip] = {}
    kept: list[Clip] = []
    joined: list[tuple[Clip, Clip]] = []
    for clip in reading.clips:
        shared = [path for path in clip.paths if path in owner]
        if not shared:
            owner |= dict.fromkeys(clip.paths, clip)
            kept.append(clip)
            continue
        first = owner[shared[0]]
        for path in shared:
            if owner[path].label != clip.label:
                raise UserError(
                    f"{root}: {path} stands as real and as fake (videos {owner[path].video!r} and "
                    f"{clip.video!r}); is a folder of the path missing on disk?"
                )
        first.splits |= clip.splits
        new = [path for path in clip.paths if path not in owner]
        first.paths += new
        owner |= dict.fromkeys(new, first)
        joined.append((first, clip))
    reading.clips = kept
    if joined:
        first, clip = joined[0]
        reading.notes.append(
            f"WARNING {len(joined)} videos name files of another one, the first are {clip.video} "
            f"({clip.domain}) and {first.video} ({first.domain}): each file is read once, as the "
            "latter's, in the splits of both"
        )


def split_folds(
    folds: Mapping[str, int], labels: Mapping[str, int]
) -> tuple[pd.Series | None, list[str]]:
    """Return the folds that given splits make, None without a val of both classes; and notes.

    Args:
        folds: of each train item: 0 holds out val, 1 train, -1 where no split names it.
        labels: of each.
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


def fold_of(splits: Set[str]) -> int:
    """Return the fold of a train item: 0 for val, 1 for train, -1 where no split names it."""
    return int("train" in splits or "val" not in splits) if splits else -1


@dataclass(slots=True)
class Clip:
    """One video of a data set: its frames, or the video file itself."""

    # whose way of naming videos it follows (`identities.family_of`); "" for an image that belongs
    # to no video and has no group
    family: str
    video: str  # its name, without suffix; what groups are made from
    label: int  # 0 real, 1 fake
    domain: str  # manipulation, generator, capture set-up or data set
    # `train`, `val`, `test`: where it stands; empty where published splits name others and not it
    splits: set[str] = field(default_factory=lambda: {"train"})
    # logical paths of its files, in order; each becomes an item with that id
    paths: list[str] = field(default_factory=list)
    # who is in it, the one of the clip that was changed first, where that does not follow from the
    # name
    people: tuple[str, ...] = ()

    def sources(self, by: str) -> Sequence[str]:
        """Return what it was made from (see `identities.sources_of`)."""
        if self.people:
            return self.people[:1] if by == VIDEO else self.people
        return sources_of(self.family, self.video, by)


@dataclass
class Reading:
    """What a reader understood."""

    layout: str  # its name, for messages
    clips: list[Clip]  # all clips
    notes: list[str] = field(default_factory=list)  # one sentence each
    tables: set[str] = field(default_factory=set)  # logical paths of the CSV and JSON files it read
    ignored: Counter[str] = field(default_factory=Counter)  # reason -> number of files left aside
    # (label, what says so, as it is written), where two words do
    words: set[tuple[int, str]] = field(default_factory=set)


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


def make_dataset(
    name: str,
    root: Path,
    entries: Sequence[Entry],
    reading: Reading,
    ignored: dict[str, int],
    config: DatasetConfig,
) -> tuple[list[Entry], Dataset]:
    """Make a data set of clips; entry i belongs to item i.

    Args:
        name, root, config: of the data set.
        entries: media files that exist.
        reading: what the reader understood.
        ignored: what was left aside when files were listed.

    Raises:
        UserError: one file under two labels, or none of the files is there and those missing are
            to be passed over.
    """
    by_path = {entry.logical: entry for entry in entries}
    join_shared(root, reading)
    held_out = hold_out(reading, config)
    rows = _rows(reading, config)
    missing = _missing(root, reading, rows, by_path, config)
    for path in _thinned(reading, rows, by_path, held_out, config):
        del rows[path]
    parts: tuple[list[Row], list[Row]] = ([], [])
    for path, (clip, group) in rows.items():
        entry = by_path.get(path) or Entry(path, path, 0, 0)
        parts[id(clip) in held_out].append(Row(entry, path, clip.label, group, clip.domain))
    train, test = ([row.item_id for row in part] for part in parts)
    chosen, items, truth = make_manifest(*parts)
    folds, about_val = split_folds(
        {path: fold_of(rows[path][0].splits) for path in train},
        {path: rows[path][0].label for path in train},
    )
    reading.notes += [*_chained(rows, config), *about_val]
    unnamed = len(entries) - (len(rows) - len(missing))
    reading.ignored[f"files that no part of the {reading.layout} layout names"] += max(
        0, unnamed - reading.ignored.total()
    )
    submission, about_test = without_sample(test, config)
    dataset = Dataset(
        name=name,
        root=root,
        items=items,
        stamps=[],
        submission=submission,
        test_labels=truth,
        given_folds=folds,
        from_splits=folds is not None,
        config=config,
        labels=make_label_names(reading.words),
        notes=[f"layout: {reading.layout}", *_summary(reading), *about_test, *reading.notes],
        ignored={k: n for k, n in (Counter(ignored) + reading.ignored).items() if n},
        missing=tuple(sorted(missing)),
    )
    return chosen, dataset


def _thinned(
    reading: Reading,
    rows: dict[str, tuple[Clip, str]],
    by_path: dict[str, Entry],
    held_out: set[int],
    config: DatasetConfig,
) -> set[str]:
    """Return the frames that `frames_per_video` leaves out: evenly spaced over what is there."""
    out: set[str] = set()
    for clip in reading.clips if any(config.frames_per_video) else ():
        if not clip.family:
            continue  # a picture of no video
        here = [path for path in clip.paths if path in by_path and path in rows]
        chosen = choose_frames(here, config.frames_per_video[id(clip) in held_out])
        out.update({*here} - {*chosen})
    if out:
        reading.ignored[BEYOND] += len(out)
    return out


def _rows(reading: Reading, config: DatasetConfig) -> dict[str, tuple[Clip, str]]:
    """Return path -> its clip and group."""
    named = [clip for clip in reading.clips if clip.family]
    made_from = ((clip.family, clip.sources(config.group_by)) for clip in named)
    groups = {id(clip): group for clip, group in zip(named, group_sources(made_from), strict=True)}
    return {path: (clip, groups.get(id(clip), "")) for clip in reading.clips for path in clip.paths}


def _chained(rows: dict[str, tuple[Clip, str]], config: DatasetConfig) -> list[str]:
    named = Counter(group for _, group in rows.values() if group)
    if config.group_by == VIDEO or not named:
        return []
    group, count = named.most_common(1)[0]
    clips = {id(clip): clip for clip, of in rows.values() if of == group}.values()
    if count <= len(rows) / 2 or len({clip.sources(VIDEO)[0] for clip in clips}) < 2:
        return []
    return [
        f"WARNING shared identities chain {count} of {len(rows)} items into one group ({group}); "
        f"`group_by: {VIDEO}` in dataset.yaml ties a swap to the clip that it changes alone"
    ]


def _missing(
    root: Path,
    reading: Reading,
    rows: dict[str, tuple[Clip, str]],
    by_path: dict[str, Entry],
    config: DatasetConfig,
) -> list[str]:
    """Return the files that are not there; where they are to be passed over, takes them out."""
    missing = [path for path in rows if path not in by_path]
    if not missing or config.missing_files != "ignore":
        return missing
    if len(missing) == len(rows):
        raise UserError(
            f"{root}: none of the {len(missing)} files that the {reading.layout} layout names is "
            f"there, the first is {missing[0]}"
        )
    for path in missing:
        del rows[path]
    reading.notes.append(f"{len(missing)} files are named but not there: passed over")
    return []


def _summary(reading: Reading) -> list[str]:
    fakes = sum(clip.label for clip in reading.clips)
    empty = [clip for clip in reading.clips if not clip.paths]
    what = "videos" if any(clip.family for clip in reading.clips) else "pictures"
    notes = [f"{len(reading.clips) - fakes} real and {fakes} fake {what}"]
    if empty:
        notes.append(
            f"WARNING {len(empty)} videos have no frame, the first is {empty[0].video} "
            f"({empty[0].domain}): no item"
        )
    return notes


def clip_name(parts: Sequence[str]) -> str:
    """Return the video that a file belongs to: its folder, or its own name without frame number.

    Args:
        parts: path below the folder that holds all videos or frames.
    """
    if len(parts) > 1:
        return parts[-2]
    stem = PurePosixPath(parts[-1]).stem
    return video_of_frame(stem) or stem
