"""Files of a data set, in folders or inside zips, listed and read in place.

A path is relative to the data set's folder, with `/`; a member of a zip is
`train.zip!/train/real/x.jpg`.
"""

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from src.data.archives import open_archive
from src.data.images import UnreadableImageError
from src.errors import UserError

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jp2",
     ".ppm", ".pgm", ".avif")
)  # fmt: skip
VIDEO_SUFFIXES = frozenset((".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"))
TABLE_SUFFIXES = frozenset({".csv", ".json"})
_JUNK_NAMES = frozenset({"thumbs.db", "desktop.ini"})
_IN_ZIP = re.compile(r"^(.*?\.zip)!/(.*)$", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """One file.

    Attributes:
        path: where it is read from (see the module).
        logical: its path as if every zip were a folder.
        bytes: size, unpacked.
        stamp: changes when the content does: CRC in a zip, modification time in a folder.
        crc: CRC-32 of a zip's member, None in a folder.
    """

    path: str
    logical: str
    bytes: int
    stamp: int
    crc: int | None = None

    @property
    def suffix(self) -> str:
        """Return the lower-case suffix, `.jpg`."""
        return suffix_of(self.logical)


@dataclass(frozen=True)
class Listing:
    """All files of a data set's folder.

    Attributes:
        media: images and videos, sorted by logical path.
        tables: CSV and JSON files, sorted by logical path.
        ignored: reason -> number of files left aside.
    """

    media: list[Entry]
    tables: list[Entry]
    ignored: dict[str, int] = field(default_factory=dict)


def suffix_of(name: str) -> str:
    """Return the lower-case suffix of a path's last part (pathlib is slow for a million files)."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122


def kind_of(name: str) -> str | None:
    """Return `image`, `video` or None, by suffix."""
    suffix = suffix_of(name)
    if suffix in IMAGE_SUFFIXES:
        return "image"
    return "video" if suffix in VIDEO_SUFFIXES else None


def list_files(root: Path, ignore: tuple[str, ...] = ()) -> Listing:
    """List a data set's files, zips opened in place.

    Args:
        root: the data set's folder.
        ignore: patterns (`masks/*`) of logical paths to leave aside.

    Raises:
        UserError: a broken zip, or two files at one logical path (a zip beside its own
            unpacked folder).
    """
    ignored: Counter[str] = Counter()
    media: dict[str, Entry] = {}
    tables: list[Entry] = []
    for entry in _walk(root):
        reason = _ignored_because(entry, ignore)
        if reason is not None:
            ignored[reason] += 1
        elif entry.suffix in TABLE_SUFFIXES:
            tables.append(entry)
        elif entry.logical in media:
            raise UserError(
                f"{root}: {media[entry.logical].path} and {entry.path} are the same place twice; "
                "keep either the zip or the unpacked folder, or leave one aside in dataset.yaml "
                "(ignore: [PATTERN], matched against the path as listed here)"
            )
        else:
            media[entry.logical] = entry
    return Listing(
        [media[name] for name in sorted(media)],
        sorted(tables, key=lambda entry: entry.logical),
        dict(sorted(ignored.items())),
    )


def read_bytes(root: Path, path: str) -> bytes:
    """Read one file whole; safe from any thread and after a fork.

    Args:
        root: the data set's folder.
        path: as in the manifest.

    Raises:
        UnreadableImageError: no permission, a disk error, or a damaged, encrypted or unusually
            packed member of a zip.
        UserError: the file is not there any more.
    """
    inside = _IN_ZIP.match(path)
    try:
        # Lexically: root may be a link, and `..` must lead back to its neighbour in input/.
        if inside is None:
            return Path(os.path.normpath(root / path)).read_bytes()
        return open_archive(os.path.normpath(root / inside[1])).read(inside[2])
    except FileNotFoundError as error:
        raise UserError(f"{root}: {path} is not there any more ({error})") from None
    except OSError as error:
        raise UnreadableImageError(str(error)) from None


def _walk(root: Path) -> list[Entry]:
    entries: list[Entry] = []
    seen: set[Path] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = Path(folder).resolve()
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            relative = path.relative_to(root).as_posix()
            if relative == "dataset.yaml":
                continue
            if name.lower().endswith(".zip") and not name.startswith("."):
                entries += _zip_entries(path, relative)
                continue
            if not path.exists():
                raise UserError(f"{path} is a link to {path.readlink()}, which is not there")
            stat = path.stat()
            entries.append(Entry(relative, relative, stat.st_size, stat.st_mtime_ns))
    return entries


def _zip_entries(path: Path, relative: str) -> list[Entry]:
    """List a zip as the folder that its name says; a top folder of that name inside counts once."""
    try:
        members = list(open_archive(os.path.normpath(path), fresh=True).members.values())
    except OSError as error:
        raise UserError(f"{path}: {error}; download it again") from None
    files = [
        (info, info.filename.replace("\\", "/").lstrip("/"))
        for info in members
        if not info.is_dir()
    ]
    home = PurePosixPath(relative).with_suffix("")
    tops = {name.split("/")[0] for _, name in files if "/" in name and not _is_junk(name)}
    flat = any("/" not in name and not _is_junk(name) for _, name in files)
    if tops == {home.name} and not flat:
        home = home.parent
    prefix = "" if home == PurePosixPath() else f"{home}/"
    return [
        Entry(f"{relative}!/{info.filename}", prefix + name, info.file_size, info.CRC, info.CRC)
        for info, name in files
    ]


def _is_junk(logical: str) -> bool:
    parts = logical.split("/")
    return (
        any(part.startswith(".") for part in parts)
        or "__MACOSX" in parts
        or parts[-1].lower() in _JUNK_NAMES
    )


def _ignored_because(entry: Entry, patterns: tuple[str, ...]) -> str | None:
    if _is_junk(entry.logical):
        return "junk (.DS_Store, __MACOSX, hidden files)"
    for pattern in patterns:
        if fnmatch(entry.logical, pattern) or fnmatch(entry.path, pattern):
            return f"dataset.yaml: ignore {pattern}"
    suffix = entry.suffix
    if suffix in IMAGE_SUFFIXES or suffix in VIDEO_SUFFIXES or suffix in TABLE_SUFFIXES:
        return None
    return f"neither image nor video ({suffix or 'no suffix'})"
