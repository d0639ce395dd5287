"""Preprocessing that came with foreign weights, taken over where a config leaves it open."""

import logging
from dataclasses import replace

import torch

from src.config import ModelConfig
from src.models.classifier import Classifier
from src.models.weights import Start

LOG = logging.getLogger("rvf")
TOLERANCE = 1e-3


def carry_input(model: Classifier, config: ModelConfig, start: Start) -> None:
    """Give a model the mean and std that its weights were trained with.

    What a config states wins, and the log says that they differ. The result travels on in the
    model's `spec`, which is part of our checkpoint.

    Args:
        model: changed in place: `spec` and what it normalises with.
        config: `input.mean` and `input.std`, None where they are open.
        start: of the run; without mean and std nothing changes.
    """
    if start.mean is None or start.std is None:
        return
    mean, std = start.mean, start.std
    for what, stated, carried in (
        ("mean", config.input.mean, mean),
        ("std", config.input.std, std),
    ):
        if stated and max(abs(a - b) for a, b in zip(stated, carried, strict=True)) > TOLERANCE:
            LOG.info(
                "%s was trained with %s %s; the config's %s %s is used instead",
                start.name, what, _short(carried), what, _short(stated),
            )  # fmt: skip
    model.spec = replace(
        model.spec,
        mean=config.input.mean or (mean[0], mean[1], mean[2]),
        std=config.input.std or (std[0], std[1], std[2]),
    )
    for what in ("mean", "std"):
        values = 255 * torch.tensor(getattr(model.spec, what)).view(1, 3, 1, 1)
        model.get_buffer(what).copy_(values)


def _short(values: tuple[float, ...] | list[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
