"""Named tensors that are read one at a time: of a file, mapped rather than loaded, or of a dict.

Of what a training script saved: which entry is the weights, and what else may lie there.
"""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from safetensors import safe_open
from torch import Tensor

from src.errors import UserError
from src.tensor_files import (
    INDEX,
    SUFFIXES,
    check_file,
    load_torch,
    read_tensors,
    readable,
    shards_of,
)
from src.wrappers import MAIN, common_prefix, find_weights, without_prefix

LOG = logging.getLogger("rvf")
SAFE_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip

# Words in the names of entries that are no part of the model, whatever lies in them: what trained
# it, what it was measured by, and other versions of it.
TRAINING = (
    *("opt", "optim", "optimizer", "optimizers", "adam", "adamw", "sgd", "lr", "scaler", "amp"),
    *("sched", "scheduler", "schedulers", "loss", "criterion", "ema", "swa", "average", "averaged"),
    *("teacher", "student", "best", "rng", "random", "callbacks", "loops", "sampler", "dataloader"),
    *("history", "metrics", "results", "val", "preds", "args", "config", "hyper", "meta", "states"),
)
# How the names of parameters and buffers end, and what else tables of numbers are called.
WEIGHTS = ("weight", "bias", "running_mean", "running_var", "kernel", "embed", "token")
NUMBERS = ("mean", "std", "var", "min", "max", "label", "target", "pred", "logit", "prob")
COUNTERS = (
    *("epoch", "epochs", "step", "steps", "iter", "iters", "iteration", "iterations", "it", "lr"),
    *("acc", "acc1", "accuracy", "best", "loss", "score", "metric", "auc", "seed"),
)
SHOWN = 5


class Kind(NamedTuple):
    """What a tensor is, its values aside."""

    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(eq=False)
