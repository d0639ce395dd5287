"""The weights among what a training script saved: which entry, and which version of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.errors import UserError

# Keys under which training scripts put the weights beside optimizer states and arguments; `module`
# and `shadow` are what wrappers and keepers of an average call them.
WRAPPERS = (
    *("state_dict", "model", "model_state_dict", "teacher", "student"),
    *("checkpoint", "net", "weights", "network", "module", "shadow"),
)
# Keys of a moving average of the weights: where a script keeps one, its scores are the average's.
AVERAGES = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "model_state_dict_ema", "ema_model"),
    *("ema", "net_ema", "ema_net", "network_ema", "swa_model", "swa_state_dict", "averaged_model"),
)
PREFIXES = ("module.", "_orig_mod.", "net.")
# What Effort (Yan et al., ICML 2025) keeps of a weight: all but its last singular values, and those
# as they were trained, beside the factors of the former.
MAIN, TRAINED = "weight_main", ("U_residual", "S_residual", "V_residual")
PARTS = (MAIN, *TRAINED, "U_r", "S_r", "V_r", "weight_original_fnorm", "weight_main_fnorm")


@dataclass(frozen=True)
class Weights:
    """The weights in what a training script saved."""

    tensors: dict[str, Tensor]  # by name, without prefixes that all share
    # for each level, outermost first, what else lay there and what it lay beside
    beside: list[tuple[Mapping[Any, Any], str]]
    note: str = ""  # which of several versions was taken, and what was put together
    joined: int = 0  # weights that were put together from parts of a singular value decomposition

    def some(self, path: Path) -> dict[str, Tensor]:
        """Return the tensors, or raise a UserError that there are none."""
        if not self.tensors:
            keys = sorted(map(str, self.beside[-1][0]))[:8]
            raise UserError(f"{path}: holds no tensors; its keys are {keys}")
        return self.tensors


def find_weights(content: Any, path: Path) -> Weights:  # noqa: ANN401 - any file's
    """Find the tensors in what a training script saved, without wrappers and prefixes.

    Of weights and their moving average, the average is taken where it has the same names; of a
    student and its teacher the teacher, unless it is another net. Arrays of numpy become tensors
    where there are no others. A UserError names a tensor without plain values of its own.
    """
    beside, notes = [], []
    while isinstance(content, Mapping) and (word := _word(content)):
        if word == "teacher" and isinstance(content.get("student"), Mapping):
            word, why = _of_two(content)
            notes.append(why)
        others = [a for a in AVERAGES if a != word and _named_within(content.get(a))]
        names = _named_within(content[word])
        average = next((a for a in others if _named_within(content[a]) == names), "")
        if average:
            notes.append(f"of {word!r} and its moving average {average!r} the average is taken")
        elif others:
            notes.append(f"{word!r} is taken, for the names in {others[0]!r} are others")
        taken = average or word
        rest = {key: value for key, value in content.items() if key not in (taken, word)}
        beside.append((rest, f"those under {taken!r}"))
        content = content[taken]
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, want named tensors")
    tensors = _named(content)
    more = ", ..." if len(tensors) > 1 else ""
    beside.append((content, f"the tensors {next(iter(tensors))}{more}" if tensors else "none"))
    for key, value in tensors.items():
        check_plain(key, value, path)
    tensors, joined = _joined(without_prefix(tensors), path)
    if joined:
        notes.append(f"{joined} weights lie in parts of a singular value decomposition, as Effort "
                     "trains them, and are put together (weight_main + U S V)")  # fmt: skip
    return Weights(tensors, beside, "; ".join(notes), joined)


def _of_two(content: Mapping[Any, Any]) -> tuple[str, str]:
    """Return which of a student and its teacher is taken, and why."""
    if _named_within(content["teacher"]) <= _named_within(content["student"]):
        return "teacher", "of 'student' and 'teacher' the teacher is taken, the student's average"
    return (
        "student",
        "of 'student' and 'teacher' the student is taken, for its teacher is another net",
    )


def _joined(tensors: dict[str, Tensor], path: Path) -> tuple[dict[str, Tensor], int]:
    """Put weights together of which singular values were trained apart from the rest."""
    stems = [key.removesuffix(MAIN) for key in tensors if key.endswith(f".{MAIN}")]
    if not stems:
        return tensors, 0
    whole = {key: v for key, v in tensors.items() if key.rpartition(".")[2] not in PARTS}
    for stem in stems:
        main, *trained = (tensors.get(stem + part) for part in (MAIN, *TRAINED))
        assert main is not None
        left, values, right = trained
        if left is None or values is None or right is None:
            if any(part is not None for part in trained):
                raise UserError(f"{path}: {stem[:-1]} lacks some of {', '.join(TRAINED)}")
            whole[f"{stem}weight"] = main.float()
            continue
        if (*left.shape, *right.shape) != (len(main), len(values), len(values), main.shape[-1]):
            raise UserError(f"{path}: the parts of {stem[:-1]} do not fit together")
        whole[f"{stem}weight"] = main.float() + (left.float() * values.float()) @ right.float()
    return whole, len(stems)


def _word(content: Mapping[Any, Any]) -> str:
    words = (*WRAPPERS, *AVERAGES)
    return next((w for w in words if isinstance(content.get(w), Mapping)), "")


def _named_within(content: Any) -> set[str]:  # noqa: ANN401
    """Return the names of the weights under wrappers, without prefixes."""
    while isinstance(content, Mapping) and (inner := _word(content)):
        content = content[inner]
    return set(without_prefix(_named(content))) if isinstance(content, Mapping) else set()


def _named(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    found = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not found:
        found = {
            str(key): torch.from_numpy(np.array(value, value.dtype.newbyteorder("=")))
            for key, value in content.items()
            if isinstance(value, np.ndarray) and value.dtype.kind in "fiu"
        }
    # The counter that torch's AveragedModel puts beside `module.`.
    counted = {key: value for key, value in found.items() if key != "n_averaged"}
    return counted if all(key.startswith("module.") for key in counted) else found


def check_plain(key: str, value: Tensor, path: Path) -> None:
    """Raise a UserError for a tensor that has no plain values of its own in the file."""
    if value.is_nested or value.layout != torch.strided:
        kind = "nested" if value.is_nested else str(value.layout).removeprefix("torch.")
        trouble = f"is {kind}: want a plain one, saved as tensor.to_dense()"
    elif value.is_meta:
        trouble = "has no values (device 'meta'): save the net once its weights are loaded"
    elif path.is_file() and value.numel() * value.element_size() > path.stat().st_size:
        if path.suffix == ".json":  # an index: its shards hold the values
            return
        shape = tuple(value.shape)
        trouble = f"has the shape {shape}, more than the whole file holds: save tensor.contiguous()"
    else:
        return
    raise UserError(f"{path}: tensor {key!r} {trouble}")


def without_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors without what wrappers (`DataParallel`, `torch.compile`) put before names."""
    prefix = common_prefix(tensors)
    return {key.removeprefix(prefix): value for key, value in tensors.items()}


def common_prefix(names: Iterable[str]) -> str:
    """Return what wrappers put before every name, perhaps ''."""
    left, whole = list(names), ""
    while prefix := next((p for p in PREFIXES if left and all(n.startswith(p) for n in left)), ""):
        left = [name.removeprefix(prefix) for name in left]
        whole += prefix
    return whole
