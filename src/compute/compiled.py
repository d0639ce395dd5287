"""`--compile`: torch.compile with a cache folder of its own for every process."""

import atexit
import fcntl
import os
import shutil
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from src import paths
from src.compute.device import autocast
from src.errors import UserError
from src.models.classifier import Classifier
from src.tensor_files import first_line

BACKEND = "inductor"
_LOCK = "in_use"
_open_locks: list[int] = []  # held for as long as this process lives


def compile_model(
    model: Classifier,
    device: torch.device,
    precision: str,
    what: str,
    *,
    backward: bool = False,
) -> None:
    """Compile a model's net in place, and try it once; its state dict keeps its keys.

    Args:
        model: in the mode in which it will be used, on the device.
        device: where it computes.
        precision: fp32, bf16 or fp16.
        what: named in the message.
        backward: try the backward pass too; its gradients are left behind.

    Raises:
        UserError: torch cannot compile it (no C++ compiler, or a net that it does not follow).
    """
    if not _open_locks:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(_own_folder())
    size = model.spec.image_size
    pixels = torch.zeros(2, size, size, 3, dtype=torch.uint8, device=device)
    try:
        model.net.compile(backend=BACKEND)
        with torch.set_grad_enabled(backward), autocast(device, precision):
            logit = model({"pixels": pixels})["logit"]
        if backward:
            logit.float().sum().backward()
    except Exception as error:
        model.net._compiled_call_impl = None
        raise UserError(
            f"--compile: torch could not compile {what} ({first_line(error)}); go on without "
            "--compile, or install a C++ compiler (g++) if it speaks of one"
        ) from error


def eagerly() -> AbstractContextManager[object]:
    """Return a context in which compiled nets run as if they were not: predictions of record."""
    return torch.compiler.set_stance("force_eager")


def _own_folder() -> Path:
    """Return a fresh cache folder; folders of processes that are gone are taken away.

    A compilation that is killed leaves half-written libraries behind, on which every later one of
    the same net would fail.
    """
    home = paths.compile_cache()
    home.mkdir(parents=True, exist_ok=True)
    for folder in home.iterdir():
        if not _is_locked(folder / _LOCK):
            shutil.rmtree(folder, ignore_errors=True)
    own = Path(tempfile.mkdtemp(dir=home))
    lock = os.open(own / _LOCK, os.O_CREAT | os.O_WRONLY)
    fcntl.flock(lock, fcntl.LOCK_SH)
    _open_locks.append(lock)
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return own


def _is_locked(path: Path) -> bool:
    try:
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
