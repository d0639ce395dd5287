"""DeepfakeBench's JSON of a data set (Yan et al., NeurIPS 2023, data sets and benchmarks track).

One file: `{DATASET: {LABEL: {split: {[compression:] {video: {label, frames, masks}}}}}}`.
"""

from collections import Counter
from collections.abc import ItemsView, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from src.data.items.dataset_yaml import DatasetConfig
from src.data.items.identities import (
    FACEFORENSICS,
    PUBLISHED,
    family_of,
    swap_families,
    tie_named_fakes,
)
from src.data.items.listing import Entry, Listing
from src.data.items.tables import load_json, refuse_doubles
from src.data.items.words import LabelMap, make_label_map, normalise
from src.data.published.reading import LEVELS, Clip, Reading, choose_level
from src.data.published.renaming import Renamer
from src.errors import UserError, unknown_name

NAME = "deepfakebench"
SPLITS = ("train", "val", "test")
REAL = (
    "FF-real", "DFD_real", "CelebDFv1_real", "CelebDFv2_real", "DFDCP_Real", "DFDC_Real",
    "DF_real", "UADFV_Real", "roop_Real",
)  # fmt: skip
FAKE = (
    "FF-DF", "FF-F2F", "FF-FS", "FF-NT", "FF-FH", "FF-SH", "DFD_fake", "CelebDFv1_fake",
    "CelebDFv2_fake", "DFDCP_FakeA", "DFDCP_FakeB", "DFDC_Fake", "DF_fake", "UADFV_Fake",
    "roop_Fake",
)  # fmt: skip
_LABELS = {normalise(n): 0 for n in REAL} | {normalise(n): 1 for n in FAKE}
_ENDS = {"real": 0, "fake": 1, "synthesis": 1}  # of other names, as DF40's simswap_Real


class _Record(NamedTuple):
    """One video of one split: `keys` lead to it."""

    keys: tuple[str, ...]
    dataset: str
    label_name: str
    split: str
    level: str
    video: str
    content: dict[str, Any]


def read(root: Path, listing: Listing, config: DatasetConfig) -> Reading | None:
    """Read every DeepfakeBench JSON of a folder; None if there is none.

    Back-slashes are taken as `/`, `root:` of dataset.yaml replaces the start of the paths; without
    it, folders that stand above all that is on disk are dropped. Frames may be missing on disk.

    Raises:
        UserError: wrong nesting, an unknown label, a path that leads out of the folder, a key
            that stands twice, two videos whose paths lead to one file; names file and key path.
    """
    records: list[tuple[str, _Record]] = []
    tables: set[str] = set()
    for entry in _named(root, listing.tables, config):
        where = str(root / entry.path)
        content, twice = load_json(root, entry)
        if config.json or _is_bench(content):
            refuse_doubles(where, twice)
            records += [(where, record) for record in _records(where, content)]
            tables.add(entry.logical)
    if not records:
        return None
    reading = Reading(NAME, [], tables=tables)
    records = _one_level(records, reading, config)
    rename = Renamer({entry.logical for entry in listing.media}, config.root)
    labels = _label_map(config)
    several = _several_fakes(records, labels)
    clips: dict[tuple[str, str, str], Clip] = {}
    for where, record in records:
        label = _label(where, record, labels)
        family = family_of(record.dataset)
        domain = record.dataset
        if family == FACEFORENSICS or record.dataset in several:
            domain = record.label_name
        key = (family, record.label_name, record.video)
        clip = clips.setdefault(key, Clip(family, record.video, label, domain, set()))
        clip.splits.add(record.split)
        for frame in _frames(where, record):
            rename.add(where, record.keys, key, frame)
    found = rename.places()
    for key, clip in clips.items():
        clip.paths = found.get(key, [])
    reading.clips = list(clips.values())
    _tell_originals(reading)
    reading.notes += rename.notes()
    return reading


def _tell_originals(reading: Reading) -> None:
    """Find who is in the videos of sets that we do not know, where their names say so.

    Sets made from published videos keep their names: `000_003` is a swap of FaceForensics++'s 000
    whatever the set is called.
    """
    known = [clip for clip in reading.clips if clip.family in PUBLISHED]
    tied: Counter[str] = Counter()
    for name in {clip.family: None for clip in reading.clips if clip.family not in PUBLISHED}:
        own = [clip for clip in reading.clips if clip.family == name]
        videos, labels = zip(*((c.video, c.label) for c in [*own, *known]), strict=True)
        for at, original in tie_named_fakes(videos[: len(own)], labels[: len(own)]).items():
            own[at].people = (original,)
            tied[name] += 1
        for at, family in swap_families(videos, labels).items():
            if at < len(own):
                own[at].family, own[at].people = family, ()
                tied[name] += 1
    reading.notes += [
        f"groups: {count} videos of {name} are named as face swaps and their originals, and are "
        "tied by those names"
        for name, count in tied.items()
    ]


def _named(root: Path, tables: list[Entry], config: DatasetConfig) -> list[Entry]:
    found = {entry.logical: entry for entry in tables if entry.suffix == ".json"}
    for name in config.json:
        if name not in found:
            raise unknown_name(f"json in {root / 'dataset.yaml'}:", name, found)
    return [found[name] for name in (config.json or found)]


