"""The weights in what a training script saved: which entry they are, and what else lies there."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from src.errors import UserError

# Where training scripts put the weights beside other things, and what wrappers put before names.
# Both as in src/models/tensors.py, which this layer may not know; a test holds them together.
WRAPPERS = (
    *("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema", "teacher"),
    *("checkpoint", "net", "weights", "network"),
)
PREFIXES = ("module.", "_orig_mod.", "net.")
# Words in the names of entries that may hold tensors and are no part of the model: what trained it,
# and other versions of it.
TRAINING = (
    *("optim", "optimizer", "optimizers", "sched", "scheduler", "schedulers", "lr", "scaler"),
    *("amp", "loss", "criterion", "ema", "swa", "average", "averaged", "teacher", "student"),
    *("rng", "random", "callbacks", "loops", "sampler", "dataloader", "history", "metrics"),
    *("args", "config", "hyper", "meta", "states"),
)
COUNTERS = (
    *("epoch", "epochs", "step", "steps", "iter", "iters", "iteration", "iterations", "it", "lr"),
    *("acc", "acc1", "accuracy", "best", "loss", "score", "metric", "auc", "seed"),
)
SHOWN = 5


def unwrapped(content: Any, path: Path) -> dict[str, Tensor]:  # noqa: ANN401 - any file's
    """Return the tensors of what a training script saved, without wrappers and prefixes.

    States of optimizers and the like (`TRAINING`) are left out, and so are counters (`epoch`, a
    single number) beside them.

    Raises:
        UserError: there are none, or other entries with tensors lie beside them, so that what
            would be taken might be half a model.
    """
    while isinstance(content, Mapping):
        word = next((w for w in WRAPPERS if isinstance(content.get(w), Mapping)), None)
        if word is None:
            break
        _check_beside(content, {word}, f"those under {word!r}", path)
        content = content[word]
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, want named tensors")
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if len(tensors) < len(content):
        tensors = {key: value for key, value in tensors.items() if not _is_counter(key, value)}
    if tensors:
        beside = next(iter(tensors)) + (", ..." if len(tensors) > 1 else "")
        _check_beside(content, set(), f"the tensors {beside}", path)
    else:
        _check_beside(content, set(), "none", path)
        raise UserError(f"{path}: holds no tensors; its keys are {sorted(map(str, content))[:8]}")
    prefix = common_prefix(tensors)
    return {key.removeprefix(prefix): value for key, value in tensors.items()}


def common_prefix(names: Iterable[str]) -> str:
    """Return what wrappers (`DataParallel`, `torch.compile`) put before every name, perhaps ''."""
    left, whole = list(names), ""
    while prefix := next((p for p in PREFIXES if left and all(n.startswith(p) for n in left)), ""):
        left = [name.removeprefix(prefix) for name in left]
        whole += prefix
    return whole


def _check_beside(content: Mapping[Any, Any], taken: set[str], what: str, path: Path) -> None:
    """Refuse to leave a part of a model behind."""
    unopened = [
        str(key)
        for key, value in content.items()
        if str(key) not in taken and _holds_tensors(value) and not _of_training(str(key))
    ]
    if unopened:
        names = ", ".join(map(repr, unopened[:SHOWN])) + (", ..." if unopened[SHOWN:] else "")
        raise UserError(
            f"{path}: the weights of which part are meant? Beside {what}, there are tensors under "
            f"{names}; save the state dict alone (torch.save(model.state_dict(), ...))"
        )


def _holds_tensors(value: Any) -> bool:  # noqa: ANN401
    """Whether a container (not a tensor itself) has a tensor somewhere in it."""
    if isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, list | tuple):
        inner = value
    else:
        return False
    return any(isinstance(one, Tensor) or _holds_tensors(one) for one in inner)


def _of_training(key: str) -> bool:
    return any(_words(key) & {word, word + "s"} for word in TRAINING)


def _is_counter(key: str, value: Tensor) -> bool:
    return value.numel() == 1 and "." not in key and bool(_words(key) & set(COUNTERS))


def _words(key: str) -> set[str]:
    """Return the words of a name: `lrScheduler_states` is lr, scheduler, states."""
    return set(re.sub(r"([a-z])([A-Z])", r"\1_\2", key).lower().replace("-", "_").split("_"))
