"""Checkpoints: weights with the preprocessing they need, and the state to resume a run."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from src.artifacts.atomic import atomic_path
from src.config import InputSpec, ModelConfig, parse_model
from src.errors import UserError
from src.models.backbones import build_backbone
from src.models.classifier import Classifier
from src.tensor_files import check_finite, first_line, read_metadata, read_tensors

LABEL_ORDER = "logit > 0 is fake (label 1); real is label 0"
POOLING = "mean logit over views"
FORMAT = 1
ELSEWHERE = (
    "of weights from elsewhere, a detector predicts with predict_ensemble.py --model NAME, and any "
    "is a start for training: train_folds.py --weights FILE"
)
MAX_CANVAS = 8192


def save_checkpoint(
    path: Path, model: Classifier, config: dict[str, Any], views: list[str]
) -> None:
    """Write fp32 weights as safetensors, with all that is needed to use them as metadata.

    The keys are the net's own; `views` are those that the model's predictions were made of.
    """
    from safetensors.torch import save

    tensors = {
        key: (value.float() if value.is_floating_point() else value).detach().cpu().contiguous()
        for key, value in model.net.state_dict().items()
    }
    metadata = {
        "format": FORMAT,
        "backbone": config["backbone"]["name"],
        "config": config,
        "input": asdict(model.spec),
        "label_order": LABEL_ORDER,
        "pooling": POOLING,
        "views": views,
    }
    with atomic_path(path) as temporary:
        # Not `save_file`, which puts a file of its own, and no lock, in the temporary's place.
        temporary.write_bytes(save(tensors, {"rvf": json.dumps(metadata)}))


def load_checkpoint(path: Path, device: torch.device) -> tuple[Classifier, list[str]]:
    """Rebuild a model, in eval mode, from a checkpoint alone; with the views of its predictions.

    Raises:
        UserError: missing, damaged, not one of ours, or weights that do not fit its own config.
    """
    _, config, spec, views = read_facts(path)
    tensors = read_tensors(path)
    check_finite(tensors, path)
    net, _ = build_backbone(config.backbone, spec.image_size, config.head)
    for key, own in net.state_dict().items():
        if key in tensors and tensors[key].dtype != own.dtype:
            raise UserError(f"{path}: {key} is {tensors[key].dtype}, want {own.dtype}")
    try:
        net.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise UserError(f"{path}: weights do not fit {config.backbone.name!r}: {error}") from None
    model = Classifier(net, spec).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval(), views


def read_input(path: Path) -> tuple[InputSpec, list[str]]:
    """Return a checkpoint's preprocessing and views; UserError as of `read_facts`."""
    return read_facts(path)[2:]


def read_facts(path: Path) -> tuple[dict[str, Any], ModelConfig, InputSpec, list[str]]:
    """Return all that a checkpoint says of itself: its metadata, config, preprocessing and views.

    Raises:
        UserError: as for `load_checkpoint`, weights aside.
    """
    from pydantic import TypeAdapter, ValidationError

    metadata = _metadata(path)
    config = parse_model(metadata["config"], str(path))
    try:
        spec = TypeAdapter(InputSpec).validate_python(metadata["input"])
        views = TypeAdapter(list[str]).validate_python(metadata["views"])
    except (KeyError, ValidationError) as error:
        raise UserError(f"{path}: its metadata are damaged ({error})") from None
    ways, asked = (
        (source.geometry, source.interpolation, source.reencode) for source in (spec, config.input)
    )
    faces = (spec.face is not None) == (config.input.crop == "face")
    if (
        ways != asked
        or not faces
        or not (0 < spec.image_size <= spec.canvas <= MAX_CANVAS and views and min(spec.std) > 0)
    ):
        raise UserError(f"{path}: its metadata contradict each other: {spec}, views {views}")
    return metadata, config, spec, views


def is_ours(path: Path) -> bool:
    """Tell whether a file says of itself that train_folds.py (or a merge) wrote it."""
    from safetensors import SafetensorError

    try:
        return "rvf" in read_metadata(path)
    except (SafetensorError, OSError, ValueError):
        return False


def _metadata(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError

    if path.suffix != ".safetensors":
        raise UserError(
            f"{path}: want a .safetensors checkpoint written by train_folds.py; {ELSEWHERE}"
        )
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        text = read_metadata(path).get("rvf")
    except (SafetensorError, OSError, ValueError) as error:
        reason = first_line(error)
        raise UserError(f"{path}: not a readable checkpoint, perhaps truncated: {reason}") from None
    try:
        metadata = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: its metadata are damaged ({error})") from None
    if (
        not isinstance(metadata, dict)
        or metadata.get("format") != FORMAT
        or not isinstance(metadata.get("config"), dict)
    ):
        raise UserError(
            f"{path}: not a checkpoint of this repo (no preprocessing in it); {ELSEWHERE}"
        )
    return metadata


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a resume state whole or not at all: tensors and plain containers only."""
    with atomic_path(path) as temporary:
        torch.save(state, temporary)
