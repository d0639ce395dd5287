"""What published splits mean: which clips are held out, and which folds train and val make."""

from collections import Counter
from collections.abc import Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from src.data.dataset_yaml import DatasetConfig
from src.errors import UserError

if TYPE_CHECKING:
    from src.data.field import Clip, Reading


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
