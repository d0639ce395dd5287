"""The preview of the DeepFake Detection Challenge's data (Dolhansky et al., 2019) as downloaded.

`dataset.json`: `{PATH: {label, target_id, swapped_id, set}}`; the videos lie below its folder in
`original_videos/`, `method_A/` and `method_B/`, or their frames in a folder of the video's name.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from src.data.items.dataset_yaml import DatasetConfig
from src.data.items.listing import Listing
from src.data.items.tables import load_json, refuse_doubles
from src.data.items.words import SPLIT_WORDS, make_label_map, normalise
from src.data.published.reading import Clip, Reading
from src.errors import UserError

NAME = "dfdc_preview"
_FAMILY = "DFDC-preview"
_TABLE = "dataset.json"
_PEOPLE = ("target_id", "swapped_id")


def read(root: Path, listing: Listing, config: DatasetConfig) -> Reading | None:
    """Read every dataset.json of this form; None if there is none.

    The top folder of a path (the method) is the domain, both people of a swap make the group, and
    `set` the split. Videos may be missing on disk.

    Raises:
        UserError: not readable JSON, a key twice, a label or set that is not understood, a path
            that leads out of the folder; names file and entry.
    """
    reading = Reading(NAME, [])
    frames = _by_folder(listing)
    on_disk = {entry.logical for entry in listing.media}
    for entry in listing.tables:
        home, _, name = entry.logical.rpartition("/")
        if name != _TABLE:
            continue
        content, twice = load_json(root, entry)
        if not _is_preview(content):
            continue
        where = str(root / entry.path)
        refuse_doubles(where, twice)
        reading.tables.add(entry.logical)
        people = {_word(value, key) for value in content.values() for key in _PEOPLE} - {""}
        for key, value in content.items():
            clip = _clip(f"{where}: entry {key!r}", key, value, people, config)
            path = f"{home}/{clip.video}".lstrip("/")
            inside = frames.get(path.removesuffix(PurePosixPath(path).suffix), [])
            clip.paths = inside or [path]
            reading.ignored["videos whose frames are here too"] += bool(inside and path in on_disk)
            reading.clips.append(clip)
    if not reading.clips:
        return None
    reading.notes.append(
        f"labels, groups (target_id, swapped_id) and splits (set): {', '.join(reading.tables)}"
    )
    return reading


def _by_folder(listing: Listing) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for entry in listing.media:
        found.setdefault(entry.logical.rpartition("/")[0], []).append(entry.logical)
    return found


def _is_preview(content: object) -> bool:
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(value, dict) and "label" in value for value in content.values())
        and any("set" in value or _PEOPLE[0] in value for value in content.values())
    )


def _word(value: Mapping[str, Any], key: str) -> str:
    return "" if value.get(key) is None else str(value[key])


def _clip(
    where: str, key: str, value: Mapping[str, Any], people: set[str], config: DatasetConfig
) -> Clip:
    parts = [part for part in key.replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." in parts or not parts:
        raise UserError(f"{where}: leads out of the data set's folder; nothing outside it is read")
    words = make_label_map(config.labels)
    label = words.get(_word(value, "label"))
    if label is None:
        raise UserError(
            f"{where}: label is {value['label']!r}, want {words.wanted()}"
            + words.offer([*(config.labels or ("REAL", "FAKE")), str(value["label"])])
        )
    split = SPLIT_WORDS.get(normalise(_word(value, "set") or "train"))
    if split is None:
        raise UserError(f"{where}: set is {value['set']!r}, want train, val or test")
    # An original that names nobody lies in the folder of its person.
    of = [name for name in (_word(value, key) for key in _PEOPLE) if name]
    of = of or [part for part in parts[:-1] if part in people]
    return Clip(_FAMILY, "/".join(parts), label, parts[0], {split}, people=tuple(dict.fromkeys(of)))
