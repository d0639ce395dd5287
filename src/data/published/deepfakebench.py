"""DeepfakeBench's JSON of a data set (Yan et al., NeurIPS 2023, data sets and benchmarks track).

One file: `{DATASET: {LABEL: {split: {[compression:] {video: {label, frames, masks}}}}}}`.
"""

import re
from collections import Counter
from collections.abc import Hashable, ItemsView, Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from src.data.items.dataset_yaml import DatasetConfig
from src.data.items.folder import Folder
from src.data.items.identities import (
    FACEFORENSICS,
    PUBLISHED,
    family_of,
    swap_families,
    tie_named_fakes,
)
from src.data.items.listing import Entry
from src.data.items.tables import load_json, refuse_doubles
from src.data.items.words import LabelMap, make_label_map, normalise
from src.data.published.reading import LEVELS, Reading, Video, choose_level, reader
from src.errors import UserError, unknown_name

_SPLITS = ("train", "val", "test")
_REAL = (
    "FF-real", "DFD_real", "CelebDFv1_real", "CelebDFv2_real", "DFDCP_Real", "DFDC_Real",
    "DF_real", "UADFV_Real", "roop_Real",
)  # fmt: skip
_FAKE = (
    "FF-DF", "FF-F2F", "FF-FS", "FF-NT", "FF-FH", "FF-SH", "DFD_fake", "CelebDFv1_fake",
    "CelebDFv2_fake", "DFDCP_FakeA", "DFDCP_FakeB", "DFDC_Fake", "DF_fake", "UADFV_Fake",
    "roop_Fake",
)  # fmt: skip
_LABELS = {normalise(n): 0 for n in _REAL} | {normalise(n): 1 for n in _FAKE}
_ENDS = {"real": 0, "fake": 1, "synthesis": 1}  # of other names, as DF40's simswap_Real
_DRIVE = re.compile(r"^[A-Za-z]:")
_KEPT = 3  # folders and name of a path that must fit a file before what stands above is dropped


class _Record(NamedTuple):
    """One video of one split: `keys` lead to it in the file `where`."""

    where: str
    keys: tuple[str, ...]
    dataset: str
    label_name: str
    split: str
    level: str
    video: str
    content: dict[str, Any]

    @property
    def at(self) -> str:
        """Return where it stands, for messages."""
        return f"{self.where}: {' > '.join(self.keys)}"


@reader("deepfakebench", rank=1)
def read(folder: Folder) -> Reading | None:
    """Read every DeepfakeBench JSON of a folder; None if there is none.

    Back-slashes are taken as `/`, `root:` of dataset.yaml replaces the start of the paths; without
    it, folders that stand above all that is on disk are dropped. Frames may be missing on disk.
    """
    records: list[_Record] = []
    reading = Reading()
    for entry in _named(folder):
        content, twice = load_json(folder.root, entry)
        if folder.config.json or _is_bench(content):
            refuse_doubles(folder.where(entry), twice)
            records += _records(folder.where(entry), content)
            reading.tables.add(entry.logical)
    if not records:
        return None
    records = _one_level(records, reading, folder.config)
    rename = _Renamer(folder)
    labels = _label_map(folder.config)
    several = _several_fakes(records, labels)
    videos: dict[tuple[str, str, str], Video] = {}
    for record in records:
        label = _label(record, labels)
        family = family_of(record.dataset)
        domain = record.dataset
        if family == FACEFORENSICS or record.dataset in several:
            domain = record.label_name
        key = (family, record.label_name, record.video)
        video = videos.setdefault(key, Video(family, record.video, label, domain, set()))
        video.splits.add(record.split)
        for frame in _frames(record):
            rename.add(record, key, frame)
    found = rename.places()
    _find_masks(records, rename, reading)
    for key, video in videos.items():
        video.paths = found.get(key, [])
    reading.videos = list(videos.values())
    _tell_originals(reading)
    reading.notes += rename.notes()
    return reading


