"""Files of a data set, on disk, in a zip or in rows of a parquet file: their kind and their bytes.

A path is relative to the data set's folder, with `/`; a member of a zip is
`train.zip!/train/real/x.jpg`, a row of a parquet file `train.parquet!/12/x.jpg`, a member of a tar
shard `train-000000.tar!/1536-20480-2899812733/train/x.jpg`. All are read in place, from any thread
and after any fork.
"""

import os
import re
import threading
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from src.data.items.parquet_rows import PARQUET, ParquetRows
from src.data.items.tar_shards import TAR, TarShard, pread
from src.data.items.zip_directory import ZipMember, open_directory
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
# A member of a zip, of a tar shard, or a row of a parquet file.
IN_ZIP = re.compile(r"^(.*?\.(?:zip|parquet|tar))!/(.*)$", re.IGNORECASE | re.DOTALL)
_LOCAL_HEADER = 30  # bytes before a member's name in front of its data
_DRIVE = re.compile(r"^[A-Za-z]:")
# No picture shrinks to a hundredth; a bomb does, to a thousandth.
BOMB_BYTES = 64 * 2**20
BOMB_RATIO = 100
LARGEST = 2**30  # bytes of one file that are read at once
_STORED, _DEFLATED = 0, 8  # how a member is packed


def kind_of(name: str) -> str | None:
    """Return `image`, `video` or None, by suffix."""
    suffix = suffix_of(name)
    if suffix in IMAGE_SUFFIXES:
        return "image"
    return "video" if suffix in VIDEO_SUFFIXES else None


def suffix_of(name: str) -> str:
    """Return the lower-case suffix of a path's last part (pathlib is slow for a million files)."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122


def without_suffix(name: str) -> str:
    """Cut off a media suffix: `a/x.jpg` -> `a/x`; `v1.2` stays."""
    return name[: -len(suffix_of(name))] if kind_of(name) else name


class Archive:
    """A zip read with `pread`: no shared file position, hence no lock and no trouble with forks.

    What is missing, damaged, encrypted, a bomb or packed in an unusual way raises an OSError.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY)
        self._size = os.fstat(self._fd).st_size
        self.directory = open_directory(path, self._fd)

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)

    def read(self, member: str) -> bytes:
        """Return a member's bytes."""
        info = self._readable(member)
        packed = min(info.packed, self._size)
        if info.size > min(LARGEST, max(BOMB_BYTES, BOMB_RATIO * packed)):
            raise OSError(
                f"{self.path}: {member} would unpack from {packed} to {info.size} bytes, "
                "which no picture is (a zip bomb?)"
            )
        data = self._unpack(pread(self._fd, packed, self._start(info)), info)
        if len(data) != info.size or zlib.crc32(data) != info.crc:
            raise OSError(f"{self.path}: {member} is damaged (its CRC does not fit)")
        return data

    def stamp(self, member: str) -> tuple[int, int]:
        """Return a member's size and CRC."""
        info = self._member(member)
        return info.size, info.crc

    def head(self, member: str, count: int) -> bytes:
        """Return a member's first bytes, `count` at most; they are not checked."""
        info = self._readable(member)
        # Before the first of them come the tables of a deflated block, a few hundred bytes.
        packed = min(info.packed, self._size, 2 * count + 1024)
        return self._unpack(pread(self._fd, packed, self._start(info)), info, count)[:count]

    def _member(self, name: str) -> ZipMember:
        info = self.directory.find(name)
        if info is None:
            raise FileNotFoundError(f"{self.path} has no member {name!r}")
        return info

    def _readable(self, name: str) -> ZipMember:
        info = self._member(name)
        if info.flags & 1:
            raise OSError(f"{self.path}: {name} is encrypted; unpack it with its password")
        return info

    def _start(self, info: ZipMember) -> int:
        """Return where a member's data begin."""
        inside = 0 <= info.offset < self._size
        head = pread(self._fd, _LOCAL_HEADER, info.offset) if inside else b""
        if head[:4] != b"PK\3\4":
            raise OSError(f"{self.path}: {info.name} does not start where the zip says (damaged)")
        names = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        return info.offset + _LOCAL_HEADER + names

    def _unpack(self, data: bytes, info: ZipMember, most: int | None = None) -> bytes:
        if info.method == _STORED:
            return data
        if info.method != _DEFLATED:
            raise OSError(
                f"{self.path}: {info.name} is packed with method {info.method}, only "
                "stored and deflated are read; pack it again with `zip`"
            )
        try:
            # Bounded: a bomb stops at one byte more than it announced.
            most = info.size + 1 if most is None else most
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, most)
        except zlib.error as error:
            raise OSError(f"{self.path}: {info.name} is damaged ({error})") from None


def safe_name(name: str) -> str:
    """Return a member's path as unpacking would make it: never absolute, never leading outside."""
    parts = _DRIVE.sub("", name.replace("\\", "/")).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))


