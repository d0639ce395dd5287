"""From files to train items by the class folders that they lie in, and by their names."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from src.data.items.dataset_yaml import GROUP, IGNORE, DatasetConfig, offer
from src.data.items.files import kind_of, without_suffix
from src.data.items.folder import Folder
from src.data.items.folder_groups import FolderGroup, ask_above, read_origins
from src.data.items.identities import tie_swaps, video_of_frame
from src.data.items.listing import Entry
from src.data.items.manifest import Item
from src.data.items.places import MediaFile, Place, offer_aside, own_folders
from src.data.items.words import NO_SPLITS, SplitMap, read_word
from src.data.pixels.frames import choose_frames
from src.errors import UserError

_MOST_CLASSES = 8  # names of folders that a message offers as classes
_MOST = 0.9  # of the names of a class: chance numbers share fewer (CIFAKE's classes a third)


@dataclass
class Labelled:
    """The train items of a folder, as they become known."""

    folder: Folder
    files: list[MediaFile]  # all media files
    train: list[int]  # numbers of those that may be train items
    items: dict[int, Item] = field(default_factory=dict)  # number of the file -> its item
    notes: list[str] = field(default_factory=list)  # what was understood
    ignored: dict[str, int] = field(default_factory=dict)  # reason -> number of files left aside
    thinned: set[int] = field(default_factory=set)  # what `frames_per_video` leaves out
    # what folders say, test/ too, where they give the labels
    origins: dict[Place, FolderGroup] = field(default_factory=dict)
    # (label, what says so, as it is written)
    words: set[tuple[int, str]] = field(default_factory=set)
    # logical path of a picture -> its mask, where a table names it
    masks: dict[str, Entry] = field(default_factory=dict)

    def origins_of(self, test: Iterable[int]) -> list[FolderGroup]:
        """Return the groups and domains of test items (numbers of files).

        Where tables give the labels, folders of test/ are domains unless those of train/ are none.
        """
        files = self.files
        none = any(files[i].place.domain not in ("", one.domain) for i, one in self.items.items())
        places = (files[index].place for index in test)
        return [
            self.origins.get(place) or FolderGroup(domain="" if none else place.domain)
            for place in places
        ]


def label_by_folders(done: Labelled, why: list[str]) -> None:
    """Label train items by the class folder that they lie in; `why` no table does, for messages.

    Raises:
        UserError: a file in no class folder, or folders below them whose meaning nobody gave.
    """
    folder, files, train, config = done.folder, done.files, done.train, done.folder.config
    done.notes += ["labels: from the names of folders"] if train else []
    kept = thin_folders(files, train, config.frames_per_video[0], config)
    done.thinned = {*train} - {*kept}
    for index in kept:
        file = files[index]
        if file.place.label is None:
            raise _no_label(done, why)
        if file.place.below and config.subfolders is None:
            raise UserError(
                f"{folder.root}: there are folders below the class folders, such as {file.name}; "
                "say in dataset.yaml what they are: `subfolders: group` (frames of one video, "
                "shots of one person), `subfolders: domain` (generators, attacks) or `subfolders: "
                "ignore`"
            )
        in_val = file.place.split == "val"
        item_id = f"val/{file.name}" if in_val else file.name
        done.items[index] = Item(file.entry, item_id, file.place.label, in_val=in_val)
        done.words.add((file.place.label, file.place.word))
    done.origins = read_origins(folder, files, train, done.notes)
    for index, item in done.items.items():
        origin = done.origins[files[index].place]
        item.group, item.domain = origin.group, origin.domain
    tie_by_names(done)
    tie_equal_names(done)


def thin_folders(
    files: list[MediaFile], numbers: list[int], count: int | None, config: DatasetConfig
) -> list[int]:
    """Return files (numbers) without the frames beyond `count` of a folder that is a group."""
    above = GROUP in (config.folders_above or ())
    if count is None or not (above or GROUP in (config.subfolders or ())):
        return numbers
    folders: dict[str, dict[str, int]] = {}
    for number in numbers:
        path, place = files[number].entry.logical, files[number].place
        is_frame = (above or place.below or place.label is None) and kind_of(path) == "image"
        folders.setdefault(path.rpartition("/")[0] if is_frame else path, {})[path] = number
    return [of[path] for of in folders.values() for path in choose_frames(list(of), count)]


def tie_by_folders(done: Labelled) -> None:
    """Group items of tables that name no groups by their folders, as dataset.yaml says, or ask."""
    config, files = done.folder.config, done.files
    if config.subfolders is None and config.folders_above is None:
        free = (index for index, item in done.items.items() if not item.group)
        folders = Counter(files[index].place.domain for index in free)
        question = ask_above({name: count for name, count in folders.items() if name})
        if question:
            done.notes.append(f"WARNING no table names groups, and {question}")
        return
    origins = read_origins(done.folder, files, list(done.items), done.notes)
    for index, item in done.items.items():
        origin = origins[files[index].place]
        item.group = item.group or origin.group
        if config.folders_above is not None:
            item.domain = item.domain or origin.domain


def tie_by_names(done: Labelled) -> None:
    """Group face swaps with their originals, and frames of one video, where files are so named.

    Folders of frames may be named as swaps too. Folds that are given stand as they are; that they
    part such a group is said.
    """
    config, labels = done.folder.config, done.folder.labels
    items = list(done.items.values())
    names = [(item.group or item.item_id).rpartition("/") for item in items]
    above = {
        folder: "/".join(one for one in folder.split("/") if read_word(one, labels).label is None)
        for folder in {folder for folder, _, _ in names}
    }
    homes = [above[folder] for folder, _, _ in names]
    videos = ["" if item.group else _video_of(item.item_id) for item in items]
    # `real_frame_001` is but a numbered picture.
    plain = {video: read_word(video, labels).plain for video in set(videos)}
    videos = [video if plain[video] else "" for video in videos]
    stems = [
        video or (PurePosixPath(name).stem if item.group else without_suffix(name))
        for item, video, (_, _, name) in zip(items, videos, names, strict=True)
    ]
    swaps = tie_swaps(stems, [item.label for item in items], config.group_by, homes)
    first = stems[next(iter(swaps), 0)] if stems else ""
    named = f"{len(swaps)} items are named as face swaps and their originals (such as {first})"
    _tie(done, items, swaps, named)
    kept = config.same_names == IGNORE
    shared = {folder: folder if kept else _shared(home) for folder, home in above.items()}
    frames = {
        at: f"{shared[names[at][0]]}/{video}".lstrip("/")
        for at, video in enumerate(videos)
        if video and at not in swaps
    }
    frames = _without_series(done, items, frames)
    if frames:
        first = items[next(iter(frames))].item_id
        many = len(set(frames.values()))
        named = f"{len(frames)} pictures are named as frames of {many} videos (such as {first})"
        both = {(group, items[at].label, items[at].in_val) for at, group in frames.items()}
        if len(both) > many:
            named += ", of which some stand in several classes or splits (dataset.yaml: "
            named += "`same_names: ignore` if equal names mean nothing)"
        _tie(done, items, frames, named)


def _tie(done: Labelled, items: list[Item], groups: dict[int, str], named: str) -> None:
    """Give items (place -> group) the groups that their names tell, unless folds are given."""
    if any(item.fold is not None for item in items):
        pairs = {(group, items[place].fold) for place, group in groups.items()}
        if len(pairs) > len(set(groups.values())):
            done.notes.append(f"WARNING {named}, and the given folds part some of them")
        return
    for place, group in groups.items():
        items[place].group = group
    if groups:
        done.notes.append(f"groups: {named}, and are tied by those names")


def _video_of(item_id: str) -> str:
    """Return the video that a picture's name says it is a frame of; "" for none."""
    name = item_id.rpartition("/")[2]
    return "" if kind_of(name) == "video" else video_of_frame(without_suffix(name))


