"""Which frames are of one video, and which videos of one source, by the names of the field."""

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

FACEFORENSICS, DFD, CELEB_DF, UADFV = "FaceForensics++", "DeepFakeDetection", "Celeb-DF", "UADFV"
PUBLISHED = (FACEFORENSICS, DFD, CELEB_DF, UADFV)  # whose names of groups mean the same anywhere
IDENTITY, VIDEO = "identity", "video"
_PAIR = re.compile(r"^(\d{3})(?:_(\d{3}))?$")
_ACTORS = re.compile(r"^(\d\d)(?:_(\d\d))?__(.+?)(?:__[A-Z0-9]{8})?$")
_CELEB = re.compile(r"^(id\d+)(?:_(id\d+))?_(\d+)$")
_CLIP = re.compile(r"^id\d+_\d+$|__")  # of Celeb-DF and DFD; a person would be id0, 01
_FAKE = "_fake"  # what UADFV adds to the name of the original
# `v0_frame12`, `v0-frame-12`, `v0frame12`, `v0_f0012`, `v0.mp4_12`, a face's number behind.
_FRAME = re.compile(
    r"(?P<video>.+?)(?:[_\s-]frame[_\s-]*\d+|(?<=\d)frame\d+|[_\s-]f\d{3,}"
    r"|\.(?:mp4|avi|mov|mkv|webm|mpe?g)[_-]\d+)(?:[_-]face[_-]?\d+)?",
    re.IGNORECASE,
)
_PATTERNS = {FACEFORENSICS: _PAIR, DFD: _ACTORS, CELEB_DF: _CELEB}


def family_of(dataset: str) -> str:
    """Return the data set whose way of naming videos another one shares, else its own name."""
    if dataset.startswith("FF-") or dataset in (FACEFORENSICS, "FaceShifter"):
        return FACEFORENSICS
    if dataset.startswith(("DFD_", DFD)):
        return DFD
    return CELEB_DF if dataset.startswith(CELEB_DF) else dataset


def is_published(group: str) -> bool:
    """Return whether a group is named by a published set, and so the same in all data sets."""
    return group.partition("/")[0] in PUBLISHED and "/" in group


def video_of_frame(stem: str) -> str:
    """Return the video that a file's name (without suffix) says it is a frame of; "" for none."""
    found = _FRAME.fullmatch(stem)
    return "" if found is None else found["video"]


def sources_of(family: str, video: str, by: str = IDENTITY) -> list[str]:
    """Return what a video (its name, without suffix) of a family was made from, never nothing.

    By `identity` that is both people of a swap (`000_003` -> 000, 003; `id0_id1_0001` -> id0, id1),
    by `video` just the clip that was changed (000; id0_0001). A video that fits no pattern is its
    own source.
    """
    if family == FACEFORENSICS and (found := _PAIR.match(video)):
        return _pick(found[1], found[2], found[1], by)
    if family == DFD and (found := _ACTORS.match(video)):
        return _pick(found[1], found[2], f"{found[1]}__{found[3]}", by)
    if family == CELEB_DF and (found := _CELEB.match(video)):
        return _pick(found[1], found[2], f"{found[1]}_{found[3]}", by)
    return [video.removesuffix(_FAKE)] if family == UADFV else [video]


def video_in(family: str, path: str) -> str | None:
    """Return the video that a path is of: its innermost folder that is named so, else the file.

    A frame in a folder of frames may itself be called like a video (`024_025/000.png`).
    """
    pattern = _PATTERNS.get(family)
    if pattern is None:
        return None
    *folders, file = [PurePosixPath(part).stem for part in PurePosixPath(path).parts]
    return next((stem for stem in [*reversed(folders), file] if pattern.match(stem)), None)


def people_in(group: str, path: str) -> list[str]:
    """Return who is in an item of a published set (its group begins with it), if its path tells."""
    family = group.partition("/")[0]
    video = video_in(family, path)
    return [] if video is None else [f"{family}/{one}" for one in sources_of(family, video)]