Holder = Archive | ParquetRows | TarShard
_ARCHIVES: dict[str, Holder] = {}
_OPENING = threading.Lock()


def _forget_lock() -> None:
    # A fork while another thread opens a zip would leave the child's copy locked for ever.
    global _OPENING
    _OPENING = threading.Lock()
    for path in [path for path, found in _ARCHIVES.items() if isinstance(found, ParquetRows)]:
        del _ARCHIVES[path]  # its lock, too


os.register_at_fork(after_in_child=_forget_lock)


def open_archive(path: str, *, fresh: bool = False) -> Holder:
    """Return a zip, a parquet file of pictures or a shard, opened once per process.

    It is opened anew where it is wanted `fresh`.

    Raises:
        OSError: missing, not readable, or two different files under one name.
        UserError: a shard that is not what its index says.
    """
    if fresh:
        _ARCHIVES.pop(path, None)
    found = _ARCHIVES.get(path)
    if found is None:
        with _OPENING:
            found = _ARCHIVES.get(path)
            if found is None:
                suffix = suffix_of(path)
                kind = {PARQUET: ParquetRows, TAR: TarShard}.get(suffix, Archive)
                found = _ARCHIVES[path] = kind(path)
    return found


def forget_archive(path: str) -> None:
    """Give back the memory of an archive that was opened; the next reader opens it again."""
    _ARCHIVES.pop(path, None)


class _Disk:
    """A file of a folder, read as a member of an archive is."""

    def read(self, path: str) -> bytes:
        size = os.stat(path).st_size  # noqa: PTH116 - pathlib is slow for a million files
        if size > LARGEST:
            raise OSError(f"{path}: {size} bytes, too large for a picture")
        return Path(path).read_bytes()

    def head(self, path: str, count: int) -> bytes:
        with Path(path).open("rb") as file:
            return file.read(count)

    def stamp(self, path: str) -> tuple[int, ...]:
        stat = os.stat(path)  # noqa: PTH116
        return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


_DISK = _Disk()


def _locate(root: Path, path: str) -> tuple[_Disk | Holder, str]:
    """Return what holds a file, and the file's name there."""
    inside = IN_ZIP.match(path)
    # Lexically: root may be a link, and `..` must lead back to its neighbour in input/.
    outer = os.path.normpath(root / (inside[1] if inside else path))
    return (open_archive(outer), inside[2]) if inside else (_DISK, outer)


def read_bytes(root: Path, path: str) -> bytes:
    """Read one file of a data set (its folder, a path as in the manifest) whole.

    Raises:
        UnreadableImageError: no permission, a disk error, or what `Archive` raises.
        UserError: the file is not there any more.
    """
    try:
        holder, name = _locate(root, path)
        return holder.read(name)
    except FileNotFoundError as error:
        raise UserError(f"{root}: {path} is not there any more ({error})") from None
    except OSError as error:
        raise UnreadableImageError(str(error)) from None


def in_shard(path: str) -> bool:
    """Tell whether an item lies in a tar shard."""
    found = IN_ZIP.match(path)
    return found is not None and suffix_of(found[1]) == TAR


def read_ahead(root: Path, paths: Iterable[str], *, only_elsewhere: bool = False) -> None:
    """Have items that lie in shards read, each with what stands around it; waits for nothing.

    Right where neighbours are read soon too (`sampler: shards`); of shards that lie `elsewhere`
    always, for blocks of them are fetched as a whole. What goes wrong is said by whoever reads the
    item.
    """
    for path in paths:
        if not in_shard(path):
            continue
        with suppress(OSError, UserError):
            holder, name = _locate(root, path)
            if isinstance(holder, TarShard) and (holder.home.is_remote or not only_elsewhere):
                holder.read_ahead(name)


def read_head(root: Path, path: str, count: int) -> bytes:
    """Return a file's first bytes, not checked; none of one that cannot be read."""
    try:
        holder, name = _locate(root, path)
        return holder.head(name, count)
    except OSError:
        return b""


def stamp_of(root: Path, path: str) -> tuple[int, ...]:
    """Return what changes when a file does: its size, and its CRC (in a zip) or mtime and ctime.

    Raises:
        UserError: the file is not there any more.
    """
    try:
        holder, name = _locate(root, path)
        return holder.stamp(name)
    except (OSError, KeyError) as error:
        raise UserError(f"{root}: {path} is not there any more ({error})") from None


def local_path(root: Path, path: str) -> Path | None:
    """Return where a file lies on disk; None for a member of a zip or a shard.

    Raises:
        UserError: the file is not there any more.
    """
    if IN_ZIP.match(path) is not None:
        return None
    there = Path(os.path.normpath(root / path))
    if not there.is_file():
        raise UserError(f"{root}: {path} is not there any more")
    return there