def _tell_originals(reading: Reading) -> None:
    """Find who is in the videos of sets that we do not know, where their names say so.

    Sets made from published videos keep their names: `000_003` is a swap of FaceForensics++'s 000
    whatever the set is called.
    """
    known = [video for video in reading.videos if video.family in PUBLISHED]
    tied: Counter[str] = Counter()
    for name in {one.family: None for one in reading.videos if one.family not in PUBLISHED}:
        own = [video for video in reading.videos if video.family == name]
        names, labels = zip(*((one.name, one.label) for one in [*own, *known]), strict=True)
        for at, original in tie_named_fakes(names[: len(own)], labels[: len(own)]).items():
            own[at].people = (original,)
            tied[name] += 1
        for at, family in swap_families(names, labels).items():
            if at < len(own):
                own[at].family, own[at].people = family, ()
                tied[name] += 1
    reading.notes += [
        f"groups: {count} videos of {name} are named as face swaps and their originals, and are "
        "tied by those names"
        for name, count in tied.items()
    ]


def _named(folder: Folder) -> list[Entry]:
    found = {entry.logical: entry for entry in folder.listing.tables if entry.suffix == ".json"}
    for name in folder.config.json:
        if name not in found:
            raise unknown_name(f"json in {folder.root / 'dataset.yaml'}:", name, found)
    return [found[name] for name in (folder.config.json or found)]


def _is_bench(content: object, depth: int = 5) -> bool:
    """Tell it from other JSON: known labels on the second level, or frames further down."""
    if not isinstance(content, dict) or depth < 0:
        return False
    if isinstance(content.get("frames"), list) or any(normalise(key) in _LABELS for key in content):
        return True
    return any(_is_bench(value, depth - 1) for value in list(content.values())[:3])


def _records(where: str, content: object) -> Iterator[_Record]:
    for dataset, of_label in _children(where, (), content, "{DATASET: ...}"):
        for label, of_split in _children(where, (dataset,), of_label, "{LABEL: ...}"):
            for split, below in _children(where, (dataset, label), of_split, "{split: ...}"):
                keys = (dataset, label, split)
                if split not in _SPLITS:
                    raise UserError(
                        f"{where}: {' > '.join(keys)}: wrong nesting, want one of "
                        f"{', '.join(_SPLITS)} there, found {split!r}"
                    )
                yield from _videos(where, keys, below)


def _videos(where: str, keys: tuple[str, str, str], below: object) -> Iterator[_Record]:
    for name, value in _children(where, keys, below, "{[compression:] {video: ...}}"):
        of, level, path = {name: value}.items(), "", keys
        if name in LEVELS and not (isinstance(value, dict) and "frames" in value):
            level, path = name, (*keys, name)
            of = _children(where, path, value, "{video: ...}")
        for video, content in of:
            record = _Record(where, (*path, video), *keys, level, video, content)
            if not isinstance(content, dict) or "frames" not in content:
                found = repr(content)
                if isinstance(content, dict):
                    found = f"keys {', '.join(list(content)[:4])}"
                raise UserError(
                    f"{record.at}: wrong nesting, want a video with label and frames, found "
                    f"{found} (below the split stand videos, or compression levels "
                    f"{', '.join(LEVELS)})"
                )
            yield record


def _children(where: str, keys: tuple[str, ...], value: object, want: str) -> ItemsView[str, Any]:
    if not isinstance(value, dict):
        at = " > ".join(keys) or "top"
        raise UserError(f"{where}: {at}: wrong nesting, want {want}, found {type(value).__name__}")
    return value.items()


def _one_level(records: list[_Record], reading: Reading, config: DatasetConfig) -> list[_Record]:
    levels = {record.level for record in records} - {""}
    if not levels:
        return records
    level, note = choose_level(records[0].where, levels, config)
    reading.notes.append(note)
    kept = [record for record in records if record.level in ("", level)]
    have = {(record.dataset, record.label_name) for record in kept}
    for record in records:
        if (record.dataset, record.label_name) not in have:
            shared = _levels_of_all(records)
            way = "no level is there for all: read one file alone (`json: NAME.json`)"
            if shared:
                way = f"say in dataset.yaml `compression: {shared[0]}`, which all have"
            raise UserError(
                f"{record.where}: {record.dataset} > {record.label_name} has no videos of "
                f"compression level {level}, only {record.level}; {way}"
            )
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


