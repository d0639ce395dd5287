"""Files of a data set, in folders or inside zips, listed and read in place.

A path is relative to the data set's folder, with `/`; a member of a zip is
`train.zip!/train/real/x.jpg`, a row of a parquet file `train.parquet!/12/x.jpg`.
"""

import os
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from src.data.items.archives import LARGEST, open_archive
from src.data.items.dataset_yaml import offer_ignore
from src.data.items.parquet_rows import PARQUET
from src.data.items.walk import IN_ZIP, Entry, is_junk, matches, one_file, suffix_of, walk
from src.errors import UnreadableImageError, UserError

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jp2",
     ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".apng", ".jif", ".pjpeg", ".heic",
     ".heif", ".hif")
)  # fmt: skip
VIDEO_SUFFIXES = frozenset(
    (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".asf", ".flv",
     ".f4v", ".3gp", ".3gpp", ".3g2", ".ts", ".mts", ".m2ts", ".m2t", ".vob", ".ogv", ".mpe",
     ".m1v", ".m2v", ".mpv", ".mp4v", ".qt", ".divx", ".dv", ".mxf", ".rm", ".rmvb")
)  # fmt: skip
# Of these, texts are something else: TypeScript, and Qt's translations.
_TEXTS_TOO = frozenset((".ts", ".mts"))
_HEAD = 512  # bytes that tell a text from a video
# What people bring and no decoder here reads.
_UNREAD_PICTURES = frozenset((".jxl", ".tga", ".psd", ".ico", ".dng", ".cr2", ".nef", ".arw"))
TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".json", PARQUET})
TEXT_SUFFIX = ".txt"
_SURROGATE = re.compile("[\ud800-\udfff]")


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


def kind_of(name: str) -> str | None:
    """Return `image`, `video` or None, by suffix."""
    suffix = suffix_of(name)
    if suffix in IMAGE_SUFFIXES:
        return "image"
    return "video" if suffix in VIDEO_SUFFIXES else None


def list_files(root: Path, ignore: tuple[str, ...] = ()) -> Listing:
    """List a data set's files, zips opened in place.

    Args:
        root: the data set's folder; or one file (also a zip), listed as if it were alone in the
            folder that it lies in.
        ignore: patterns (`masks/*`) of logical paths to leave aside.

    Raises:
        UserError: a broken zip, or two files at one logical path (a zip beside its own
            unpacked folder).
    """
    ignored: Counter[str] = Counter()
    media: dict[str, Entry] = {}
    tables: list[Entry] = []
    texts: list[Entry] = []
    unread: dict[str, str] = {}
    alone = root.is_file()
    home = root.parent if alone else root
    for entry in one_file(root) if alone else walk(root, ignore, ignored):
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
    inside = IN_ZIP.match(path)
    try:
        # Lexically: root may be a link, and `..` must lead back to its neighbour in input/.
        if inside is None:
            return _read_whole(Path(os.path.normpath(root / path)))
        return open_archive(os.path.normpath(root / inside[1])).read(inside[2])
    except FileNotFoundError as error:
        raise UserError(f"{root}: {path} is not there any more ({error})") from None
    except OSError as error:
        raise UnreadableImageError(str(error)) from None


def local_path(root: Path, path: str) -> Path | None:
    """Return where a file lies on disk; None for a member of a zip.

    Args:
        root: the data set's folder.
        path: as in the manifest.

    Raises:
        UserError: the file is not there any more.
    """
    if IN_ZIP.match(path) is not None:
        return None
    there = Path(os.path.normpath(root / path))
    if not there.is_file():
        raise UserError(f"{root}: {path} is not there any more")
    return there


def stamp_of(root: Path, path: str) -> tuple[int, ...]:
    """Return what changes when a file does: its size, and its CRC (in a zip) or mtime and ctime.

    Args:
        root: the data set's folder.
        path: as in the manifest.

    Raises:
        UserError: the file is not there any more.
    """
    inside = IN_ZIP.match(path)
    try:
        if inside is None:
            stat = os.stat(os.path.normpath(root / path))  # noqa: PTH116 - for a million files
            return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
        return open_archive(os.path.normpath(root / inside[1])).stamp(inside[2])
    except (OSError, KeyError) as error:
        raise UserError(f"{root}: {path} is not there any more ({error})") from None


def _read_whole(path: Path) -> bytes:
    size = path.stat().st_size
    if size > LARGEST:
        raise OSError(f"{path}: {size} bytes, too large for a picture")
    return path.read_bytes()


def _ignored_because(entry: Entry, patterns: tuple[str, ...]) -> str | None:
    if is_junk(entry.logical):
        return "junk (.DS_Store, __MACOSX, hidden files)"
    if entry.bytes < 0:
        return "no regular file (a pipe, a socket, a device)"
    reason = matches(entry.logical, patterns) or matches(entry.path, patterns)
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
    inside = IN_ZIP.match(path)
    try:
        if inside is None:
            with Path(os.path.normpath(root / path)).open("rb") as file:
                head = file.read(_HEAD)
        else:
            head = open_archive(os.path.normpath(root / inside[1])).head(inside[2], _HEAD)
    except OSError:
        return False
    # A stream has bytes below the blank in its first packet; UTF-16 has, but for its mark.
    marked = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    return bool(head) and (marked or all(byte >= 32 or byte in b"\t\n\f\r" for byte in head))
