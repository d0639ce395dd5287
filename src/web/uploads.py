"""Where uploads lie while they are looked at: one private folder, gone with its process.

The folder holds a lock for as long as its process lives. What a killed one leaves behind is removed
by the next, which finds the lock free: no clock is asked, and no living process loses anything.
"""

import errno
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from src.artifacts.atomic import disk_errors
from src.data.items.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, suffix_of
from src.data.pixels.formats import HEAD, file_format, is_clip
from src.web.refusal import RequestRefusedError

PREFIX = "rvf-uploads-"  # of every such folder
LOCK = "lock"  # in it
MOST_NAME = 255  # letters that are kept of a file's name
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What the first bytes say -> the suffix, of a file whose name says nothing that is read.
_SUFFIXES = {
    "jpeg": ".jpg", "png": ".png", "gif": ".gif", "bmp": ".bmp", "tiff": ".tif", "webp": ".webp",
    "avif": ".avif", "heic": ".heic", "jp2": ".jp2",
}  # fmt: skip


class Upload:
    """One file on its way in, and until it is answered.

    Args:
        home: whose it is.
        name: what the client calls it; nothing but words for people.
    """

    def __init__(self, home: "Uploads", name: str) -> None:
        self.home, self.name = home, name[:MOST_NAME]
        self.bytes = 0
        self.path: Path | None = None  # once its kind is known
        self.removed = False
        self._folder = home.folder / secrets.token_hex(8)
        self._head = b""
        self._file: FileIO | None = None

    def write(self, data: bytes) -> None:
        """Take some bytes.

        Raises:
            RequestRefusedError: 413, 415 (neither name nor first bytes are of a kind that is
                read) or 507.
        """
        self.bytes += len(data)
        if self.bytes > self.home.most_bytes:
            raise too_large(self.home.most_bytes)
        if self._file is None:
            self._head += data
            if len(self._head) < HEAD:
                return
            data = self._head
        self._put(data)

    def end(self) -> Path:
        """Return the whole file; raises as `write`, and 400 for one without a byte."""
        if not self.bytes:
            raise RequestRefusedError(400, "empty")
        if self._file is None:
            self._put(self._head)
        assert self._file is not None
        assert self.path is not None
        self._file.close()
        return self.path

    def _put(self, data: bytes) -> None:
        try:
            if self._file is None:
                suffix = suffix_for(self.name, data[:HEAD])
                self._folder.mkdir(mode=0o700)
                self.path = self._folder / f"upload{suffix}"
                descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                self._file = FileIO(descriptor, "w")
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise RequestRefusedError(507, "disk_full", again=60) from None

    def remove(self) -> None:
        """Delete it, and give its place to another; more than once does no harm."""
        if self.removed:
            return
        self.removed = True
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self.home.count -= 1


class Uploads:
    """The uploads that there are now.

    Args:
        folder: this process's own; see `private_folder`.
        most: uploads at a time, those that wait and those that come in among them.
        most_bytes: of one of them.
    """

    def __init__(self, folder: Path, most: int, most_bytes: int) -> None:
        self.folder, self.most, self.most_bytes = folder, most, most_bytes
        self.count = 0

    def begin(self, name: str) -> Upload:
        """Return a new one; raises RequestRefusedError 429 where all places are taken."""
        if self.count >= self.most:
            raise RequestRefusedError(429, "crowded", again=5, most=self.most)
        self.count += 1
        return Upload(self, name)


def too_large(most_bytes: int) -> RequestRefusedError:
    """Return what a file that has too many bytes is refused with."""
    return RequestRefusedError(413, "too_large", most=f"{most_bytes / 1e6:,.0f}")


def suffix_for(name: str, head: bytes) -> str:
    """Return a suffix of the allow-list: the name's, else what the first bytes are.

    Raises:
        RequestRefusedError: 415, neither is of a picture or a clip that is read.
    """
    suffix = suffix_of(name)
    if suffix in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
        return suffix
    if is_clip(head):
        return ".mp4"  # what it is in truth is read from its bytes
    found = _SUFFIXES.get(file_format(head))
    if found is None:
        raise RequestRefusedError(415, "unknown_kind")
    return found


@contextmanager
def private_folder(parent: Path | None = None) -> Iterator[Path]:
    """Make the folder of this process, which is removed at the end; those of dead ones go first.

    Args:
        parent: where; None: the system's place for temporary files (TMPDIR).

    Raises:
        UserError: the disk is full, read-only or forbidden.
    """
    parent = parent or Path(tempfile.gettempdir())
    remove_leftovers(parent)
    with disk_errors(parent):
        # Locked before it has the name by which others look for leftovers.
        new = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=parent))  # 0700
        descriptor = _locked(new / LOCK)
        folder = new.rename(parent / new.name.removeprefix("."))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def remove_leftovers(parent: Path) -> int:
    """Remove the folders of processes that are gone; returns how many."""
    removed = 0
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            descriptor = _locked(folder / LOCK)
            if descriptor is None:
                continue
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)
            removed += 1
    return removed


def _locked(path: Path) -> int | None:
    """Return a descriptor that holds the lock until it is closed; None: another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