def _label(record: _Record, labels: LabelMap) -> int:
    found = set()
    for name in (record.label_name, record.content.get("label", record.label_name)):
        label = _meaning(str(name), labels)
        if label is None:
            raise unknown_name(
                f"label in {record.at}:", str(name), (*_REAL, *_FAKE),
                f"say what it means in dataset.yaml, in one line with all such names: `labels: "
                f"{{{name}: 0, fake: 1}}` if it is real, `labels: {{{name}: 1, real: 0}}` if fake",
            )  # fmt: skip
        found.add(label)
    if len(found) > 1:
        raise UserError(
            f"{record.at}: label is {record.content['label']!r}, which contradicts the "
            f"{record.label_name!r} it stands under"
        )
    return found.pop()


def _meaning(name: str, labels: LabelMap) -> int | None:
    """Return the label that a name stands for: as it is known, or by its last word."""
    label = labels.get(name)
    return _ENDS.get(normalise(name).rpartition("_")[2]) if label is None else label


def _several_fakes(records: list[_Record], labels: LabelMap) -> set[str]:
    """Return the data sets with more than one kind of fakes."""
    names: dict[str, set[str]] = {}
    for record in records:
        if _meaning(record.label_name, labels) == 1:
            names.setdefault(record.dataset, set()).add(record.label_name)
    return {dataset for dataset, found in names.items() if len(found) > 1}


def _frames(record: _Record, key: str = "frames") -> list[str]:
    frames = record.content.get(key) or []
    if not isinstance(frames, list) or not all(isinstance(f, str) and f for f in frames):
        raise UserError(f"{record.at}: {key} is no list of paths")
    return frames


def _find_masks(records: list[_Record], rename: "_Renamer", reading: Reading) -> None:
    """Note the masks that records name: of the frame of equal name, else of equal place.

    Those that lie where the frames do, in `masks` in place of `frames`, are known without.
    """
    named = lost = 0
    for record in records:
        masks = [rename.place_of(record, path) for path in _frames(record, "masks")]
        if not masks:
            continue
        frames = [rename.place_of(record, path) for path in _frames(record)]
        names = [{PurePosixPath(one).stem: one for one in part} for part in (frames, masks)]
        pairs = [(names[0][stem], names[1][stem]) for stem in names[0].keys() & names[1].keys()]
        if not pairs and len(frames) == len(masks):
            pairs = list(zip(frames, masks, strict=True))
        found = {frame: rename.files[mask] for frame, mask in pairs if mask in rename.files}
        reading.masks |= found
        named, lost = named + len(masks), lost + sum(mask not in rename.files for mask in masks)
    if lost:
        reading.notes.append(f"{lost} of {named} masks are named but not there")


