"""Weights from elsewhere into a net: fit a head, say exactly what did not match."""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from src.artifacts.files import sha256_file, sha256_json
from src.config import ModelConfig
from src.errors import UserError
from src.models.formats import OURS, PLAIN, Foreign, Source, recognise
from src.models.formats.fit import IGNORABLE, adapt, in_head, look
from src.models.hub import hub_weights
from src.tensor_files import INDEX, check_finite, read_metadata, read_tensors, shards_of
from src.wrappers import Weights, find_weights

HEADS = ("head", "heads", "fc", "linear", "classifier", "last_linear", "last_layer", "head_dist",
         "cls_head", "logits", "output")  # fmt: skip
LOG = logging.getLogger("rvf")
Turn = Callable[[str, Foreign, Source, nn.Module, tuple[str, ...]], Foreign]


@dataclass(frozen=True)
class Start:
    """Where a run's weights came from; part of the run record.

    Attributes:
        source: `file`, `hub` or `random`.
        name: file name or pretrained tag.
        sha256: of the file, where there is one.
        missing: keys of the net that the weights lacked (kept random).
        unexpected: keys of the weights that the net has no place for, or of another size (head).
        dropped: keys of the file that its format says are no part of a classifier.
        format: a registered format of weights; empty where the file has the net's own keys.
        mean, std: of the pixels that the weights were trained on, where the file says so.
        fake: class of the file's head that means fake, where its format or the user says so.
        labels: names of its classes in the order of their numbers, where the file has them.
        origin: of a file that a run here wrote: what its record says of the data, and of what it
            came from itself; empty where there is no record of it. None of all other weights.
        interpolation: by which pixels were enlarged for the weights, where the file says so.
    """

    source: str
    name: str = ""
    sha256: str = ""
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    format: str = ""
    mean: list[float] | None = None
    std: list[float] | None = None
    fake: int | None = None
    labels: list[str] = field(default_factory=list)
    origin: dict[str, Any] | None = None
    interpolation: str = ""


def load_weights(
    net: nn.Module, path: Path, head: tuple[str, ...], turn: Turn | None = None
) -> Start:
    """Load a checkpoint of any known format into a net (`FORMATS`; docs/models.md lists them).

    A head that says real or fake becomes the net's one logit where its class order is known; a
    head of another size is left out and stays random. Position embeddings are resampled to the
    net's grid.

    Args:
        net: changed in place, and not at all where an error is raised.
        path: `.safetensors`, `.pth`, `.pt`, `.bin` or the index of such files in shards.
        head: names of the net's classifier layers.
        turn: what makes one logit of the head that a format found (`turn_head`); None leaves it.

    Returns:
        Which keys were missing, unexpected and dropped, exactly.

    Raises:
        UserError: unreadable, or weights of another architecture (a key outside the head is
            missing or has another shape); or what `turn` raises.
    """
    content = read_tensors(path)
    weights = find_weights(content, path)
    tensors = weights.some(path)
    check_finite(tensors, path)
    if weights.note:
        LOG.info("%s: %s", path.name, weights.note)
    # Of a bare state dict, what lies around it are its own tensors.
    wrapper = {k: v for k, v in content.items() if not isinstance(v, Tensor)}
    source = Source(path, tensors, wrapper | read_metadata(path), weights.joined)
    name, found = recognise(source, net, head)
    found, fresh = adapt(found, net, head, path)
    what = f"{look(found.tensors)}{'' if name == PLAIN else f' ({name})'}"
    both = f"the file looks like {what}; the backbone is {look(net.state_dict())}"
    _refuse_other_types(net, found, path)
    fitting, other_size = _sorted_out(net, found, head, f"{path}: ", both)
    _check_whole(net, found, fitting, head, fresh, f"{path}: ", both)
    if turn is not None:  # after what says that this is no such net
        found = turn(name, found, source, net, head)
        fitting, other_size = _sorted_out(net, found, head, f"{path}: ", both)
    deeper = _deeper(net, found)
    if deeper:
        raise UserError(
            f"{path}: {len(deeper)} tensors are of blocks that this backbone does not have, the "
            f"first is {deeper[0]!r}: weights of a deeper net; {both}"
        )
    result = net.load_state_dict(fitting, strict=False)
    missing = sorted(key for key in result.missing_keys if not key.endswith(IGNORABLE))
    unexpected = sorted([*result.unexpected_keys, *other_size])
    _tell(path, name, found)
    _name_heads(source, found, (*found.dropped, *unexpected), weights)
    if _kept_head(name, found, net, head):
        LOG.info("%s: its head of one output is kept as a start, taken as fake > 0", path.name)
    return _start_of(path, "" if name == PLAIN else name, found, missing, unexpected)


