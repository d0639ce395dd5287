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

# Where training scripts put the weights beside other things, and what wrappers put before names.
WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema", "teacher")
PREFIXES = ("module.", "_orig_mod.", "net.")
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


class SafetensorsSource(Source):
    """A `.safetensors` file."""

    def __init__(self, label: str, path: Path) -> None:
        self._path = path
        try:
            self._file = safe_open(path, "pt").__enter__()
        except (SafetensorError, OSError) as error:
            raise _unreadable(path, error) from error
        super().__init__(label, self._file.metadata() or {}, _stamp(path))
        for name, entry in _header(path).items():
            if entry["dtype"] not in SAFE_DTYPES:
                raise UserError(
                    f"{path}: tensor {name!r} is {entry['dtype']}, which nothing merges"
                )
            self._kinds[name] = SAFE_DTYPES[entry["dtype"]], tuple(entry["shape"])
        if not self._kinds:
            raise UserError(f"{path}: holds no tensors")

    def read(self, name: str) -> Tensor:  # noqa: D102
        return self._file.get_tensor(name)

    def close(self) -> None:  # noqa: D102
        self._file.__exit__(None, None, None)


class TorchSource(DictSource):
    """A file of `torch.save`, mapped where it is a zip (all since torch 1.6)."""

    def __init__(self, label: str, path: Path) -> None:
        super().__init__(label, unwrapped(_torch_load(path), path))
        self.stamp = _stamp(path)


def open_source(path: Path, label: str = "") -> Source:
    """Open a file of weights without reading them.

    Wrappers (`state_dict`, `model`, ...) and prefixes (`module.`) come off `torch.save` files, and
    code in a pickle is never run.

    Args:
        path: `.safetensors`, or `.pth`, `.pt`, `.bin`, `.ckpt` of `torch.save`.
        label: what to call it in messages; its path if empty.

    Raises:
        UserError: missing, of another kind, truncated, damaged, or with more than tensors in it.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such weights file")
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: want a file of weights, one of {', '.join(SUFFIXES)}")
    kind = SafetensorsSource if path.suffix == ".safetensors" else TorchSource
    return kind(label or str(path), path)


def unwrapped(content: Any, path: Path) -> dict[str, Tensor]:  # noqa: ANN401 - any file's
    """Return the tensors of what a training script saved, without wrappers and prefixes.

    Raises:
        UserError: there are none.
    """
    while isinstance(content, Mapping):
        inner = next((content[w] for w in WRAPPERS if isinstance(content.get(w), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, want named tensors")
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path}: holds no tensors; its keys are {sorted(map(str, content))[:8]}")
    while prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in tensors)), ""):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


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