def _is_bench(content: object, depth: int = 5) -> bool:
    """Tell it from other JSON: known labels on the second level, or frames further down."""
    if not isinstance(content, dict) or depth < 0:
        return False
    if isinstance(content.get("frames"), list):
        return True
    if any(normalise(key) in _LABELS for key in content):
        return True
    return any(_is_bench(value, depth - 1) for value in list(content.values())[:3])


def _records(where: str, content: object) -> Iterator[_Record]:
    for dataset, of_label in _children(where, (), content, "{DATASET: ...}"):
        for label, of_split in _children(where, (dataset,), of_label, "{LABEL: ...}"):
            for split, below in _children(where, (dataset, label), of_split, "{split: ...}"):
                keys = (dataset, label, split)
                if split not in SPLITS:
                    raise UserError(
                        f"{where}: {' > '.join(keys)}: wrong nesting, want one of "
                        f"{', '.join(SPLITS)} there, found {split!r}"
                    )
                yield from _videos(where, keys, below)


def _videos(where: str, keys: tuple[str, str, str], below: object) -> Iterator[_Record]:
    for name, value in _children(where, keys, below, "{[compression:] {video: ...}}"):
        if name in LEVELS and not _is_video(value):
            for video, record in _children(where, (*keys, name), value, "{video: ...}"):
                path = (*keys, name, video)
                yield _Record(path, *keys, name, video, _video(where, path, record))
        else:
            path = (*keys, name)
            yield _Record(path, *keys, "", name, _video(where, path, value))


def _children(where: str, keys: tuple[str, ...], value: object, want: str) -> ItemsView[str, Any]:
    if not isinstance(value, dict):
        at = " > ".join(keys) or "top"
        raise UserError(f"{where}: {at}: wrong nesting, want {want}, found {type(value).__name__}")
    return value.items()


def _is_video(value: object) -> bool:
    return isinstance(value, dict) and "frames" in value


def _video(where: str, keys: tuple[str, ...], value: object) -> dict[str, Any]:
    if not isinstance(value, dict) or not _is_video(value):
        found = f"keys {', '.join(list(value)[:4])}" if isinstance(value, dict) else repr(value)
        raise UserError(
            f"{where}: {' > '.join(keys)}: wrong nesting, want a video with label and frames, "
            f"found {found} (below the split stand videos, or compression levels "
            f"{', '.join(LEVELS)})"
        )
    return value


def _one_level(
    records: list[tuple[str, _Record]], reading: Reading, config: DatasetConfig
) -> list[tuple[str, _Record]]:
    levels = {record.level for _, record in records} - {""}
    if not levels:
        return records
    level, note = choose_level(records[0][0], levels, config)
    reading.notes.append(note)
    kept = [pair for pair in records if pair[1].level in ("", level)]
    have = {(record.dataset, record.label_name) for _, record in kept}
    for where, record in records:
        if (record.dataset, record.label_name) not in have:
            shared = _levels_of_all(pair[1] for pair in records)
            raise UserError(
                f"{where}: {record.dataset} > {record.label_name} has no videos of compression "
                f"level {level}, only {record.level}; "
                + (f"say in dataset.yaml `compression: {shared[0]}`, which all have" if shared
                   else "no level is there for all: read one file alone (`json: NAME.json`)")
            )  # fmt: skip
    return kept


def _levels_of_all(records: Iterable[_Record]) -> list[str]:
    """Return the compression levels that every label of every data set has."""
    levels: dict[tuple[str, str], set[str]] = {}
    for record in records:
        levels.setdefault((record.dataset, record.label_name), set()).add(record.level)
    return sorted(set.intersection(*(found for found in levels.values() if found != {""})))


def _label_map(config: DatasetConfig) -> LabelMap:
    words = make_label_map(None).words | _LABELS
    return LabelMap(words | make_label_map(config.labels).words if config.labels else words)


def _label(where: str, record: _Record, labels: LabelMap) -> int:
    found = set()
    for name in (record.label_name, record.content.get("label", record.label_name)):
        label = _meaning(str(name), labels)
        if label is None:
            raise unknown_name(
                f"label in {where}: {' > '.join(record.keys)}:", str(name), (*REAL, *FAKE),
                f"say what it means in dataset.yaml, in one line with all such names: `labels: "
                f"{{{name}: 0, fake: 1}}` if it is real, `labels: {{{name}: 1, real: 0}}` if fake",
            )  # fmt: skip
        found.add(label)
    if len(found) > 1:
        raise UserError(
            f"{where}: {' > '.join(record.keys)}: label is {record.content['label']!r}, which "
            f"contradicts the {record.label_name!r} it stands under"
        )
    return found.pop()


def _meaning(name: str, labels: LabelMap) -> int | None:
    """Return the label that a name stands for: as it is known, or by its last word."""
    label = labels.get(name)
    return _ENDS.get(normalise(name).rpartition("_")[2]) if label is None else label


def _several_fakes(records: list[tuple[str, _Record]], labels: LabelMap) -> set[str]:
    """Return the data sets with more than one kind of fakes."""
    names: dict[str, set[str]] = {}
    for _, record in records:
        if _meaning(record.label_name, labels) == 1:
            names.setdefault(record.dataset, set()).add(record.label_name)
    return {dataset for dataset, found in names.items() if len(found) > 1}


def _frames(where: str, record: _Record) -> list[str]:
    frames = record.content["frames"]
    if not isinstance(frames, list) or not all(isinstance(f, str) and f for f in frames):
        raise UserError(f"{where}: {' > '.join(record.keys)}: frames is no list of paths")
    return frames