def _shared(home: str) -> str:
    """Return a folder without what says its split: a video of val/ may be in train/ too."""
    words = [(one, *NO_SPLITS.read(one)) for one in home.split("/")]
    return "/".join(filter(None, (rest if said else one for one, said, rest in words)))


def _without_series(done: Labelled, items: list[Item], frames: dict[int, str]) -> dict[int, str]:
    """Return frames (place -> video) of videos that have several, not of one that a class is."""
    for label in (0, 1):
        own = [at for at, item in enumerate(items) if item.label == label]
        found = {frames.get(at, "") for at in own}
        if len(own) > 1 and len(found) == 1 and "" not in found:
            done.notes.append(
                f"all {len(own)} {('real', 'fake')[label]} files have the name of one video and a "
                f"number (such as {items[own[0]].item_id}): taken for numbered pictures, not tied"
            )
            frames = {at: video for at, video in frames.items() if items[at].label != label}
    count = Counter(frames.values())
    return {at: video for at, video in frames.items() if count[video] > 1}


def tie_equal_names(done: Labelled) -> None:
    """Group real and fake files of one name where dataset.yaml says so, or say that there are some.

    Whether `fake/0001.png` was made from `real/0001.png` or both are but numbered, names do not
    tell. Items that have a group keep it: frames of videos are numbered alike.
    """
    same_names = done.folder.config.same_names
    free = [item for item in done.items.values() if not item.group]
    if same_names == GROUP:
        for item in free:
            item.group = without_suffix(item.item_id.rpartition("/")[2])
        return
    if same_names == IGNORE or len(free) < len(done.items):
        return
    names: dict[str, tuple[set[str], set[str]]] = {}
    for item in free:
        stem = without_suffix(item.item_id.rpartition("/")[2])
        for part in {"", item.domain}:
            names.setdefault(part, (set(), set()))[item.label].add(stem)
    for part, (reals, fakes) in names.items():
        shared, fewest = reals & fakes, min(len(reals), len(fakes))
        if fewest > 1 and len(shared) >= _MOST * fewest:
            where = f" of {part}" if part else ""
            done.notes.append(
                f"WARNING {len(shared)} of {len(reals)} names of real files{where} are names of "
                f"fake ones too (such as {min(shared)}), and are not tied; if a fake was made from "
                "the real one of its name, say so in dataset.yaml: `same_names: group`, else "
                "`same_names: ignore`"
            )
            return


