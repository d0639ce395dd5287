"""Files of tensors, read safely, whole or in shards: `.safetensors` and what `torch.save` wrote."""

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.errors import UserError
from src.safe_pickle import HARMLESS
from src.wrappers import find_weights

INDEX = ".index.json"
SUFFIXES = (
    ".safetensors",
    ".pth",
    ".pt",
    ".bin",
    ".ckpt",
    INDEX,
)  # ends of the names of files of weights
DEEPEST = 20  # containers within containers


def read_tensors(path: Path, *, sealed: bool = False) -> dict[str, Any]:
    """Read a file of tensors and plain containers; code in a pickle is never run.

    Args:
        path: `.safetensors`, a file of `torch.save`, or the index of either in shards
            (`model.safetensors.index.json`).
        sealed: it was written by `torch.save` here, so its checksums must fit (torch itself does
            not look at them, and would go on with a flipped bit).

    Raises:
        UserError: missing, truncated, damaged, one shard of several, or a pickle that could run
            code.
    """
    check_file(path)
    if path.name.endswith(INDEX):
        shards = shards_of(path)
        read = {shard: _read(shard) for shard in sorted(set(shards.values()))}
        for key, shard in shards.items():
            if key not in read[shard]:
                raise UserError(f"{shard}: lacks {key!r}, which {path.name} says is there")
        return {key: read[shard][key] for key, shard in shards.items()}
    if sealed:
        with readable(path), zipfile.ZipFile(path) as parts:
            damaged = parts.testzip()
            if damaged is not None:
                raise ValueError(f"the checksum of {damaged} does not fit")
    return _read(path)


def _read(path: Path) -> Any:  # noqa: ANN401 - any file's content
    if path.suffix != ".safetensors":
        return load_torch(path)
    from safetensors.torch import load_file

    with readable(path):
        return load_file(path)


def load_torch(path: Path, *, mapped: bool = False) -> Any:  # noqa: ANN401
    """Read a file of `torch.save`, mapped where that is asked for and it is a zip."""
    with readable(path):
        try:
            with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a pickle's protocol, before the error follows
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except RuntimeError as error:
            if not mapped or "mmap can only be used" not in str(error):
                raise
            return load_torch(path)  # a file of an old version of torch
    storages = _storages(content, path)
    if mapped:
        # Only without a map does torch compare what a tensor wants with what the file has for it.
        with zipfile.ZipFile(path) as parts:
            have = sum(one.file_size for one in parts.infolist() if "/data/" in one.filename)
        if sum(storages.values()) > have:
            raise UserError(f"{path}: not a readable weights file, perhaps truncated: its tensors "
                            f"want {sum(storages.values())} bytes, {have} are there")  # fmt: skip
    return content


def _storages(content: Any, path: Path) -> dict[int, int]:  # noqa: ANN401
    """Return the size in bytes of every storage by its address, level by level.

    A UserError says where containers hold themselves, or too many others to walk through.
    """
    found: dict[int, int] = {}
    level = [content]
    for _ in range(DEEPEST):
        inner: dict[int, Any] = {}
        for one in level:
            parts = one.values() if isinstance(one, Mapping) else one
            for part in parts if isinstance(one, Mapping | list | tuple) else ():
                if isinstance(part, Mapping | list | tuple):
                    inner[id(part)] = part
                elif (
                    isinstance(part, Tensor)
                    and part.layout == torch.strided
                    and not (part.is_meta or part.is_nested or part.is_quantized)
                ):
                    storage = part.untyped_storage()
                    found[storage.data_ptr()] = storage.nbytes()
        if not inner:
            return found
        level = list(inner.values())
    raise UserError(
        f"{path}: its entries lie within each other more than {DEEPEST} deep, or hold themselves; "
        "save the state dict alone (torch.save(model.state_dict(), ...))"
    )


def check_file(path: Path) -> None:
    """Raise a UserError for a file that is not there, a folder, and one shard of several."""
    shard = re.fullmatch(r"(.+)-(\d{5})-of-(\d{5})(\.\w+)", path.name)
    if shard and int(shard[3]) > 1:
        index = path.with_name(f"{shard[1]}{shard[4]}{INDEX}")
        there = "" if index.is_file() else " (not there yet: it comes with the shards)"
        raise UserError(
            f"{path}: shard {int(shard[2])} of {int(shard[3])}, a part of the weights; give the "
            f"index that leads to all of them, {index}{there}"
        )
    if path.is_dir():
        held = sorted(one.name for one in path.iterdir() if one.name.endswith(SUFFIXES))
        inside = f"one in it: {', '.join(held[:5])}" if held else "there is none in it"
        raise UserError(f"{path}: is a folder, want a weights file ({inside})")
    if not path.is_file():
        raise UserError(f"{path}: no such weights file")


def shards_of(index: Path) -> dict[str, Path]:
    """Return the file of each tensor that an index names, all of which lie beside it."""
    try:
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        named = {str(key): index.parent / str(file) for key, file in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise UserError(
            f'{index}: want JSON like {{"weight_map": {{"TENSOR": "FILE"}}}}: {first_line(error)}'
        ) from error
    for shard in sorted(set(named.values())):
        if shard.parent != index.parent or not shard.is_file():
            raise UserError(f"{index}: its shard {shard.name} is not beside it; download it too")
    return named


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn whatever a reader makes of a damaged or dishonest file into one UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of damaged bytes torch makes KeyError, AssertionError, anything
        raise UserError(_trouble(path, error)) from error


def _trouble(path: Path, error: Exception) -> str:
    if _is_program(path):
        return (
            f"{path}: refused, a TorchScript archive is a program; if you trust it, take the "
            f'weights out: python -c "import torch; torch.save(torch.jit.load({str(path)!r}, '
            f"'cpu').state_dict(), {str(path.with_suffix('.weights.pth'))!r})\""
        )
    refused = re.search(r"GLOBAL (\S+)", str(error))
    if refused:
        return (
            f"{path}: refused, this pickle holds more than tensors and could run code "
            f"({refused[1]}); ask its author for a .safetensors file"
        )
    # What torch says of an odd pickle is advice to switch the safety off.
    odd = isinstance(error, pickle.UnpicklingError)
    reason = "no checkpoint of torch" if odd else first_line(error)
    return f"{path}: not a readable weights file, perhaps truncated: {reason}"


def _is_program(path: Path) -> bool:
    """Whether a file is an archive of `torch.jit.save`, as OpenAI publishes CLIP."""
    try:
        with zipfile.ZipFile(path) as parts:
            names = parts.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False
    return any(name.endswith("/constants.pkl") or "/code/" in name for name in names)


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a readable `.safetensors` file; empty for any other file."""
    if path.suffix != ".safetensors":
        return {}
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def first_line(error: Exception) -> str:
    """Return the kind of an error and the first line of what it says."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def state_dict_of(content: Any, path: Path) -> dict[str, Tensor]:  # noqa: ANN401 - any file's
    """Find the state dict, all finite, in what a training script saved; see `find_weights`."""
    tensors = find_weights(content, path).some(path)
    check_finite(tensors, path)
    return tensors


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise a UserError naming the first tensor with a NaN or an infinity in it."""
    for key, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(f"{path}: tensor {key!r} holds NaN or infinity")