def _check_whole(
    net: nn.Module,
    found: Foreign,
    fitting: Collection[str],
    head: tuple[str, ...],
    fresh: tuple[str, ...],
    where: str,
    both: str,
) -> None:
    """Raise a UserError where a weight outside the head is missing."""
    lost = [
        key
        for key in net.state_dict()
        if key not in fitting and not key.endswith(IGNORABLE) and not in_head(key, head)
        and not key.startswith(fresh)
    ]  # fmt: skip
    if lost:
        raise UserError(f"{where}{_lost(net, found, lost)}; {both}")


def _start_of(
    path: Path, name: str, found: Foreign, missing: list[str], unexpected: list[str]
) -> Start:
    """Return what a run's record says of the weights that were loaded."""
    return Start(
        "file",
        path.name,
        sha256_weights(path),
        missing,
        unexpected,
        found.dropped,
        name,
        None if found.mean is None else list(found.mean),
        None if found.std is None else list(found.std),
        found.fake,
        list(found.labels),
        interpolation=found.interpolation,
    )


def sha256_weights(path: Path) -> str:
    """Return the SHA-256 of a weights file; of an index, that of those of all its shards."""
    if not path.name.endswith(INDEX):
        return sha256_file(path)
    shards = sorted(set(shards_of(path).values()))
    return sha256_json([sha256_file(one) for one in (path, *shards)])


def _refuse_other_types(net: nn.Module, found: Foreign, path: Path) -> None:
    own = net.state_dict()
    for key, value in found.tensors.items():
        if key in own and own[key].is_floating_point() and not value.is_floating_point():
            raise UserError(
                f"{path}: tensor {key!r} is {str(value.dtype).removeprefix('torch.')}, want "
                "floating point: quantised weights must be turned back first"
            )


def _kept_head(name: str, found: Foreign, net: nn.Module, head: tuple[str, ...]) -> bool:
    """Tell whether a head of one output comes along, of which nobody says that it means fake."""
    weight = next((key for key in found.tensors if in_head(key, head)), "")
    own = net.state_dict().get(weight)
    fits = own is not None and own.shape == found.tensors[weight].shape and own.shape[0] == 1
    return fits and not found.logit and name != OURS


def _deeper(net: nn.Module, found: Foreign) -> list[str]:
    """Return keys under a numbered layer beyond the last that the net has in that place."""
    last: dict[str, int] = {}
    for parent, number in (pair for key in net.state_dict() for pair in _numbered(key)):
        last[parent] = max(number, last.get(parent, 0))
    return [
        key
        for key in found.tensors
        if any(number > last.get(parent, number) for parent, number in _numbered(key))
    ]


def _numbered(key: str) -> list[tuple[str, int]]:
    """Return (what stands before, number) for every number in a key's path."""
    parts = key.split(".")
    return [(".".join(parts[:i]), int(part)) for i, part in enumerate(parts) if part.isdigit()]