def _no_label(done: Labelled, why: list[str]) -> UserError:
    folder, files, train = done.folder, done.files, done.train
    without = [files[i] for i in train if files[i].place.label is None]
    known = [files[i] for i in train if files[i].place.label is not None]
    home = without[0].entry.path.rpartition("/")[0] or "the top folder"
    words = {file.place.word: file.place.label for file in known}
    words |= dict.fromkeys(
        _class_names({file.folder for file in without}, {file.folder for file in known})
    )
    ways = []
    if len(words) > 1:
        ways.append(f"what they mean: {offer('labels', words)} (0 for real, 1 for fake)")
    if known:
        aside = offer_aside((f.entry.logical for f in without), (f.entry.logical for f in known))
        ways.append(f"what to leave aside: {aside}")
    way = "put the files into class folders, or add a CSV of `filename,label`"
    if ways:
        way = f"rename the class folders, or say in dataset.yaml {', or '.join(ways)}"
    return UserError(
        f"{folder.root}: {len(without)} of {len(train)} train files have no label, the first is "
        f"{without[0].entry.path}: no folder of {home} is called {folder.labels.wanted()}, and "
        "there is no CSV with an id and a label column either"
        f"{''.join(f' ({reason})' for reason in why)}; {way}"
    )


def _class_names(folders: set[str], others: set[str]) -> list[str]:
    """Return what class folders may be called; empty where no guess is to be offered.

    Beside folders of known classes (`others`) these are the highest ones that hold nothing of
    theirs, else the level of folders that has the fewest names (of equal ones the inner:
    `<domain>/teasing/`).
    """
    if others:
        found = {own.rpartition("/")[2] for own in own_folders(folders, others).values()} - {""}
        return sorted(found) if len(found) <= _MOST_CLASSES else []
    paths = [folder.split("/") for folder in folders]
    read = SplitMap().read  # of `trainTeasing` the class is Teasing
    levels = [
        sorted({rest if said else path[at] for path in paths for said, rest in [read(path[at])]})
        for at in range(min(map(len, paths)))
    ]
    levels = [names for names in levels if 1 < len(names) <= _MOST_CLASSES and "" not in names]
    return min(reversed(levels), key=len, default=[])
