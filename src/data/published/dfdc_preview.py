"""The preview of the DeepFake Detection Challenge's data (Dolhansky et al., 2019) as downloaded.

`dataset.json`: `{PATH: {label, target_id, swapped_id, set}}`; the videos lie below its folder in
`original_videos/`, `method_A/` and `method_B/`, or their frames in a folder of the video's name.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from src.data.items.folder import Folder
from src.data.items.tables import load_json, refuse_doubles
from src.data.items.words import SPLIT_WORDS, normalise
from src.data.published.reading import Reading, Video, reader
from src.errors import UserError

_PEOPLE = ("target_id", "swapped_id")


@reader("dfdc_preview", rank=4)
def read(folder: Folder) -> Reading | None:
    """Read every dataset.json of this form; None if there is none.

    The top folder of a path (the method) is the domain, both people of a swap make the group, and
    `set` the split. Videos may be missing on disk.
    """
    reading = Reading()
    frames: dict[str, list[str]] = defaultdict(list)
    for path in (entry.logical for entry in folder.listing.media):
        frames[path.rpartition("/")[0]].append(path)
    for entry in folder.listing.tables:
        home, _, name = entry.logical.rpartition("/")
        if name != "dataset.json":
            continue
        content, twice = load_json(folder.root, entry)
        if not _is_preview(content):
            continue
        refuse_doubles(folder.where(entry), twice)
        reading.tables.add(entry.logical)
        people = {_word(value, key) for value in content.values() for key in _PEOPLE} - {""}
        for key, value in content.items():
            video = _video(f"{folder.where(entry)}: entry {key!r}", key, value, people, folder)
            path = f"{home}/{video.name}".lstrip("/")
            inside = frames.get(path.removesuffix(PurePosixPath(path).suffix), [])
            video.paths = inside or [path]
            both = bool(inside and path in folder.on_disk)
            reading.ignored["videos whose frames are here too"] += both
            reading.videos.append(video)
    if not reading.videos:
        return None
    reading.notes.append(
        f"labels, groups (target_id, swapped_id) and splits (set): {', '.join(reading.tables)}"
    )
    return reading


def _is_preview(content: Any) -> bool:  # noqa: ANN401 - whatever a JSON holds
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(value, dict) and "label" in value for value in content.values())
        and any("set" in value or _PEOPLE[0] in value for value in content.values())
    )


def _word(value: Mapping[str, Any], key: str) -> str:
    return "" if value.get(key) is None else str(value[key])


def _video(
    where: str, key: str, value: Mapping[str, Any], people: set[str], folder: Folder
) -> Video:
    parts = [part for part in key.replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." in parts or not parts:
        raise UserError(f"{where}: leads out of the data set's folder; nothing outside it is read")
    label = folder.labels.get(_word(value, "label"))
    if label is None:
        words = [*(folder.config.labels or ("REAL", "FAKE")), str(value["label"])]
        raise UserError(
            f"{where}: label is {value['label']!r}, want {folder.labels.wanted()}"
            + folder.labels.offer(words)
        )
    split = SPLIT_WORDS.get(normalise(_word(value, "set") or "train"))
    if split is None:
        raise UserError(f"{where}: set is {value['set']!r}, want train, val or test")
    # An original that names nobody lies in the folder of its person.
    of = [name for name in (_word(value, key) for key in _PEOPLE) if name]
    of = of or [part for part in parts[:-1] if part in people]
    who = tuple(dict.fromkeys(of))
    return Video("DFDC-preview", "/".join(parts), label, parts[0], {split}, people=who)
