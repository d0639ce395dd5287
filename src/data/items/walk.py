"""Every file below a folder, those inside zips too; links are followed, but never in circles."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from stat import S_ISREG

from src.data.items.archives import Archive, open_archive, safe_name
from src.data.items.dataset_yaml import offer_ignore
from src.errors import UserError

# A member of a zip, or a row of a parquet file.
IN_ZIP = re.compile(r"^(.*?\.(?:zip|parquet))!/(.*)$", re.IGNORECASE | re.DOTALL)
_JUNK_NAMES = frozenset({"thumbs.db", "desktop.ini"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One file."""

    path: str  # where it is read from (see the module)
    logical: str  # its path as if every zip were a folder
    bytes: int  # size, unpacked
    stamp: int  # changes when the content does: CRC in a zip, `times_of` a file in a folder
    crc: int | None = None  # CRC-32 of a zip's member, None in a folder

    @property
    def suffix(self) -> str:
        """Return the lower-case suffix, `.jpg`."""
        return suffix_of(self.logical)


def times_of(stat: os.stat_result) -> int:
    """Return an int64 of both times of a file's change, never -1; equal in every process.

    The inode's own time (ctime) cannot be set back, so that a file exchanged for another of equal
    size and date is told from it. Inode numbers are left out: network drives make them up anew.
    """
    return hash((stat.st_mtime_ns, stat.st_ctime_ns))  # of whole numbers: no random seed in it


def suffix_of(name: str) -> str:
    """Return the lower-case suffix of a path's last part (pathlib is slow for a million files)."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122


def walk(root: Path, ignore: tuple[str, ...], ignored: Counter[str]) -> Iterator[Entry]:
    """Yield every file below a folder, zips opened, links followed once.

    Args:
        root: the folder.
        ignore: patterns of paths to leave aside.
        ignored: reason -> number of things left aside; added to.

    Raises:
        UserError: a folder that cannot be listed or is linked twice, a link to nowhere, a broken
            zip.
    """
    top = os.path.normpath(root)
    chain = _above(Path(top))
    seen: dict[tuple[int, int], str] = {}
    todo = [("", chain)]
    while todo:
        prefix, above = todo.pop()
        for found in _scan(top, prefix):
            relative = prefix + found.name
            if _is_folder(found):
                identity = _identity(found.stat())
                if identity in above:
                    ignored["link back to a folder above"] += 1
                elif identity in seen and matches(relative, ignore) is None:
                    raise UserError(
                        f"{root}: {seen[identity]} and {relative} are one folder, linked twice; "
                        "take one link away, or leave it aside in dataset.yaml: "
                        + offer_ignore(relative)
                    )
                elif identity not in seen:
                    seen[identity] = relative
                    todo.append((f"{relative}/", above | {identity}))
            elif found.name.lower().endswith(".zip") and not found.name.startswith("."):
                reason = matches(relative, ignore)
                if reason is None:
                    yield from _zip_entries(Path(top, relative), relative)
                else:
                    ignored[reason] += 1
            elif relative != "dataset.yaml":
                yield _file_entry(top, found, relative)


def _scan(top: str, prefix: str) -> list["os.DirEntry[str]"]:
    folder = os.path.join(top, prefix) if prefix else top  # noqa: PTH118
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder.rstrip('/')}: cannot be listed ({error.strerror})") from None


def _is_folder(found: "os.DirEntry[str]") -> bool:
    try:
        return found.is_dir()
    except OSError:  # a link to itself: it is named with the files
        return False


def _above(top: Path) -> frozenset[tuple[int, int]]:
    """Return a folder and all above it: a link to one of them leads round in a circle."""
    found = set()
    for folder in (top.resolve(), *top.resolve().parents):
        with suppress(OSError):  # forbidden: then no link can be followed there either
            found.add(_identity(folder.stat()))
    return frozenset(found)


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


def one_file(path: Path) -> list[Entry]:
    """Return a file (of a zip: its members) as if it were alone in the folder that it lies in.

    Raises:
        UserError: a broken zip.
    """
    if path.suffix.lower() == ".zip":
        return _zip_entries(path, path.name)
    stat = path.stat()
    return [Entry(path.name, path.name, stat.st_size, times_of(stat))]


def _file_entry(top: str, found: "os.DirEntry[str]", relative: str) -> Entry:
    path = os.path.join(top, relative)  # noqa: PTH118 - pathlib is slow for a million files
    try:
        stat = found.stat()
    except OSError as error:
        if found.is_symlink():
            target = os.readlink(path)  # noqa: PTH115
            raise UserError(f"{path} is a link to {target}, which is not there") from None
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if IN_ZIP.match(relative):
        raise UserError(f"{path}: a folder may not be called *.zip! or *.parquet!; rename it")
    if not S_ISREG(stat.st_mode):
        return Entry(relative, relative, -1, 0)
    return Entry(relative, relative, stat.st_size, times_of(stat))


def _zip_entries(path: Path, relative: str) -> list[Entry]:
    """List a zip as the folder that its name says; a top folder of that name inside counts once."""
    try:
        archive = open_archive(os.path.normpath(path), fresh=True)
    except OSError as error:
        raise UserError(
            f"{path}: {error}; download it again, or leave it aside in dataset.yaml: "
            + offer_ignore(relative)
        ) from None
    members = list(archive.members.values()) if isinstance(archive, Archive) else []
    files = [(info, safe_name(info.filename)) for info in members if not info.is_dir()]
    home = PurePosixPath(relative).with_suffix("")
    tops = {name.split("/")[0] for _, name in files if "/" in name and not is_junk(name)}
    flat = any("/" not in name and not is_junk(name) for _, name in files)
    if tops == {home.name} and not flat:
        home = home.parent
    prefix = "" if home == PurePosixPath() else f"{home}/"
    return [
        Entry(f"{relative}!/{info.filename}", prefix + name, info.file_size, info.CRC, info.CRC)
        for info, name in files
    ]


def is_junk(logical: str) -> bool:
    """Tell what an archiver or a desktop left behind from what belongs to the data."""
    parts = logical.split("/")
    return (
        any(part.startswith(".") for part in parts)
        or "__MACOSX" in parts
        or parts[-1].lower() in _JUNK_NAMES
    )


def matches(path: str, patterns: tuple[str, ...]) -> str | None:
    """Return why a path is left aside: the first pattern that it matches; None if there is none."""
    for pattern in patterns:
        if fnmatch(path, pattern):
            return f"dataset.yaml: ignore {pattern}"
    return None
