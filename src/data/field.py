"""Data sets of the field as they are downloaded: from clips of a reader to a manifest."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from src.artifacts.label_names import make_label_names
from src.artifacts.submissions import SubmissionFormat
from src.data.dataset_yaml import DatasetConfig
from src.data.field_splits import fold_of, hold_out, join_shared, split_folds
from src.data.frame_choice import BEYOND, choose_frames
from src.data.identities import VIDEO, group_sources, sources_of, video_of_frame
from src.data.manifest import Dataset, make_items
from src.data.sample import answer_names
from src.data.sources import kind_of
from src.data.walk import Entry
from src.errors import UserError

LEVELS = ("raw", "c23", "c40")


@dataclass(slots=True)
class Clip:
    """One video of a data set: its frames, or the video file itself.

    Attributes:
        family: whose way of naming videos it follows (`identities.family_of`); "" for an image
            that belongs to no video and has no group.
        video: its name, without suffix; what groups are made from.
        label: 0 real, 1 fake.
        domain: manipulation, generator, capture set-up or data set.
        splits: `train`, `val`, `test`: where it stands; empty where published splits name others
            and not it.
        paths: logical paths of its files, in order; each becomes an item with that id.
        people: who is in it, the one of the clip that was changed first, where that does not
            follow from the name.
    """

    family: str
    video: str
    label: int
    domain: str
    splits: set[str] = field(default_factory=lambda: {"train"})
    paths: list[str] = field(default_factory=list)
    people: tuple[str, ...] = ()

    def sources(self, by: str) -> Sequence[str]:
        """Return what it was made from (see `identities.sources_of`)."""
        if self.people:
            return self.people[:1] if by == VIDEO else self.people
        return sources_of(self.family, self.video, by)


@dataclass
class Reading:
    """What a reader understood.

    Attributes:
        layout: its name, for messages.
        clips: all clips.
        notes: one sentence each.
        ignored: reason -> number of files left aside.
        tables: logical paths of the CSV and JSON files it read.
        words: (label, what says so, as it is written), where two words do.
    """

    layout: str
    clips: list[Clip]
    notes: list[str] = field(default_factory=list)
    tables: set[str] = field(default_factory=set)
    ignored: Counter[str] = field(default_factory=Counter)
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
    missing = [path for path in rows if path not in by_path]
    if missing and config.missing_files == "ignore":
        if len(missing) == len(rows):
            raise _nothing_there(root, reading, missing)
        for path in missing:
            del rows[path]
        reading.notes.append(f"{len(missing)} files are named but not there: passed over")
        missing = []
    for path in _thinned(reading, rows, by_path, held_out, config):
        del rows[path]
    test = [path for path in rows if id(rows[path][0]) in held_out]
    order = [*(path for path in rows if id(rows[path][0]) not in held_out), *test]
    chosen = [by_path.get(path) or Entry(path, path, 0, 0) for path in order]
    columns: dict[str, list[Any]] = {
        "item_id": order,
        "path": [entry.path for entry in chosen],
        "kind": [kind_of(path) for path in order],
        "split": ["train"] * (len(order) - len(test)) + ["test"] * len(test),
        "label": [
            *(rows[p][0].label for p in order[: len(order) - len(test)]),
            *[pd.NA] * len(test),
        ],
        "group": [rows[path][1] for path in order],
        "domain": [rows[path][0].domain for path in order],
        "bytes": [entry.bytes for entry in chosen],
    }
    reading.notes += _chained(rows, config)
    train = {path: rows[path][0] for path in order[: len(order) - len(test)]}
    folds, about_val = split_folds(
        {path: fold_of(clip.splits) for path, clip in train.items()},
        {path: clip.label for path, clip in train.items()},
    )
    reading.notes += about_val
    items = make_items(columns, list(range(len(order))))
    unnamed = len(entries) - (len(rows) - len(missing))
    reading.ignored[f"files that no part of the {reading.layout} layout names"] += max(
        0, unnamed - reading.ignored.total()
    )
    layout = SubmissionFormat("filename", "label", sorted(test), answer_names(config))
    if test:
        reading.notes.append(f"no sample submission: it will be filename,label, {layout.written}")
    dataset = Dataset(
        name=name,
        root=root,
        items=items.reset_index(drop=True),
        stamps=[],
        submission=layout if test else None,
        test_labels=_test_labels(rows, test),
        given_folds=folds,
        from_splits=folds is not None,
        config=config,
        labels=make_label_names(reading.words),
        notes=[f"layout: {reading.layout}", *_summary(reading, len(test)), *reading.notes],
        ignored={k: n for k, n in (Counter(ignored) + reading.ignored).items() if n},
        missing=tuple(sorted(missing)),
    )
    return [chosen[i] for i in items.index], dataset


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


def _test_labels(rows: dict[str, tuple[Clip, str]], test: list[str]) -> pd.Series | None:
    if not test:
        return None
    labels = {path: rows[path][0].label for path in test}
    return pd.Series(labels, dtype="int64", name="label").sort_index()


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


def _nothing_there(root: Path, reading: Reading, missing: list[str]) -> UserError:
    return UserError(
        f"{root}: none of the {len(missing)} files that the {reading.layout} layout names is "
        f"there, the first is {missing[0]}"
    )


def _summary(reading: Reading, test_items: int) -> list[str]:
    fakes = sum(clip.label for clip in reading.clips)
    empty = [clip for clip in reading.clips if not clip.paths]
    what = "videos" if any(clip.family for clip in reading.clips) else "pictures"
    notes = [f"{len(reading.clips) - fakes} real and {fakes} fake {what}"]
    if empty:
        notes.append(
            f"WARNING {len(empty)} videos have no frame, the first is {empty[0].video} "
            f"({empty[0].domain}): no item"
        )
    return [*notes, *([] if test_items else ["no test items"])]


def clip_name(parts: Sequence[str]) -> str:
    """Return the video that a file belongs to: its folder, or its own name without frame number.

    Args:
        parts: path below the folder that holds all videos or frames.
    """
    if len(parts) > 1:
        return parts[-2]
    stem = PurePosixPath(parts[-1]).stem
    return video_of_frame(stem) or stem
