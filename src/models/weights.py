"""Weights from elsewhere into a net: fit a head, say exactly what did not match."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from src.artifacts.files import sha256_file, sha256_json
from src.config import ModelConfig
from src.errors import UserError
from src.models.classifier import Classifier
from src.models.formats import IGNORABLE, Foreign, Target, WeightsFile, tower_of
from src.models.formats.clip import with_projection
from src.models.formats.fit import OURS, PLAIN, adapt, look, recognise
from src.models.heads import projection_of
from src.models.hub import hub_weights
from src.models.packages import package_weights
from src.tensor_files import INDEX, check_finite, read_metadata, read_tensors, shards_of
from src.wrappers import Weights, find_weights

HEADS = ("head", "heads", "fc", "linear", "classifier", "last_linear", "last_layer", "head_dist",
         "cls_head", "logits", "output")  # fmt: skip
LOG = logging.getLogger("rvf")
TOLERANCE = 1e-3  # of mean and std
# Ends of keys that only a file for the whole of a net with a tower has, ours and the published one.
WHOLE = ("side.query", "adapter.query_embed")
Turn = Callable[[str, Foreign, WeightsFile, Target], Foreign]


@dataclass(frozen=True)
class Start:
    """Where a run's weights came from; part of the run record."""

    source: str  # `file`, `hub`, `package` or `random`
    name: str = ""  # file name or pretrained tag
    sha256: str = ""  # of the file, where there is one
    missing: list[str] = field(default_factory=list)  # keys of the net that were kept random
    # keys of the weights that the net has no place for, or of another size (head)
    unexpected: list[str] = field(default_factory=list)
    # keys of the file that its format says are no part of a classifier
    dropped: list[str] = field(default_factory=list)
    format: str = ""  # a registered format of weights; empty where the keys are the net's own
    # of the pixels that the weights were trained on, where the file says so
    mean: list[float] | None = None
    std: list[float] | None = None
    # class of the file's head that means fake, where its format or the user says so
    fake: int | None = None
    labels: list[str] = field(default_factory=list)  # of its classes in the order of their numbers
    # of a file that a run here wrote: what its record says of the data, and of what it came from
    # itself; empty where there is no record of it. None of all other weights
    origin: dict[str, Any] | None = None
    interpolation: str = ""  # by which pixels were enlarged for the weights, where the file says so
    package: str = ""  # that the file came with: name and version


def load_weights(
    net: nn.Module, path: Path, head: tuple[str, ...], turn: Turn | None = None
) -> Start:
    """Load a checkpoint of any known format into a net (`FORMATS`; docs/models.md lists them).

    Of a net that has a CLIP tower a file may hold the tower alone; the rest then stays random.

    A head that says real or fake becomes the net's one logit where its class order is known; a
    head of another size is left out and stays random. Position embeddings are resampled to the
    net's grid.

    Args:
        net: changed in place, and not at all where an error is raised.
        path: `.safetensors`, `.pth`, `.pt`, `.bin` or the index of such files in shards.
        head: names of the net's classifier layers.
        turn: what makes one logit of the head that a format found (`turn_head`); None leaves it.

    Raises:
        UserError: unreadable, or weights of another architecture (a key outside the head is
            missing or has another shape); or what `turn` raises.
    """
    source, weights = _read(path)
    tower = tower_of(net)
    if tower is None or any(key.endswith(WHOLE) for key in source.tensors):
        return _load(Target(net, head), source, weights, turn)
    start = _load(Target(tower, ()), source, weights, with_projection)
    return _of_tower(start, net, path.name)


