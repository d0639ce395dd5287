"""Named tensors that are read one at a time: of a file, mapped rather than loaded, or of a dict."""

import argparse
import json
import re
import struct
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from src.errors import UserError
from src.merging.unwrap import common_prefix, unwrapped

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
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
        self._path = path
        try:
            self._file = safe_open(path, "pt").__enter__()
        except (SafetensorError, OSError) as error:
            raise _unreadable(path, error) from error
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
    """A file of `torch.save`, mapped where it is a zip (all since torch 1.6)."""

    def __init__(self, label: str, path: Path) -> None:
        tensors = unwrapped(_torch_load(path), path)
        for name, tensor in tensors.items():
            _check_kind(tensor, name, path)
        super().__init__(label, tensors)
        self.stamp = _stamp(path)


def open_source(path: Path, label: str = "") -> Source:
    """Open a file of weights without reading them.

    Wrappers (`state_dict`, `model`, ...) come off `torch.save` files and prefixes (`module.`) off
    all; code in a pickle is never run.

    Args:
        path: `.safetensors`, or `.pth`, `.pt`, `.bin`, `.ckpt` of `torch.save`.
        label: what to call it in messages; its path if empty.

    Raises:
        UserError: missing, of another kind, truncated, damaged, with more than tensors in it, with
            tensors of several parts (`unwrapped`) or of a kind that nothing merges.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such weights file")
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: want a file of weights, one of {', '.join(SUFFIXES)}")
    kind = SafetensorsSource if path.suffix == ".safetensors" else TorchSource
    return kind(label or str(path), path)


def _check_kind(tensor: Tensor, name: str, path: Path) -> None:
    """Refuse what has no plain elements, or elements that `.safetensors` files here do not hold."""
    if tensor.layout != torch.strided:
        kind = str(tensor.layout).removeprefix("torch.")
    elif tensor.is_quantized or tensor.dtype not in SAFE_DTYPES.values():
        kind = str(tensor.dtype).removeprefix("torch.")
    elif tensor.is_meta:
        kind = "without values (on the device 'meta')"
    else:
        return
    raise UserError(f"{path}: tensor {name!r} is {kind}, which nothing merges")


def _torch_load(path: Path) -> Any:  # noqa: ANN401
    for mapped in (True, False):  # files of old versions of torch cannot be mapped
        try:
            with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return torch.load(  # noqa: TID251 - nothing but tensors and plain containers
                    path, map_location="cpu", weights_only=True, mmap=mapped
                )
        except RuntimeError as error:
            if mapped and "mmap can only be used" in str(error):
                continue
            raise _unreadable(path, error) from error
        except Exception as error:  # of damaged bytes torch makes KeyError, AssertionError, ...
            raise _unreadable(path, error) from error
    raise AssertionError("the second way returns or raises")


def _unreadable(path: Path, error: Exception) -> UserError:
    refused = re.search(r"GLOBAL (\S+)", str(error))
    if refused:
        return UserError(
            f"{path}: refused, this pickle holds more than tensors and could run code "
            f"({refused[1]}); ask its author for a .safetensors file"
        )
    if "TorchScript" in str(error):  # torch's own text advises to switch the safety off
        return UserError(
            f"{path}: refused, a TorchScript archive is a program; save the state dict of the "
            "module that it was made from"
        )
    first = f"{type(error).__name__}: {error}".splitlines()[0]
    return UserError(f"{path}: not a readable weights file, perhaps truncated: {first}")


def _header(path: Path) -> dict[str, Any]:
    """Return the entries of a safetensors header; the library has checked the file by then."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns}"
