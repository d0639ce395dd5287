"""The weights in what a training script saved: which entry they are, and what else lies there."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from src.errors import UserError
from src.wrappers import find_weights, without_prefix

LOG = logging.getLogger("rvf")
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


def unwrapped(content: Any, path: Path) -> dict[str, Tensor]:  # noqa: ANN401 - any file's
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