def _load(target: Target, source: WeightsFile, weights: Weights, turn: Turn | None) -> Start:
    """Load what was read from a file into a net; see `load_weights`."""
    net, path = target.net, source.path
    name, found = recognise(source, target)
    found, fresh = adapt(found, target, path)
    form = "" if name == PLAIN else name
    what = f"{look(found.tensors)}{form and f' ({form})'}"
    both = f"the file looks like {what}; the backbone is {look(target.own)}"
    _check_types_and_shapes(target, found, path, both)
    _check_whole(target, found, fresh, path, both)
    if turn is not None:  # after what says that this is no such net
        found = turn(name, found, source, target)
    _check_depth(target, found, path, both)
    other_size = [key for key in found.tensors if _shapes_differ(target, found, key)]
    fitting = {key: value for key, value in found.tensors.items() if key not in other_size}
    result = net.load_state_dict(fitting, strict=False)
    missing = sorted(key for key in result.missing_keys if not key.endswith(IGNORABLE))
    # torch's own list lacks what lies in a module that was taken out (an attention pooling)
    unexpected = sorted([key for key in fitting if key not in target.own] + other_size)
    if form:
        LOG.info("%s: read as %s, %d of its tensors dropped", path.name, form, len(found.dropped))
    if found.note:
        LOG.info("%s: %s", path.name, found.note)
    if found.logit:
        LOG.info("%s: its head becomes one logit, fake > 0", path.name)
    _name_heads(source, found, (*found.dropped, *unexpected), weights)
    if _kept_head(name, found, target):
        LOG.info("%s: its head of one output is kept as a start, taken as fake > 0", path.name)
    return Start(
        "file",
        path.name,
        sha256_weights(path),
        missing,
        unexpected,
        found.dropped,
        form,
        mean=None if found.mean is None else list(found.mean),
        std=None if found.std is None else list(found.std),
        fake=found.fake,
        labels=list(found.labels),
        interpolation=found.interpolation,
    )


def _of_tower(start: Start, net: nn.Module, where: str) -> Start:
    """Return the start of a net whose tower alone was loaded, under the net's own keys."""
    rest = [k for k in net.state_dict() if not k.startswith("tower.") and not k.endswith(IGNORABLE)]
    LOG.info("%s: fills the CLIP tower, the other %d tensors start at random", where, len(rest))
    missing, unexpected = (
        [f"tower.{k}" for k in keys] for keys in (start.missing, start.unexpected)
    )
    return replace(start, missing=sorted([*missing, *rest]), unexpected=unexpected)


def _read(path: Path) -> tuple[WeightsFile, Weights]:
    content = read_tensors(path)
    weights = find_weights(content, path)
    tensors = weights.some(path)
    check_finite(tensors, path)
    if weights.note:
        LOG.info("%s: %s", path.name, weights.note)
    # Of a bare state dict, what lies around it are its own tensors.
    wrapper = {k: v for k, v in content.items() if not isinstance(v, Tensor)}
    return WeightsFile(path, tensors, wrapper | read_metadata(path), weights.joined), weights


def sha256_weights(path: Path) -> str:
    """Return the SHA-256 of a weights file; of an index, that of those of all its shards."""
    if not path.name.endswith(INDEX):
        return sha256_file(path)
    shards = sorted(set(shards_of(path).values()))
    return sha256_json([sha256_file(one) for one in (path, *shards)])


def _shapes_differ(target: Target, found: Foreign, key: str) -> bool:
    return key in target.own and target.own[key].shape != found.tensors[key].shape


def _check_types_and_shapes(target: Target, found: Foreign, path: Path, both: str) -> None:
    """Raise for tensors that are no floats, and for shapes that differ outside the head."""
    own = target.own
    for key, value in found.tensors.items():
        if key in own and own[key].is_floating_point() and not value.is_floating_point():
            raise UserError(
                f"{path}: tensor {key!r} is {str(value.dtype).removeprefix('torch.')}, want "
                "floating point: quantised weights must be turned back first"
            )
    differ = [
        k for k in found.tensors if _shapes_differ(target, found, k) and not target.in_head(k)
    ]
    if differ:
        key = differ[0]
        raise UserError(
            f"{path}: {len(differ)} tensors have another shape than this backbone's, the first is "
            f"{key!r}: {tuple(found.tensors[key].shape)}, want {tuple(own[key].shape)}; these are "
            f"weights of another architecture, or of another image size (input.image_size): {both}"
        )


def _check_whole(
    target: Target, found: Foreign, fresh: tuple[str, ...], path: Path, both: str
) -> None:
    """Raise a UserError where a weight outside the head is missing."""
    lost = [k for k in target.body if k not in found.tensors and not k.startswith(fresh)]
    if not lost:
        return
    message = (
        f"{path}: {len(lost)} of the backbone's {len(target.own)} tensors are missing, the first "
        f"are {lost[:3]}"
    )
    if {"fc_norm.weight", "fc_norm.bias"} <= set(found.tensors) and lost[0].startswith("norm."):
        message += " (the file's net pools all patches: backbone.kwargs: {global_pool: avg})"
    if any(".lora_A." in key for key in found.tensors):
        message += " (low-rank updates beside their layers: save peft's merge_and_unload() of it)"
    raise UserError(f"{message}; {both}")


