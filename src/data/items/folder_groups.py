"""What the folders above and below the class folders are: one person or video each, or domains."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from src.data.items.dataset_yaml import DOMAIN, GROUP, IGNORE, DatasetConfig, Levels
from src.data.items.folder import Folder
from src.data.items.places import MediaFile, Place
from src.data.items.words import normalise
from src.errors import UserError

# Folders above class folders are asked about where there are so many of one numbered name (p00,
# p01 ...), or more than a few that are so small: people and videos are, generators are not. Of
# fewer than MANY it is enough that half have a name that no person has.
NUMBERED, FEW, MANY, SMALL = 4, 4, 20, 500
_DOMAIN_WORDS = frozenset((
    "attack", "cam", "camera", "d", "dataset", "device", "domain", "g", "gen", "generator",
    "method", "model", "phone", "sensor", "set", "site", "source", "type",
    "cut", "display", "mask", "paper", "print", "replay", "screen",
    "face", "faceforensics", "faceshifter", "faceswap", "fsgan", "neuraltextures", "simswap",
    "adm", "biggan", "crn", "cyclegan", "dalle", "diffusion", "firefly", "flux", "gaugan", "glide",
    "imagen", "imle", "ldm", "midjourney", "pixart", "progan", "sd", "sdxl", "stargan",
    "stylegan", "vqdm", "vqgan", "wilddeepfake", "wukong",
    "celeb", "celeba", "celebdf", "coco", "deeperforensics", "dfd", "dfdc", "ff", "ffhq",
    "imagenet", "laion", "lsun",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class FolderGroup:
    """What the folders of an item say: names, "" where they say nothing."""

    group: str = ""
    domain: str = ""


def read_origins(
    folder: Folder, files: list[MediaFile], train: list[int], notes: list[str]
) -> dict[Place, FolderGroup]:
    """Return what the folders of each file say, by place; those without a class folder too.

    A folder of `subfolders: group` is one group in every class, domain and split that has one of
    its name: a person's real and fake pictures must not part (`same_names: ignore`: one each). A
    folder of `folders_above: group` is one whatever lies in it. The groups of test/ are its own.
    `train` are numbers of files; `notes` are added to.

    Raises:
        UserError: folders whose meaning nobody gave, or of which it is not clear which one is the
            person or video.
    """
    root, config = folder.root, folder.config
    counts = Counter(files[index].place for index in train)
    above: Counter[str] = Counter()
    for place, count in counts.items():
        if place.label is not None and place.domain:
            above[place.domain] += count
    question = ask_above(above) if config.folders_above is None else ""
    if question:
        raise UserError(f"{root}: {question}")
    places = dict.fromkeys(file.place for file in files)
    upper = _Folders("folders_above", config.folders_above or DOMAIN, root)
    lower = _Folders("subfolders", config.subfolders or IGNORE, root)
    upper.read((place.domain, place.split) for place in places)
    lower.read((p.below, f"{p.split}/{p.domain}/{p.label}") for p in places)
    found: dict[Place, FolderGroup] = {}
    homes: dict[str, set[str]] = defaultdict(set)  # group -> the class folders that have it
    folders: dict[str, set[str]] = defaultdict(set)  # group -> its folders below them
    for place in places:
        outer, inner = upper.of(place.domain), lower.of(place.below)
        split = "" if place.split == "train" else place.split
        home = "" if outer.group else f"{place.domain}/{place.label}".lstrip("/")
        group = outer.group or inner.group
        if group and (split == "test" or config.same_names == IGNORE):
            home = "" if split == "test" else home
            group = "/".join(filter(None, (split, home, group)))
        if group:
            homes[group].add(f"{split}/{home}")
            folders[group].add("" if outer.group else f"{split}/{place.inner}".lstrip("/"))
        domain = "/".join(filter(None, (outer.domain, inner.domain)))
        found[place] = FolderGroup(group, domain)
    notes += _say(config, above, homes)
    # A group that is one folder has the name of its path, which people can look up.
    alone = {group: min(paths) for group, paths in folders.items() if len(paths) == 1}
    return {
        place: FolderGroup(alone.get(one.group) or one.group, one.domain)
        for place, one in found.items()
    }


class _Folders:
    """Folders on one side of the class folders, and what each level of them is."""

    def __init__(self, key: str, levels: Levels, root: Path) -> None:
        self._key, self._levels, self._root = key, levels, root

    def read(self, paths: Iterable[tuple[str, str]]) -> None:
        """Check that the innermost folder tells a person or video, where `group` names no level."""
        if self._levels != GROUP:
            return
        seen: dict[tuple[str, str], str] = {}
        depths: set[int] = set()
        unclear: tuple[str, str] | None = None
        for path, home in paths:
            if not path:
                continue
            depths.add(path.count("/") + 1)
            other = seen.setdefault((home, path.rpartition("/")[2]), path)
            if other != path:
                unclear = unclear or (other, path)
        if unclear is not None:
            raise self._unclear(*unclear, depths)

    def of(self, path: str) -> FolderGroup:
        """Return what a path of folders says."""
        if not path:
            return FolderGroup()
        if self._levels == GROUP:
            return FolderGroup(group=path.rpartition("/")[2])
        if isinstance(self._levels, str):
            return FolderGroup(domain=path if self._levels == DOMAIN else "")
        parts = path.split("/")
        words = self._levels[-len(parts) :]
        if len(parts) > len(words) or (GROUP in self._levels and GROUP not in words):
            raise UserError(
                f"{self._root}: dataset.yaml names {len(self._levels)} levels of folders "
                f"(`{self._key}: [{', '.join(self._levels)}]`), but of {path}/ there are "
                f"{len(parts)}"
            )
        by_word = {
            wanted: "/".join(p for p, word in zip(parts, words, strict=True) if word == wanted)
            for wanted in (GROUP, DOMAIN)
        }
        return FolderGroup(by_word[GROUP], by_word[DOMAIN])

    def _unclear(self, one: str, two: str, depths: set[int]) -> UserError:
        """Say that either level may be the person or video."""
        rest = [IGNORE] * (max(depths) - 2)
        ways = f"`{self._key}: [{', '.join([*rest, DOMAIN, GROUP])}]` ({two.rpartition('/')[2]} is)"
        if len(depths) == 1:  # else the first level is another one for some
            first = ", ".join([GROUP, IGNORE, *rest])
            ways = f"`{self._key}: [{first}]` ({two.partition('/')[0]} is) or {ways}"
        return UserError(
            f"{self._root}: {one}/ and {two}/ lie on one side of the class folders: which folder "
            f"is one person or one video? Say in dataset.yaml, from the outermost on: {ways}"
        )


def ask_above(folders: Mapping[str, int]) -> str:
    """Return a question where folders above the class folders may be people or videos, else "".

    `folders` are their paths -> number of train items.
    """
    if not folders:
        return ""
    names = [re.sub(r"\d+", "#", normalise(path.rpartition("/")[2])) for path in folders]
    name, alike = Counter(names).most_common(1)[0]
    asked = "#" in name and alike >= max(NUMBERED, 0.8 * len(folders))
    asked |= len(folders) > FEW and median(folders.values()) < SMALL
    words = (re.split(r"[_/\d]+", normalise(path)) for path in folders)
    known = sum(not _DOMAIN_WORDS.isdisjoint(one) for one in words)
    if not asked or (len(folders) < MANY and 2 * known >= len(folders)):
        return ""
    first, second = sorted(folders)[:2]
    return (
        f"labelled files lie in {len(folders)} folders, such as {first}/ and {second}/, "
        f"with {median(folders.values()):g} train items each (median): what is such a folder? Say "
        "in dataset.yaml `folders_above: group` (one person or one video: its items share a fold) "
        "or `folders_above: domain` (a generator, an attack, a camera)"
    )


def _say(
    config: DatasetConfig, above: Mapping[str, int], homes: Mapping[str, set[str]]
) -> list[str]:
    notes = []
    if len(above) > 1 and config.folders_above is None:
        notes.append(
            f"domains: the {len(above)} folders above the class folders, such as {min(above)} "
            "(dataset.yaml: `folders_above: group` if each is one person or one video)"
        )
    tied = sorted(name for name, where in homes.items() if len(where) > 1)
    if tied:
        notes.append(
            f"groups: {len(tied)} folders stand in several classes, domains or splits, such as "
            f"{tied[0]}: one person or video each (dataset.yaml: `same_names: ignore` if equal "
            "names mean nothing)"
        )
    return notes
