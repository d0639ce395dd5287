"""A detector from elsewhere that predicts as it is: a file whose head says real or fake.

Preprocessing that came with foreign weights, taken over where a config leaves it open.
"""

import logging
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from src.config import InputSpec, ModelConfig
from src.errors import UserError
from src.models.classifier import Classifier, build_classifier
from src.models.formats.order import turn_head
from src.models.weights import Start, load_weights

NO_SCORE = "no out-of-fold score is known for this file, and no threshold was tuned for it"


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


@dataclass(frozen=True)
class Origin:
    """Where a foreign detector comes from, and how it is read."""

    model: str  # the config that gave net and input
    start: Start  # of the weights
    given: bool  # the order of its classes is the user's word (`--fake-index`), not its format's
    spec: InputSpec  # what it sees
    scale: str  # where mean and std come from

    @property
    def order(self) -> str:
        """Return which class means fake and who says so."""
        told = "config.json beside it" if self.start.labels else f"its format, {self.start.format}"
        who = "--fake-index" if self.given else told
        names = dict(enumerate(self.start.labels))
        name = f" ({names[self.start.fake]})" if self.start.fake in names else ""
        return f"class {self.start.fake}{name} of its head is fake (says {who})"

    def describe(self) -> str:
        """Return in one line what was read, which way round, and what it sees."""
        mean, std = (
            " ".join(f"{one:.4g}" for one in values) for values in (self.spec.mean, self.spec.std)
        )
        return (
            f"{self.start.name} as {self.model}: {self.order}; sees {self.spec.image_size} px, "
            f"{self.spec.geometry}, {self.spec.interpolation}, mean {mean}, std {std} "
            f"({self.scale}); {NO_SCORE}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the same for a JSON."""
        return {
            "model": self.model,
            "sha256": self.start.sha256,
            "format": self.start.format or "plain",
            "fake_index": self.start.fake,
            "labels": self.start.labels,
            "order": self.order,
            "input": asdict(self.spec),
            "mean_and_std": self.scale,
            "score": None,
            "why": NO_SCORE,
        }


def load_detector(
    path: Path, model: str, config: ModelConfig, fake: int | None
) -> tuple[Classifier, Origin]:
    """Build a named model and give it a foreign file's weights, its head included.

    Args:
        path: of the weights, in any known format.
        model: name of the config.
        config: of it.
        fake: class of the head that means fake; None where the format should tell. Of a head of
            one output, 1 where positive means fake, 0 where it means real.

    Returns:
        The model in eval mode, on the CPU.

    Raises:
        UserError: see `load_weights` and `turn_head`; or a part of the net would stay random, or a
            part of the head be left out.
    """
    classifier, native = build_classifier(config)
    start = load_weights(classifier.net, path, native.head, partial(turn_head, fake=fake))
    lost = [*start.missing, *start.unexpected]
    if lost:
        raise UserError(
            f"{path}: does not fill {model} ({', '.join(lost[:3])}), so its answers would be "
            "others; --model names the net that it was trained as; or train that net on it: "
            f"train_folds.py --model {model} --weights {path}"
        )
    carry_input(classifier, config, start)
    if start.interpolation:
        classifier.spec = replace(classifier.spec, interpolation=start.interpolation)
    stated = config.input.mean is not None and config.input.std is not None
    scale = "the config's" if stated else "the file's own" if start.mean else "the backbone's own"
    return classifier.eval(), Origin(model, start, fake is not None, classifier.spec, scale)
