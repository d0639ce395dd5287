"""Checkpoints: weights with the preprocessing they need, and the state to resume a run."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from src.artifacts.files import atomic_path
from src.config import InputSpec, parse_model
from src.errors import UserError
from src.models.backbones import build_backbone
from src.models.classifier import Classifier
from src.models.tensors import read_tensors

LABEL_ORDER = "logit > 0 is fake (label 1); real is label 0"
POOLING = "mean logit over views"
FORMAT = 1


def save_checkpoint(
    path: Path, model: Classifier, config: dict[str, Any], views: list[str]
) -> None:
    """Write fp32 weights as safetensors, with all that is needed to use them as metadata.

    Args:
        path: where to.
        model: its net's state dict is written under the net's own key names.
        config: the model config as plain dicts.
        views: the views that its predictions were made of.
    """
    from safetensors.torch import save_file

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
        save_file(tensors, temporary, {"rvf": json.dumps(metadata)})


def load_checkpoint(path: Path, device: torch.device) -> tuple[Classifier, list[str]]:
    """Rebuild a model from a checkpoint alone.

    Returns:
        The model in eval mode, and the views its predictions are made of.

    Raises:
        UserError: missing, damaged, not one of ours, or weights that do not fit its own config.
    """
    tensors = read_tensors(path)
    metadata = _metadata(path)
    config = parse_model(_tuples(metadata["config"]), str(path))
    spec = InputSpec(**_tuples(metadata["input"]))
    net, _ = build_backbone(config.backbone, spec.image_size)
    try:
        net.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise UserError(f"{path}: weights do not fit {config.backbone.name!r}: {error}") from None
    model = Classifier(net, spec).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval(), list(metadata["views"])


def _metadata(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    if path.suffix != ".safetensors":
        raise UserError(f"{path}: want a .safetensors checkpoint written by train_folds.py")
    with safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get("rvf")
    metadata = json.loads(text) if text else {}
    if metadata.get("format") != FORMAT:
        raise UserError(
            f"{path}: not a checkpoint of this repo (no preprocessing in it); foreign weights are "
            "a start for training: train_folds.py --weights FILE"
        )
    return metadata


def _tuples(value: Any) -> Any:  # noqa: ANN401 - JSON in, JSON out
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(value) if isinstance(value, list) else value


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a resume state whole or not at all: tensors and plain containers only."""
    with atomic_path(path) as temporary:
        torch.save(state, temporary)
