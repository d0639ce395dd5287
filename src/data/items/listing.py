"""All files of a data set's folder, those inside zips too; links are followed, never in circles."""

import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from stat import S_ISREG

from src.data.items.dataset_yaml import offer_ignore
from src.data.items.files import (
    IMAGE_SUFFIXES,
    IN_ZIP,
    VIDEO_SUFFIXES,
    Archive,
    forget_archive,
    open_archive,
    read_head,
    safe_name,
    suffix_of,
)
from src.data.items.marks import Basis, times_of
from src.data.items.parquet_rows import PARQUET
from src.errors import UserError

# Under these suffixes of videos, texts are something else: TypeScript, and Qt's translations.
_TEXTS_TOO = frozenset((".ts", ".mts"))
_HEAD = 512  # bytes that tell a text from a video
# What people bring and no decoder here reads.
_UNREAD_PICTURES = frozenset((".jxl", ".tga", ".psd", ".ico", ".dng", ".cr2", ".nef", ".arw"))
TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".json", PARQUET})
TEXT_SUFFIX = ".txt"
_SURROGATE = re.compile("[\ud800-\udfff]")
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


@dataclass(frozen=True)
class Listing:
    """All files of a data set's folder."""

    media: list[Entry]  # images and videos, sorted by logical path
    tables: list[Entry]  # CSV and JSON files, sorted by logical path
    ignored: dict[str, int] = field(default_factory=dict)  # reason -> number of files left aside
    # text files, sorted by logical path; counted among the ignored too, for only some layouts of
    # the field read them
    texts: list[Entry] = field(default_factory=list)
    # logical path -> reason, of the files left aside for what they are: no image, video or table
    # that is read here
    unread: dict[str, str] = field(default_factory=dict)
    # files that are masks, and so not among the media (`src.data.items.masks`)
    mask_files: list[Entry] = field(default_factory=list)
    mask_of: dict[str, Entry] = field(default_factory=dict)  # logical path of a picture -> its mask


def list_files(root: Path, ignore: tuple[str, ...] = (), basis: Basis | None = None) -> Listing:
    """List the files of a folder, zips opened in place; or one file, as if alone in its folder.

    Left aside is what matches a pattern of `ignore` (`masks/*`) by its logical path. `basis` takes
    note of every folder and archive.

    Raises:
        UserError: see `_walk`; two files at one logical path (a zip beside its own unpacked
            folder).
    """
    ignored: Counter[str] = Counter()
    media: dict[str, Entry] = {}
    tables: list[Entry] = []
    texts: list[Entry] = []
    unread: dict[str, str] = {}
    alone = root.is_file()
    home = root.parent if alone else root
    basis = Basis() if basis is None else basis
    for entry in _one_file(root) if alone else _walk(root, ignore, ignored, basis):
        reason = _ignored_because(entry, ignore)
        if reason is not None:
            ignored[reason] += 1
        elif (reason := _unread_because(home, entry)) is not None:
            ignored[reason] += 1
            unread[entry.logical] = reason
            if entry.suffix == TEXT_SUFFIX:
                texts.append(entry)
        elif entry.suffix in TABLE_SUFFIXES:
            tables.append(entry)
        elif entry.logical in media:
            raise UserError(
                f"{root}: {media[entry.logical].path} and {entry.path} are the same place twice; "
                "keep either the zip or the unpacked folder, or leave one aside in dataset.yaml: "
                + offer_ignore(_zip_of(entry.path, media[entry.logical].path))
            )
        else:
            media[entry.logical] = entry
    _check_names(root, [*media, *(entry.logical for entry in tables)])
    return Listing(
        [media[name] for name in sorted(media)],
        sorted(tables, key=lambda entry: entry.logical),
        dict(sorted(ignored.items())),
        sorted(texts, key=lambda entry: entry.logical),
        dict(sorted(unread.items())),
    )


def _check_names(root: Path, names: list[str]) -> None:
    """Raise a UserError for names that no CSV or JSON could hold: they are not UTF-8."""
    bad = [name for name in names if not name.isascii() and _SURROGATE.search(name)]
    if not bad:
        return
    encoding = sys.getfilesystemencoding()
    if encoding.lower() not in ("utf-8", "utf8"):
        raise UserError(
            f"{root}: file names such as {bad[0]!a} cannot be read, for Python takes them as "
            f"{encoding} here; set PYTHONUTF8=1 (or LC_ALL=C.UTF-8)"
        )
    raise UserError(
        f"{root}: {len(bad)} file names are not UTF-8, the first is {bad[0]!a}; rename them "
        "(`convmv -f latin1 -t utf8 -r --notest DIR` does it), or leave them aside in "
        f"dataset.yaml: {_SURROGATE.sub('?', offer_ignore(*bad))}"
    )


def _zip_of(*paths: str) -> str:
    """Return the zip that the first of some paths which lies in one lies in."""
    return next(found[1] for path in paths if (found := IN_ZIP.match(path)))