def _sorted_out(
    net: nn.Module, found: Foreign, head: tuple[str, ...], where: str, both: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors to load, and the keys of a head of another size."""
    own = net.state_dict()
    other_size = [k for k, v in found.tensors.items() if k in own and own[k].shape != v.shape]
    foreign = [key for key in other_size if not in_head(key, head)]
    if foreign:
        key = foreign[0]
        raise UserError(
            f"{where}{len(foreign)} tensors have another shape than this backbone's, the first is "
            f"{key!r}: {tuple(found.tensors[key].shape)}, want {tuple(own[key].shape)}; these are "
            f"weights of another architecture, or of another image size (input.image_size): {both}"
        )
    return {k: v for k, v in found.tensors.items() if k not in other_size}, other_size


def _lost(net: nn.Module, found: Foreign, lost: list[str]) -> str:
    message = (
        f"{len(lost)} of the backbone's {len(net.state_dict())} tensors are missing, the first are "
        f"{lost[:3]}"
    )
    if {"fc_norm.weight", "fc_norm.bias"} <= set(found.tensors) and lost[0].startswith("norm."):
        message += " (the file's net pools all patches: backbone.kwargs: {global_pool: avg})"
    if any(".lora_A." in key for key in found.tensors):
        message += " (low-rank updates beside their layers: save peft's merge_and_unload() of it)"
    return message


def _tell(path: Path, name: str, found: Foreign) -> None:
    if name != PLAIN:
        LOG.info("%s: read as %s, %d of its tensors dropped", path.name, name, len(found.dropped))
    if found.note:
        LOG.info("%s: %s", path.name, found.note)
    if found.logit:
        LOG.info("%s: its head becomes one logit, fake > 0", path.name)


def _name_heads(source: Source, found: Foreign, left: Iterable[str], weights: Weights) -> None:
    """Say which trained heads of a file are left out: layers of few outputs, or called a head."""
    heads = {}
    for key in left:
        value, parts = source.tensors.get(key, found.tensors.get(key)), key.split(".")[:-1]
        if value is not None and value.dim() == 2 and key.endswith("weight") and (
            len(value) <= 2 or set(parts[-2:]) & set(HEADS)
        ):  # fmt: skip
            heads[".".join(parts)] = len(value)
    for rest, _ in weights.beside:
        for key in HEADS:
            inner = rest.get(key)
            weight = inner.get("weight") if isinstance(inner, Mapping) else None
            if isinstance(weight, Tensor) and weight.dim() == 2:
                heads[key] = len(weight)
    order = "" if found.labels or found.fake is not None else " in an order not known"
    for name, classes in heads.items():
        what = f"{classes} classes{order}" if classes > 1 else "one output"
        LOG.info("%s: left out a head of %s (%s)", source.path.name, what, name)


def start_weights(
    net: nn.Module,
    config: ModelConfig,
    head: tuple[str, ...],
    weights: Path | None,
    no_pretrained: bool,
) -> Start:
    """Give a freshly built net the weights it starts from.

    Args:
        net: changed in place.
        config: says what the model wants (`pretrained`).
        head: names of the net's classifier layers.
        weights: `--weights`.
        no_pretrained: `--no-pretrained`.

    Raises:
        UserError: both flags; a file that does not fit; a hub that cannot be reached.
    """
    if weights is not None and no_pretrained:
        raise UserError("--weights and --no-pretrained contradict each other; give one")
    if weights is not None:
        return load_weights(net, weights, head)
    if no_pretrained or config.backbone.pretrained == "none":
        return Start("random")
    if config.backbone.pretrained == "file":
        raise UserError(
            f"this model starts from a weights file of {config.backbone.name}: --weights FILE "
            "(docs/models.md says which), or --no-pretrained; for timm's own weights use "
            f"--model timm:{config.backbone.name}"
        )
    tensors, tag, sha256 = hub_weights(config.backbone, config.input.image_size)
    # timm draws a head of another size anew; ours, near zero, stays.
    own = {key: value for key, value in tensors.items() if not in_head(key, head)}
    missing = sorted(net.load_state_dict(own, strict=False).missing_keys)
    return Start("hub", tag, sha256, missing)
