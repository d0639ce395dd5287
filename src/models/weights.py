"""Weights from elsewhere into a net: fit a head, say exactly what did not match."""

from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from src.artifacts.files import sha256_file
from src.config import ModelConfig
from src.errors import UserError
from src.models.hub import hub_weights
from src.models.tensors import read_tensors, state_dict_of

# A BatchNorm counter that older checkpoints lack; it decides nothing at inference.
IGNORABLE = ("num_batches_tracked",)


@dataclass(frozen=True)
class Start:
    """Where a run's weights came from; part of the run record.

    Attributes:
        source: `file`, `hub` or `random`.
        name: file name or pretrained tag.
        sha256: of the file, where there is one.
        missing: keys of the net that the weights lacked (kept random).
        unexpected: keys of the weights that the net has no place for, or of another size (head).
    """

    source: str
    name: str = ""
    sha256: str = ""
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)


def load_weights(net: nn.Module, path: Path, head: tuple[str, ...]) -> Start:
    """Load a checkpoint into a net; a head of another size is left out and stays random.

    Args:
        net: changed in place.
        path: `.safetensors`, `.pth`, `.pt` or `.bin`.
        head: names of the net's classifier layers.

    Returns:
        Which keys were missing and unexpected, exactly.

    Raises:
        UserError: unreadable, or weights of another architecture (a key outside the head is
            missing or has another shape).
    """
    tensors = state_dict_of(read_tensors(path), path)
    own = net.state_dict()
    other_size = {
        key: tensor
        for key, tensor in tensors.items()
        if key in own and own[key].shape != tensor.shape
    }
    foreign = [key for key in other_size if not _in_head(key, head)]
    if foreign:
        key = foreign[0]
        raise UserError(
            f"{path}: {len(foreign)} tensors have another shape than this backbone's, the first is "
            f"{key!r}: {tuple(other_size[key].shape)}, want {tuple(own[key].shape)}; these are "
            "weights of another architecture, or of another image size (input.image_size)"
        )
    fitting = {key: tensor for key, tensor in tensors.items() if key not in other_size}
    result = net.load_state_dict(fitting, strict=False)
    missing = [key for key in result.missing_keys if not key.endswith(IGNORABLE)]
    lost = [key for key in missing if not _in_head(key, head)]
    if lost:
        raise UserError(
            f"{path}: {len(lost)} of the backbone's {len(own)} tensors are missing, the first are "
            f"{lost[:3]}; the file has {len(tensors)} tensors such as {sorted(tensors)[:3]}"
        )
    unexpected = sorted([*result.unexpected_keys, *other_size])
    return Start("file", path.name, sha256_file(path), sorted(missing), unexpected)


def _in_head(key: str, head: tuple[str, ...]) -> bool:
    return key.startswith(tuple(f"{layer}." for layer in head))


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
            "(README says which), or --no-pretrained; for timm's own weights use "
            f"--model timm:{config.backbone.name}"
        )
    tensors, tag, sha256 = hub_weights(config.backbone, config.input.image_size)
    # timm draws a head of another size anew; ours, near zero, stays.
    own = {key: value for key, value in tensors.items() if not _in_head(key, head)}
    missing = sorted(net.load_state_dict(own, strict=False).missing_keys)
    return Start("hub", tag, sha256, missing)
