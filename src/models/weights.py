"""The one door for checkpoints from elsewhere: read safely, fit a head, say what did not match."""

import argparse
import contextlib
import pickle
import re
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from src.artifacts.files import sha256_file
from src.config import BackboneConfig, ModelConfig
from src.errors import UserError

# Keys under which training scripts put the weights beside optimizer states and arguments.
WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema")
PREFIXES = ("module.", "_orig_mod.", "net.")
# A BatchNorm counter that older checkpoints lack; it decides nothing at inference.
IGNORABLE = ("num_batches_tracked",)
HUB_SECONDS = 6.0
HUB_FILES = ("model.safetensors", "pytorch_model.bin")

WAYS_OUT = (
    "ways out: --weights FILE (a .safetensors, .pth or .pt of this backbone), --no-pretrained "
    "(random start), or an HF cache folder that holds it (set HF_HOME)"
)


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


def read_tensors(path: Path) -> dict[str, Any]:
    """Read a file of tensors and plain containers; code in a pickle is never run.

    Raises:
        UserError: missing, truncated, or a pickle with more than tensors in it.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such weights file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle protocol, before the error that follows
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of damaged bytes torch makes KeyError, AssertionError, anything
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise UserError(
                f"{path}: refused, this pickle holds more than tensors and could run code "
                f"({refused[1]}); ask its author for a .safetensors file"
            ) from error
        # What torch says of an odd pickle is advice to switch the safety off.
        odd = isinstance(error, pickle.UnpicklingError)
        reason = "no checkpoint of torch" if odd else _first_line(error)
        raise UserError(
            f"{path}: not a readable weights file, perhaps truncated: {reason}"
        ) from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def state_dict_of(content: Any, path: Path) -> dict[str, Tensor]:  # noqa: ANN401 - any file's
    """Find the state dict in what a training script saved, without wrappers and prefixes.

    Raises:
        UserError: no tensors in it, or a tensor that is not finite.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, want named tensors")
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path}: holds no tensors; its keys are {sorted(map(str, content))[:8]}")
    while prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in tensors)), ""):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    for key, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(f"{path}: tensor {key!r} holds NaN or infinity")
    return tensors


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
            "weights of another architecture"
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
    return _load_from_hub(net, config.backbone, config.input.image_size, head)


def _load_from_hub(
    net: nn.Module, config: BackboneConfig, image_size: int | None, head: tuple[str, ...]
) -> Start:
    import timm

    cfg = timm.get_pretrained_cfg(config.name)
    if cfg is None or not (cfg.hf_hub_id or cfg.url):
        raise UserError(f"timm has no pretrained weights for {config.name!r}; {WAYS_OUT}")
    arguments = {"num_classes": 1, **config.kwargs}
    if cfg.fixed_input_size and image_size is not None:
        arguments["img_size"] = image_size
    sha256 = ""
    if cfg.hf_hub_id:
        path = _hub_file(cfg.hf_hub_id, config.name)
        sha256 = sha256_file(path)
        tensors = state_dict_of(read_tensors(path), path)
        arguments["pretrained_cfg_overlay"] = {"state_dict": tensors}
    else:
        _check_reachable(str(cfg.url), config.name)
    try:
        # Through create_model, for it knows each architecture's own conversion of old keys.
        pretrained = timm.create_model(config.name, pretrained=True, **arguments)
    except Exception as error:
        raise UserError(
            f"loading timm's weights of {config.name!r} failed: {_first_line(error)}; {WAYS_OUT}"
        ) from error
    net.load_state_dict(pretrained.state_dict())
    missing = sorted(key for key in net.state_dict() if _in_head(key, head))
    return Start("hub", f"{cfg.architecture}.{cfg.tag}", sha256, missing)


def _hub_file(repo: str, name: str) -> Path:
    """Return a weights file from the HF cache, downloaded into it where it is not there yet."""
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    for file in HUB_FILES:
        cached = try_to_load_from_cache(repo, file)
        if isinstance(cached, str):
            return Path(cached)
    _check_reachable(f"{constants.ENDPOINT}/{repo}/resolve/main/{HUB_FILES[0]}", name)
    failed, reason = f"downloading the weights of {name!r} failed", ""
    for file in HUB_FILES:
        try:
            return Path(hf_hub_download(repo, file))
        except EntryNotFoundError as error:
            reason = _first_line(error)
        except Exception as error:
            reason = _first_line(error)
            raise UserError(f"{failed}: {reason}; {WAYS_OUT}") from error
    raise UserError(f"{failed}: {reason}; {WAYS_OUT}")


def _check_reachable(url: str, name: str) -> None:
    from huggingface_hub import constants

    reason = (
        "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else _why_no_answer(url, HUB_SECONDS)
    )
    if reason:
        raise UserError(
            f"the pretrained weights of {name!r} are not in the cache and the model hub "
            f"cannot be reached ({reason}); {WAYS_OUT}"
        )


def _why_no_answer(url: str, seconds: float) -> str:
    """Return why a host does not answer within `seconds`, or nothing if it does."""
    from huggingface_hub.utils import get_session

    answers: list[str] = []

    def ask() -> None:
        with contextlib.suppress(Exception):
            answers.append("no connection")
            code = get_session().head(url, timeout=seconds).status_code
            # The hub's client would try these again and again, for three quarters of a minute.
            busy = code >= 500 or code in (407, 408, 429)
            answers.append(f"HTTP {code}" if busy else "")

    # getaddrinfo takes no time-out, so it runs where it can be left behind.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[-1] if answers else "no connection"
