"""Files of weights, read safely: no code in a pickle is run, wrappers and prefixes come off."""

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.errors import UserError

# Keys under which training scripts put the weights beside optimizer states and arguments. Of a
# student and its teacher, the teacher is what DINO publishes.
WRAPPERS = (
    *("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema", "teacher"),
    *("checkpoint", "net", "weights", "network"),
)
PREFIXES = ("module.", "_orig_mod.", "net.")


def read_tensors(path: Path, *, sealed: bool = False) -> dict[str, Any]:
    """Read a file of tensors and plain containers; code in a pickle is never run.

    Args:
        path: the file.
        sealed: it was written by `torch.save` here, so its checksums must fit (torch itself does
            not look at them, and would go on with a flipped bit).

    Raises:
        UserError: missing, truncated, damaged, or a pickle with more than tensors in it.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such weights file")
    try:
        if sealed:
            with zipfile.ZipFile(path) as parts:
                damaged = parts.testzip()
            if damaged is not None:
                raise ValueError(f"the checksum of {damaged} does not fit")
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle protocol, before the error that follows
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of damaged bytes torch makes KeyError, AssertionError, anything
        if _is_program(path):
            raise UserError(
                f"{path}: refused, a TorchScript archive is a program; if you trust it, take the "
                f'weights out: python -c "import torch; torch.save(torch.jit.load({str(path)!r}, '
                f"'cpu').state_dict(), {str(path.with_suffix('.weights.pth'))!r})\""
            ) from error
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise UserError(
                f"{path}: refused, this pickle holds more than tensors and could run code "
                f"({refused[1]}); ask its author for a .safetensors file"
            ) from error
        # What torch says of an odd pickle is advice to switch the safety off.
        odd = isinstance(error, pickle.UnpicklingError)
        reason = "no checkpoint of torch" if odd else first_line(error)
        raise UserError(
            f"{path}: not a readable weights file, perhaps truncated: {reason}"
        ) from error


def _is_program(path: Path) -> bool:
    """Whether a file is an archive of `torch.jit.save`, as OpenAI publishes CLIP."""
    try:
        with zipfile.ZipFile(path) as parts:
            names = parts.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False
    return any(name.endswith("/constants.pkl") for name in names) or any(
        "/code/" in n for n in names
    )


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
    """Find the state dict in what a training script saved, without wrappers and prefixes.

    Raises:
        UserError: no tensors in it, or a tensor that is not finite.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, want named tensors")
    while inner := next((w for w in WRAPPERS if isinstance(content.get(w), Mapping)), ""):
        content = content[inner]
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path}: holds no tensors; its keys are {sorted(map(str, content))[:8]}")
    while prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in tensors)), ""):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    check_finite(tensors, path)
    return tensors


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise a UserError naming the first tensor with a NaN or an infinity in it."""
    for key, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(f"{path}: tensor {key!r} holds NaN or infinity")