def tie_parts(groups: Sequence[str], paths: Sequence[str], by: str = IDENTITY) -> list[str]:
    """Group the items of several data sets anew, where they are cut from one published set.

    Groups of `PUBLISHED` families, which begin with the family's name, become those of all sets
    together. A family whose groups are clips already stays grouped by clip.
    """
    tied = list(groups)
    for family in _PATTERNS:
        own = [at for at, group in enumerate(groups) if group.startswith(f"{family}/")]
        videos = {at: video for at in own if (video := video_in(family, paths[at])) is not None}
        names = {groups[at].partition("/")[2] for at in videos}
        clips = any(_CLIP.search(name) for name in names)
        tie = VIDEO if clips else by
        found = group_sources((family, sources_of(family, one, tie)) for one in videos.values())
        for at, group in zip(videos, found, strict=True):
            tied[at] = group
    return tied


def _pick(target: str, source: str | None, clip: str, by: str) -> list[str]:
    if by == VIDEO:
        return [clip]
    return [target] if source is None else [target, source]


def group_sources(made_from: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """Return a group name a video; videos that share a source, even through others, share it.

    `made_from` tells of each video its family, and what it was made from, at least one name.
    """
    return linked([f"{family}/{source}" for source in sources] for family, sources in made_from)


def linked(some: Iterable[Sequence[str]]) -> list[str]:
    """Return for each set of keys the least of all that it is linked to, its own included.

    Sets that share a key are linked, and those that are linked to the same one; none is empty.
    """
    from scipy.cluster.hierarchy import DisjointSet  # slow to import, and rarely needed

    links: DisjointSet = DisjointSet()
    first: list[str] = []
    for keys in some:
        for key in keys:
            links.add(key)
            links.merge(keys[0], key)
        first.append(keys[0])
    leaders = {key: min(part) for part in links.subsets() for key in part}
    return [leaders[key] for key in first]


def swap_families(stems: Sequence[str], labels: Sequence[int]) -> dict[int, str]:
    """Return place of an item -> family of those named as swaps beside an original of theirs."""
    found: dict[int, str] = {}
    for family, pattern in _PATTERNS.items():
        named = {at: match for at, stem in enumerate(stems) if (match := pattern.match(stem))}
        # A real swap, or a fake of one number: these names mean something else.
        if any(bool(match[2]) != bool(labels[at]) for at, match in named.items()):
            continue
        people = {at: set(sources_of(family, stems[at])) for at in named}
        real = {person for at, who in people.items() if not labels[at] for person in who}
        if any(labels[at] and who & real for at, who in people.items()):
            found |= dict.fromkeys(named, family)
    return found


def tie_swaps(
    stems: Sequence[str],
    labels: Sequence[int],
    by: str = IDENTITY,
    homes: Sequence[str] = (),
) -> dict[int, str]:
    """Return place -> group of items whose names alone are those of face swaps and their originals.

    That is so where a fake `000_003` (`id0_id1_0001`, `01_02__walk__YVGY8LOK`) stands beside a real
    `000` or `003` (`id0_0001`, `01__talk` or `02__talk`): sets that are often copied into plain
    class folders. Of Celeb-DF, where everybody is swapped with everybody, the clip alone ties. A
    fake `0003_fake`, as in UADFV, is tied to a real `0003` of the same home (the folder above its
    class).
    """
    found: dict[int, str] = {}
    families = swap_families(stems, labels)
    for family, tied in ((FACEFORENSICS, by), (DFD, by), (CELEB_DF, VIDEO)):
        named = [at for at, of in families.items() if of == family]
        if named:  # else an import of a second for nothing
            groups = group_sources((family, sources_of(family, stems[at], tied)) for at in named)
            found |= dict(zip(named, groups, strict=True))
    return tie_named_fakes(stems, labels, homes) | found


def tie_named_fakes(
    stems: Sequence[str], labels: Sequence[int], homes: Sequence[str] = ()
) -> dict[int, str]:
    """Return place of an item -> group of each fake `X_fake` and the real `X` beside it."""
    rows = list(zip(homes or [""] * len(stems), stems, labels, strict=True))
    fakes = {(home, stem.removesuffix(_FAKE)) for home, stem, label in rows
             if label and stem.endswith(_FAKE)}  # fmt: skip
    both = fakes & {(home, stem) for home, stem, label in rows if not label}
    found = {}
    for at, (home, stem, label) in enumerate(rows):
        name = stem.removesuffix(_FAKE) if label else stem
        if (home, name) in both and (not label or name != stem):
            found[at] = f"{home}/{name}" if home else name
    return found