class _Renamer:
    """From the paths of several JSON to those of the data set's folder."""

    def __init__(self, folder: Folder) -> None:
        # logical path -> file, of frames and masks
        listing = folder.listing
        self.files = {one.logical: one for one in (*listing.media, *listing.mask_files)}
        self._on_disk = folder.on_disk
        self._root = folder.config.root
        self._videos: dict[Hashable, dict[str, str]] = {}  # video -> path -> what is dropped of it
        self._where: dict[str, str] = {}  # what is dropped -> the first JSON that has it
        self._lost: dict[str, str] = {}  # what is not dropped after all -> what fits better

    def add(self, record: _Record, video: Hashable, frame: str) -> None:
        """Note a frame of a video, as it stands in the JSON."""
        path = self._tidy(record.at, frame)
        paths = self._videos.setdefault(video, {})
        if path not in paths:
            known = self._root is not None or path in self._on_disk
            paths[path] = "" if known else self._dropped_of(record.where, path)

    def place_of(self, record: _Record, path: str) -> str:
        """Return where a frame or mask is, once all frames were added; as named if nowhere."""
        path = self._tidy(record.at, path)
        starts = ("", *(start for start in self._where if path.startswith(start)))
        return next((path[len(s) :] for s in starts if path[len(s) :] in self.files), path)

    def places(self) -> dict[Hashable, list[str]]:
        """Return the files of each video, relative to the data set's folder, in order.

        Where dropping leads two videos to one file, what drops nothing is right, or else the JSON
        of which more is there; the other's files are missing.
        """
        self._settle()
        return {
            video: list(
                dict.fromkeys(
                    path if start in self._lost else path[len(start) :]
                    for path, start in paths.items()
                )
            )
            for video, paths in self._videos.items()
        }

    def notes(self) -> list[str]:
        """Say which folders were dropped."""
        counts = Counter(start for paths in self._videos.values() for start in paths.values())
        return [
            f"{counts[start]} paths begin with {start}, which is not here: dropped"
            if start not in self._lost
            else f"WARNING {counts[start]} paths of {self._where[start]} begin with {start}, which "
            f"is not here; without it they would be files of other videos ({self._lost[start]}): "
            "counted as missing"
            for start in self._where
        ]

    def _tidy(self, at: str, frame: str) -> str:
        path = _DRIVE.sub("", frame.replace("\\", "/")).strip("/")
        if self._root is not None:
            start, to = (_DRIVE.sub("", p.replace("\\", "/")).strip("/") for p in self._root)
            if start and path != start and not path.startswith(start + "/"):
                raise UserError(
                    f"{at}: frame {frame!r} does not start with {self._root[0]!r} (dataset.yaml: "
                    "root.from)"
                )
            path = "/".join(filter(None, (to, path[len(start) :].strip("/"))))
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise UserError(
                f"{at}: frame {frame!r} leads out of the data set's folder (`..`); nothing outside "
                "it is read"
            )
        return "/".join(parts)

    def _dropped_of(self, where: str, path: str) -> str:
        """Return what to cut off: the folders that the JSON's author had above the data."""
        for start in self._where:
            if path.startswith(start):
                return start
        parts = path.split("/")
        for count in range(1, len(parts) - _KEPT + 1):
            if "/".join(parts[count:]) in self._on_disk:
                start = "/".join(parts[:count]) + "/"
                self._where[start] = where
                return start
        return ""

    def _settle(self) -> None:
        """Find what must not be dropped, for another video has the files that are left."""
        owners: dict[str, tuple[Hashable, str, str]] = {}
        rivals: dict[tuple[str, str], str] = {}  # two that lead to one file, and that file
        for video, paths in self._videos.items():
            for path, start in paths.items():
                file = path[len(start) :]
                other, theirs, before = owners.setdefault(file, (video, path, start))
                if other != video and theirs != path:
                    rivals.setdefault((min(before, start), max(before, start)), file)
        shares = self._shares() if rivals else {}
        for one, two in rivals:
            if shares[one] != shares[two]:
                worse, better = sorted((one, two), key=lambda start: shares[start])
                self._lost[worse] = f"begin with {better}" if better else "stand there in full"
        for (one, two), file in rivals.items():
            if one not in self._lost and two not in self._lost:
                raise UserError(
                    f"{file}: paths of two videos lead there, {one + file} ({self._where[one]}) "
                    f"and {two + file} ({self._where[two]}); whose is it? Move the files into the "
                    "folder that stands before them in the right one, or name the right JSON in "
                    "dataset.yaml: `json: NAME.json`"
                )

    def _shares(self) -> dict[str, float]:
        """Return what is dropped -> the share of its files that are here, 2 for nothing."""
        named: Counter[str] = Counter()
        here: Counter[str] = Counter()
        for paths in self._videos.values():
            for path, start in paths.items():
                named[start] += 1
                here[start] += path[len(start) :] in self._on_disk
        return {start: here[start] / named[start] if start else 2.0 for start in named}
