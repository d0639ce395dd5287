"""A `.safetensors` file written tensor by tensor, that a later process can go on with.

The bytes are those that the format asks for: the length of the header (8 bytes, little-endian), the
header (JSON), the tensors one after the other. All shapes are known beforehand, so the header comes
first, and how many tensors are whole follows from the length of the file. What is unfinished lies
in `.NAME.part` beside the output; a part whose header differs (another recipe, other inputs) is
begun again.
"""

import fcntl
import json
import os
import shutil
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from src.artifacts.atomic import disk_errors
from src.errors import LockedError, UserError
from src.merging.sources import SAFE_DTYPES

NAMES = {dtype: name for name, dtype in SAFE_DTYPES.items()}
ALIGNED = 8


class PartFile:
    """The output of a merge while it is written; a context manager.

    Attributes:
        names: in the order in which `add` wants them (the widest numbers first, so that all are
            aligned).
        done: how many of them an earlier process had written.
        size: bytes of the finished file.

    Args:
        path: of the finished file.
        kinds: dtype and shape by tensor.
        metadata: text by name; what identifies the merge must be in it.
    """

    def __init__(
        self,
        path: Path,
        kinds: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
        metadata: Mapping[str, str],
    ) -> None:
        self.path = path
        self.names = sorted(kinds, key=lambda name: (-kinds[name][0].itemsize, name))
        self._kinds = kinds
        sizes = [_bytes(*kinds[name]) for name in self.names]
        self._header, self._ends = _header(self.names, kinds, sizes, metadata)
        self.size = self._ends[-1] if self._ends else len(self._header)
        self.done = 0

    def __enter__(self) -> Self:
        """Open the part, go on with it where it is of this merge.

        Raises:
            LockedError: another process is writing it.
            UserError: the disk has too little room, or nothing can be written there.
        """
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
            try:
                self._resume()
                self._check_room()
            except BaseException:
                self._file.close()
                raise
        return self

    def add(self, tensor: Tensor) -> None:
        """Write the next tensor of `names`; raises UserError where the disk is full."""
        name = self.names[self._next]
        dtype, shape = self._kinds[name]
        if tensor.dtype != dtype or tuple(tensor.shape) != shape:
            raise ValueError(f"{name}: {tensor.dtype} {tuple(tensor.shape)}, want {dtype} {shape}")
        with disk_errors(self.path):
            flat = tensor.contiguous().reshape(-1).view(torch.uint8)
            self._write(flat.numpy().data)
        self._next += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Move the finished file into place; keep the part after any error."""
        try:
            if kind is None:
                if self._next != len(self.names):
                    raise ValueError(f"{self._next} of {len(self.names)} tensors were written")
                with disk_errors(self.path):
                    os.fsync(self._file.fileno())
                    self._part.replace(self.path)
        finally:
            self._file.close()

    @property
    def is_there(self) -> bool:
        """Whether the finished file, with this very header, lies at the path."""
        if not self.path.is_file() or self.path.stat().st_size != self.size:
            return False
        with self.path.open("rb") as file:
            return file.read(len(self._header)) == self._header

    @property
    def _part(self) -> Path:
        return self.path.with_name(f".{self.path.name}.part")

    def _open(self) -> None:
        """Open the part and lock it: the one that lies there now.

        Between opening and locking, another process may have finished it and moved it away: then
        what was locked is its finished file.
        """
        while True:
            try:
                part = os.open(self._part, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:  # /proc and the like, where nobody makes files
                raise UserError(
                    f"{self.path}: not written, no file can be made there; choose another folder"
                ) from None
            self._file = os.fdopen(part, "r+b", buffering=0)
            try:
                self._lock()
                mine = os.fstat(self._file.fileno())
                if os.path.samestat(mine, self._part.stat()):
                    return
            except FileNotFoundError:
                pass
            except BaseException:
                self._file.close()
                raise
            self._file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(f"{self.path}: another process is merging into it") from None
        except OSError:  # no locks on this disk
            return

    def _resume(self) -> None:
        length = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        if self._file.read(len(self._header)) == self._header:
            self.done = sum(end <= length for end in self._ends)
        self._next = self.done
        if self.done:
            keep = self._ends[self.done - 1]
        else:
            keep = len(self._header)
            # First of all: a new header before old tensors would make them count as this merge's.
            self._file.truncate(0)
            self._file.seek(0)
            self._write(memoryview(self._header))
        self._file.truncate(keep)
        self._file.seek(keep)

    def _write(self, data: memoryview) -> None:
        # Without a buffer: what a full disk did not take would be tried again at the end.
        while data.nbytes:
            data = data[self._file.write(data) :]

    def _check_room(self) -> None:
        missing = self.size - self._file.tell()
        free = shutil.disk_usage(self.path.parent).free
        if missing > free:
            raise UserError(
                f"{self.path}: not written, {missing / 1e6:.0f} MB are still to be written and "
                f"{free / 1e6:.0f} MB are free; free some space, or write it to another disk"
            )


def _bytes(dtype: torch.dtype, shape: Sequence[int]) -> int:
    size = dtype.itemsize
    for side in shape:
        size *= side
    return size


def _header(
    names: Sequence[str],
    kinds: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    sizes: Sequence[int],
    metadata: Mapping[str, str],
) -> tuple[bytes, list[int]]:
    """Return the bytes before the tensors, and where each tensor ends in the file."""
    entries: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    place, ends = 0, []
    for name, size in zip(names, sizes, strict=True):
        dtype, shape = kinds[name]
        entries[name] = {
            "dtype": NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [place, place + size],
        }
        place += size
        ends.append(place)
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNED)
    header = struct.pack("<Q", len(text)) + text
    return header, [len(header) + end for end in ends]