def _check_depth(target: Target, found: Foreign, path: Path, both: str) -> None:
    """Raise for keys under a numbered layer beyond the last that the net has in that place."""
    last: dict[str, int] = {}
    for parent, number in (pair for key in target.own for pair in _numbered(key)):
        last[parent] = max(number, last.get(parent, 0))
    deeper = [
        key
        for key in found.tensors
        if any(number > last.get(parent, number) for parent, number in _numbered(key))
    ]
    if deeper:
        raise UserError(
            f"{path}: {len(deeper)} tensors are of blocks that this backbone does not have, the "
            f"first is {deeper[0]!r}: weights of a deeper net; {both}"
        )


def _numbered(key: str) -> list[tuple[str, int]]:
    """Return (what stands before, number) for every number in a key's path."""
    parts = key.split(".")
    return [(".".join(parts[:i]), int(part)) for i, part in enumerate(parts) if part.isdigit()]


def _kept_head(name: str, found: Foreign, target: Target) -> bool:
    """Tell whether a head of one output comes along, of which nobody says that it means fake."""
    key = next((key for key in found.tensors if target.in_head(key)), "")
    fits = key in target.own and not _shapes_differ(target, found, key)
    return fits and len(found.tensors[key]) == 1 and not found.logit and name != OURS


def _name_heads(
    source: WeightsFile, found: Foreign, left: Collection[str], weights: Weights
) -> None:
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
    """Give a freshly built net the weights it starts from (`--weights`, `--no-pretrained`).

    Raises:
        UserError: both flags; a file that does not fit; a hub that cannot be reached; a package
            that is not installed.
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
            f"--model timm:{config.backbone.name}; or --model effnet_lite0, whose weights are "
            "installed"
        )
    if config.backbone.pretrained == "package":
        path, package = package_weights(config.backbone.name)
        return replace(load_weights(net, path, head), source="package", package=package)
    tower = tower_of(net)
    if tower is not None:
        return _tower_from_hub(net, tower, config)
    tensors, tag, sha256 = hub_weights(config.backbone, config.input.image_size)
    # timm draws a head of another size anew; ours, near zero, stays.
    target = Target(net, head)
    own = {key: value for key, value in tensors.items() if not target.in_head(key)}
    missing = sorted(net.load_state_dict(own, strict=False).missing_keys)
    return Start("hub", tag, sha256, missing)


def _tower_from_hub(net: Any, tower: nn.Module, config: ModelConfig) -> Start:  # noqa: ANN401
    name, layer = net.keys.tower, projection_of(tower)
    # timm keeps CLIP's projection as a classifier of that many classes.
    kwargs = {"num_classes": layer.out_features if layer else 0, **net.keys.tower_kwargs}
    tensors, tag, sha256 = hub_weights(replace(config.backbone, name=name, kwargs=kwargs), None)
    source, target = WeightsFile(Path(name), tensors), Target(tower, ())
    found = with_projection(PLAIN, Foreign(tensors), source, target)
    lost = tower.load_state_dict(found.tensors, strict=False).missing_keys
    return _of_tower(Start("hub", tag, sha256, sorted(lost)), net, tag)


def carry_input(model: Classifier, config: ModelConfig, start: Start) -> None:
    """Give a model the mean and std that its weights were trained with, if they are known.

    What the config states wins, and the log says that they differ. The result travels on in the
    model's `spec`, which is part of our checkpoint.
    """
    if start.mean is None or start.std is None:
        return
    kept = {}
    for what, stated, carried in (
        ("mean", config.input.mean, start.mean),
        ("std", config.input.std, start.std),
    ):
        if stated and max(abs(a - b) for a, b in zip(stated, carried, strict=True)) > TOLERANCE:
            one, other = (", ".join(f"{v:.4g}" for v in values) for values in (carried, stated))
            LOG.info(
                "%s was trained with %s %s; the config's %s %s is used instead",
                *(start.name, what, one, what, other),
            )
        kept[what] = stated or tuple(carried)
        values = 255 * torch.tensor(kept[what]).view(1, 3, 1, 1)
        model.get_buffer(what).copy_(values)
    model.spec = replace(model.spec, **kept)
