"""Named tensors that are read one at a time: of a file, mapped rather than loaded, or of a dict."""

import json
import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from src.errors import UserError
from src.merging.unwrap import unwrapped
from src.tensor_files import INDEX, check_file, load_torch, read_tensors, readable, shards_of
from src.wrappers import MAIN, common_prefix

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", INDEX)
SAFE_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


class Source(ABC):
    """Named tensors.

    Attributes:
        label: what the user calls them, for messages.
        metadata: text by name that lies beside them.
        stamp: identifies the content, to tell whether an interrupted merge may go on.
    """

    def __init__(self, label: str, metadata: Mapping[str, str], stamp: str) -> None:
        self.label = label
        self.metadata = dict(metadata)
        self.stamp = stamp
        self._kinds: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}

    @property
    def names(self) -> list[str]:
        """Return the names of all tensors."""
        return list(self._kinds)

    def dtype(self, name: str) -> torch.dtype:
        """Return a tensor's dtype without reading it."""
        return self._kinds[name][0]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading it."""
        return self._kinds[name][1]

    @abstractmethod
    def read(self, name: str) -> Tensor:
        """Return a tensor on the CPU, not to be changed: it may be the file itself."""

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Let go of the file."""


class DictSource(Source):
    """Tensors in memory."""

    def __init__(self, label: str, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(label, {}, "")
        self._tensors = tensors
        self._kinds = {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()}

    def read(self, name: str) -> Tensor:  # noqa: D102 - as promised above
        return self._tensors[name].detach()


class Outline(Source):
    """Tensors that are yet to be made: names, dtypes and shapes without values."""

    def __init__(
        self, label: str, kinds: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
    ) -> None:
        super().__init__(label, {}, "")
        self._kinds = dict(kinds)

    def read(self, name: str) -> Tensor:
        """Raise: there are no values yet."""
        raise ValueError(f"{self.label}: {name!r} has no values yet")


class SafetensorsSource(Source):
    """A `.safetensors` file."""

    def __init__(self, label: str, path: Path) -> None:
        with readable(path):
            self._file = safe_open(path, "pt").__enter__()
        super().__init__(label, self._file.metadata() or {}, _stamp(path))
        header = _header(path)
        self._prefix = common_prefix(header)
        for name, entry in header.items():
            if entry["dtype"] not in SAFE_DTYPES:
                raise UserError(
                    f"{path}: tensor {name!r} is {entry['dtype']}, which nothing merges"
                )
            kind = SAFE_DTYPES[entry["dtype"]], tuple(entry["shape"])
            self._kinds[name.removeprefix(self._prefix)] = kind
        if not self._kinds:
            raise UserError(f"{path}: holds no tensors")

    def read(self, name: str) -> Tensor:  # noqa: D102
        return self._file.get_tensor(self._prefix + name)

    def close(self) -> None:  # noqa: D102
        self._file.__exit__(None, None, None)


class TorchSource(DictSource):
    """A file of `torch.save`, mapped where it is a zip (all since torch 1.6); weights in parts."""

    def __init__(self, label: str, path: Path) -> None:
        content = read_tensors(path) if path.suffix == ".safetensors" else None
        tensors = unwrapped(content or load_torch(path, mapped=True), path)
        for name, tensor in tensors.items():
            _check_kind(tensor, name, path)
        super().__init__(label, tensors)
        self.stamp = _stamp(path)


class ShardsSource(Source):
    """Shards and the index that says in which of them each tensor lies."""

    def __init__(self, label: str, index: Path) -> None:
        shards = shards_of(index)
        self._shards = {path: _open(label, path) for path in sorted(set(shards.values()))}
        stamps = [one.stamp for one in self._shards.values()]
        super().__init__(label, {}, "\n".join([_stamp(index), *stamps]))
        self._places = {}
        for one in self._shards.values():
            self._places |= dict.fromkeys(one.names, one)
            self._kinds |= {name: (one.dtype(name), one.shape(name)) for name in one.names}
        whole = common_prefix(shards)
        lost = sorted({key.removeprefix(whole) for key in shards} - set(self._places))
        if lost:
            raise UserError(f"{index}: {lost[0]!r} is in none of its shards; download them again")

    def read(self, name: str) -> Tensor:  # noqa: D102
        return self._places[name].read(name)

    def close(self) -> None:  # noqa: D102
        for one in self._shards.values():
            one.close()


def open_source(path: Path, label: str = "") -> Source:
    """Open a file of weights without reading them.

    Wrappers (`state_dict`, `model`, ...) come off `torch.save` files and prefixes (`module.`) off
    all; code in a pickle is never run.

    Args:
        path: `.safetensors`, or `.pth`, `.pt`, `.bin`, `.ckpt` of `torch.save`, or the index of
            such files in shards.
        label: what to call it in messages; its path if empty.

    Raises:
        UserError: missing, of another kind, truncated, damaged, with more than tensors in it, with
            tensors of several parts (`unwrapped`) or of a kind that nothing merges.
    """
    check_file(path)
    if not path.name.endswith(SUFFIXES):
        raise UserError(f"{path}: want a file of weights, one of {', '.join(SUFFIXES)}")
    return _open(label or str(path), path)


def _open(label: str, path: Path) -> Source:
    if path.name.endswith(INDEX):
        return ShardsSource(label, path)
    if path.suffix != ".safetensors":
        return TorchSource(label, path)
    source = SafetensorsSource(label, path)
    if not any(name.endswith(f".{MAIN}") for name in source.names):
        return source
    source.close()
    return TorchSource(label, path)


def _check_kind(tensor: Tensor, name: str, path: Path) -> None:
    """Refuse elements that `.safetensors` files here do not hold."""
    if tensor.is_quantized or tensor.dtype not in SAFE_DTYPES.values():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise UserError(f"{path}: tensor {name!r} is {kind}, which nothing merges")


def _header(path: Path) -> dict[str, Any]:
    """Return the entries of a safetensors header; the library has checked the file by then."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"