def _ignored_because(entry: Entry, patterns: tuple[str, ...]) -> str | None:
    if _is_junk(entry.logical):
        return "junk (.DS_Store, __MACOSX, hidden files)"
    if entry.bytes < 0:
        return "no regular file (a pipe, a socket, a device)"
    reason = _matches(entry.logical, patterns) or _matches(entry.path, patterns)
    if reason is None and entry.suffix == ".zip":
        return "zip inside a zip (unpack the outer one)"
    return reason


def _unread_because(root: Path, entry: Entry) -> str | None:
    """Return why a file is no image, video or table that is read; None if it is one."""
    suffix = entry.suffix
    if suffix in _TEXTS_TOO and _is_text(root, entry.path):
        return f"text, no video ({suffix})"
    if suffix in IMAGE_SUFFIXES or suffix in VIDEO_SUFFIXES or suffix in TABLE_SUFFIXES:
        return None
    if suffix in _UNREAD_PICTURES:
        return f"picture of a format that is not read: convert it to PNG or JPEG ({suffix})"
    return f"neither image nor video ({suffix or 'no suffix'})"


def _is_text(root: Path, path: str) -> bool:
    """Tell whether a file begins as texts do; False for one that cannot be read."""
    head = read_head(root, path, _HEAD)
    # A stream has bytes below the blank in its first packet; UTF-16 has, but for its mark.
    marked = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    return bool(head) and (marked or all(byte >= 32 or byte in b"\t\n\f\r" for byte in head))


def _walk(
    root: Path, ignore: tuple[str, ...], ignored: Counter[str], basis: Basis
) -> Iterator[Entry]:
    """Yield every file below a folder, zips opened, links followed once; counts what is `ignored`.

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
        basis.add(os.path.join(top, prefix))  # noqa: PTH118 - before it is listed
        for found in _scan(top, prefix):
            relative = prefix + found.name
            if _is_folder(found):
                identity = _identity(found.stat())
                if identity in above:
                    ignored["link back to a folder above"] += 1
                elif identity in seen and _matches(relative, ignore) is None:
                    raise UserError(
                        f"{root}: {seen[identity]} and {relative} are one folder, linked twice; "
                        "take one link away, or leave it aside in dataset.yaml: "
                        + offer_ignore(relative)
                    )
                elif identity not in seen:
                    seen[identity] = relative
                    todo.append((f"{relative}/", above | {identity}))
            elif found.name.lower().endswith(".zip") and not found.name.startswith("."):
                reason = _matches(relative, ignore)
                if reason is None:
                    basis.add(os.path.join(top, relative), archive=True)  # noqa: PTH118
                    yield from _zip_entries(Path(top, relative), relative)
                else:
                    ignored[reason] += 1
            elif relative != "dataset.yaml":
                yield _file_entry(top, found, relative, basis)


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


def _one_file(path: Path) -> list[Entry]:
    """Return a file (of a zip: its members) as if it were alone in the folder that it lies in."""
    if path.suffix.lower() == ".zip":
        return _zip_entries(path, path.name)
    stat = path.stat()
    return [Entry(path.name, path.name, stat.st_size, times_of(stat))]


def _file_entry(top: str, found: "os.DirEntry[str]", relative: str, basis: Basis) -> Entry:
    path = os.path.join(top, relative)  # noqa: PTH118 - pathlib is slow for a million files
    try:
        stat = found.stat()
    except OSError as error:
        if found.is_symlink():
            target = os.readlink(path)  # noqa: PTH115
            raise UserError(f"{path} is a link to {target}, which is not there") from None
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    basis.note(stat)
    if IN_ZIP.match(relative):
        raise UserError(f"{path}: a folder may not be called *.zip!, *.tar!, *.parquet!; rename it")
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
    members = archive.directory.files() if isinstance(archive, Archive) else ()
    files = [(name, safe_name(name), size, crc) for name, size, crc in members]
    forget_archive(archive.path)  # 90 MB a million members, while tables are read
    home = PurePosixPath(relative).with_suffix("")
    tops = {safe.split("/")[0] for _, safe, _, _ in files if "/" in safe and not _is_junk(safe)}
    flat = any("/" not in safe and not _is_junk(safe) for _, safe, _, _ in files)
    if tops == {home.name} and not flat:
        home = home.parent
    prefix = "" if home == PurePosixPath() else f"{home}/"
    return [
        Entry(f"{relative}!/{name}", prefix + safe, size, crc, crc)
        for name, safe, size, crc in files
    ]


def _is_junk(logical: str) -> bool:
    """Tell what an archiver or a desktop left behind from what belongs to the data."""
    parts = logical.split("/")
    return (
        any(part.startswith(".") for part in parts)
        or "__MACOSX" in parts
        or parts[-1].lower() in _JUNK_NAMES
    )


def _matches(path: str, patterns: tuple[str, ...]) -> str | None:
    """Return why a path is left aside: the first pattern that it matches; None if there is none."""
    for pattern in patterns:
        if fnmatch(path, pattern):
            return f"dataset.yaml: ignore {pattern}"
    return None