class Source:
    """Named tensors; a context manager that lets go of its file."""

    label: str  # what the user calls them, for messages
    kinds: Mapping[str, Kind]  # of all tensors
    read: Callable[[str], Tensor]  # on the CPU, not to be changed: it may be the file itself
    metadata: Mapping[str, str]  # text by name that lies beside them
    stamp: str = ""  # identifies the content, to tell whether an interrupted merge may go on
    close: Callable[[], object] = tuple  # lets go of the file

    @property
    def names(self) -> list[str]:
        """Return the names of all tensors."""
        return list(self.kinds)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the file."""
        self.close()


def tensor_source(label: str, tensors: Mapping[str, Tensor], stamp: str = "") -> Source:
    """Return tensors in memory as a source."""
    kinds = {name: Kind(t.dtype, tuple(t.shape)) for name, t in tensors.items()}
    return Source(label, kinds, lambda name: tensors[name].detach(), {}, stamp)


def open_source(path: Path, label: str = "") -> Source:
    """Open a file of weights without reading them.

    Wrappers (`state_dict`, `model`, ...) come off `torch.save` files and prefixes (`module.`) off
    all; code in a pickle is never run. Files of `torch.save` are mapped where they are zips (all
    since torch 1.6).

    Args:
        path: `.safetensors`, or `.pth`, `.pt`, `.bin`, `.ckpt` of `torch.save`, or the index of
            such files in shards.
        label: what to call it in messages; its path if empty.

    Raises:
        UserError: missing, of another kind, truncated, damaged, with more than tensors in it, with
            tensors of several parts (`_unwrapped`) or of a kind that nothing merges.
    """
    check_file(path)
    if not path.name.endswith(SUFFIXES):
        raise UserError(f"{path}: want a file of weights, one of {', '.join(SUFFIXES)}")
    return _open(label or str(path), path)


def _open(label: str, path: Path) -> Source:
    if path.name.endswith(INDEX):
        return _open_shards(label, path)
    if path.suffix != ".safetensors":
        return _loaded(label, path, load_torch(path, mapped=True))
    source = _open_safetensors(label, path)
    if not any(name.endswith(f".{MAIN}") for name in source.names):
        return source
    source.close()  # weights in parts, which are put together
    return _loaded(label, path, read_tensors(path))


def _open_safetensors(label: str, path: Path) -> Source:
    with readable(path):
        file = safe_open(path, "pt").__enter__()
    names = file.offset_keys()
    if not names:
        raise UserError(f"{path}: holds no tensors")
    prefix, kinds = common_prefix(names), {}
    for name in names:
        entry = file.get_slice(name)
        if entry.get_dtype() not in SAFE_DTYPES:
            raise UserError(f"{path}: tensor {name!r} is {entry.get_dtype()}, which nothing merges")
        kind = Kind(SAFE_DTYPES[entry.get_dtype()], tuple(entry.get_shape()))
        kinds[name.removeprefix(prefix)] = kind
    return Source(
        label, kinds, lambda name: file.get_tensor(prefix + name), file.metadata() or {},
        _stamp(path), lambda: file.__exit__(None, None, None),
    )  # fmt: skip


def _loaded(label: str, path: Path, content: Any) -> Source:  # noqa: ANN401 - any file's
    tensors = _unwrapped(content, path)
    for name, tensor in tensors.items():
        if tensor.is_quantized or tensor.dtype not in SAFE_DTYPES.values():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UserError(f"{path}: tensor {name!r} is {kind}, which nothing merges")
    return tensor_source(label, tensors, _stamp(path))


def _open_shards(label: str, index: Path) -> Source:
    """Open shards and the index that says in which of them each tensor lies."""
    files = shards_of(index)
    shards = [_open(label, path) for path in sorted(set(files.values()))]
    places = {name: shard for shard in shards for name in shard.names}
    whole = common_prefix(files)
    lost = sorted({key.removeprefix(whole) for key in files} - set(places))
    if lost:
        raise UserError(f"{index}: {lost[0]!r} is in none of its shards; download them again")
    return Source(
        label, {name: shard.kinds[name] for name, shard in places.items()},
        lambda name: places[name].read(name), {},
        "\n".join([_stamp(index), *(shard.stamp for shard in shards)]),
        lambda: [shard.close() for shard in shards],
    )  # fmt: skip


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:  # noqa: ANN401 - any file's
    """Return the tensors of what a training script saved, without wrappers and prefixes.

    Other entries are left out (optimizers, scores, other versions of the same weights), and so are
    counters (`epoch`, a single number) among the tensors.

    Raises:
        UserError: there are none, or another entry looks like a state dict of its own, so that
            what would be taken might be half a model.
    """
    found = find_weights(content, path)
    tensors = found.tensors
    if len(tensors) < len(found.beside[-1][0]):
        tensors = {key: value for key, value in tensors.items() if not _is_counter(key, value)}
    for rest, what in found.beside:
        _check_beside(rest, tensors, what, path)
    if found.note:
        LOG.info("%s: %s", path.name, found.note)
    return found.some(path) and tensors


def _check_beside(
    rest: Mapping[Any, Any], taken: Mapping[str, Tensor], what: str, path: Path
) -> None:
    """Refuse to leave a part of a model behind."""
    known = set(without_prefix(taken))
    whole = _is_state_dict(taken)  # else the model itself may lie under `best` or `ema`
    unopened = [
        str(key)
        for key, value in rest.items()
        if _has_weights(value, known) and not (whole and _of_training(str(key)))
    ]
    if unopened:
        names = ", ".join(map(repr, unopened[:SHOWN])) + (", ..." if unopened[SHOWN:] else "")
        raise UserError(
            f"{path}: the weights of which part are meant? Beside {what}, there are tensors under "
            f"{names}; save the state dict alone (torch.save(model.state_dict(), ...))"
        )


def _has_weights(value: Any, known: set[str]) -> bool:  # noqa: ANN401
    """Whether a mapping is, or has in it, a state dict of other names than the known ones."""
    if not isinstance(value, Mapping) or _is_optimizer(value):
        return False
    tensors = {str(key): one for key, one in value.items() if isinstance(one, Tensor)}
    if _is_state_dict(tensors) and set(without_prefix(tensors)) != known:
        return True
    return any(_has_weights(one, known) for one in value.values())


def _is_optimizer(value: Mapping[Any, Any]) -> bool:
    """Whether a mapping has an optimizer's parts, `state` being a mapping a parameter."""
    state = value.get("state")
    by_parameter = isinstance(state, Mapping) and all(
        isinstance(s, Mapping) for s in state.values()
    )
    return "param_groups" in value or by_parameter


def _is_state_dict(tensors: Mapping[str, Tensor]) -> bool:
    """Whether tensors look like a net's: one named as a weight is, or two that are no numbers."""
    shaped = [key for key, value in tensors.items() if value.ndim]
    if any(key.rpartition(".")[2] in WEIGHTS for key in shaped):
        return True
    numbers = {form for word in NUMBERS for form in (word, word + "s")}
    return len([key for key in shaped if "." in key or not _words(key) & numbers]) > 1


def _of_training(key: str) -> bool:
    return any(_words(key) & {word, word + "s"} for word in TRAINING)


def _is_counter(key: str, value: Tensor) -> bool:
    return value.numel() == 1 and "." not in key and bool(_words(key) & set(COUNTERS))


def _words(key: str) -> set[str]:
    """Return the words of a name: `lrScheduler_states` is lr, scheduler, states."""
    return set(re.sub(r"([a-z])([A-Z])", r"\1_\2", key).lower().replace("-", "_").split("_"))
