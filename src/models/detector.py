"""A detector from elsewhere that predicts as it is: a file whose head says real or fake."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from src.config import InputSpec, ModelConfig
from src.errors import UserError
from src.models.classifier import Classifier, build_classifier
from src.models.formats import IGNORABLE, Foreign, Target, WeightsFile, one_logit
from src.models.formats.beside import fake_of
from src.models.formats.fit import PLAIN
from src.models.weights import Start, carry_input, load_weights

NO_SCORE = "no out-of-fold score is known for this file, and no threshold was tuned for it"
# What lies in files beside a net's layers and has no say in what it computes.
SILENT = (*IGNORABLE, "mask_token", "position_ids", "logit_scale")
LOSSES = ("criterion.", "loss")
UNKNOWN = {
    1: "nothing says what the one output of its head means: --fake-index 1 where positive is fake, "
    "--fake-index 0 where it is real",
    2: "nothing says which of the two classes of its head is fake: --fake-index 0 or 1 does (most "
    "code counts real 0, fake 1; classes numbered by their folders' names make fake 0)",
}


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
    """Build the model of a named config and give it a foreign file's weights, its head included.

    It is in eval mode, on the CPU; `fake` as in `turn_head`.

    Raises:
        UserError: see `load_weights` and `turn_head`; or a part of the net would stay random, or a
            part of the head be left out.
    """
    classifier, native = build_classifier(config)
    start = load_weights(classifier.net, path, native.head, partial(turn_head, fake=fake))
    # Layers that start at zero say nothing.
    silent = tuple(getattr(classifier.net, "fresh", ()))
    lost = [key for key in (*start.missing, *start.unexpected) if not key.startswith(silent)]
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


def turn_head(
    name: str, found: Foreign, source: WeightsFile, target: Target, *, fake: int | None
) -> Foreign:
    """Turn the head of a file into one logit, fake > 0, by the class that means fake.

    Its format tells which that is, else the user must. In a plain file the head lies under the
    net's own name for it, or beside the tower (`fc`, `linear`), where it is taken if nothing else
    lies there that could stand between the two; another format knows where its head lies.

    Args:
        name: of the format.
        found: what was read, in the net's sizes.
        source: the file.
        target: the net.
        fake: 0 or 1, what the user says; of a head of one output, 1 where positive means fake and
            0 where it means real. None leaves it to the format.

    Raises:
        UserError: nobody says, or the format says the opposite; no head fits, or several, or one of
            more than two classes; or the file holds more layers than the net.
    """
    path, place = source.path, f"{target.place}.weight"
    known = fake_of(found.labels) if found.fake is None else found.fake
    if known is not None and fake not in (None, known):
        raise UserError(
            f"{path}: --fake-index {fake} contradicts the file, in whose format {known} is fake; "
            "leave --fake-index out"
        )
    fake = fake if known is None else known
    if found.fake is not None:
        if name == PLAIN:
            _refuse_more(found, target, f"{target.place}.", path)
        return found
    if place not in target.own:
        kind = type(target.net).__name__
        raise UserError(f"{path}: {kind} names no classifier to put a head into")
    beside = source.tensors if name == PLAIN else {}
    key, weight = _head_weight(found, beside, target, path)
    if fake is None:
        raise UserError(f"{path}: {UNKNOWN[len(weight)]}")
    stem = key.removesuffix("weight")
    if name == PLAIN:
        _refuse_more(found, target, stem, path)
    logit = one_logit(weight, {**beside, **found.tensors}.get(f"{stem}bias"), fake)
    old = (stem, *(f"{one}." for one in target.head))
    rest = {k: v for k, v in found.tensors.items() if not k.startswith(old)}
    # A net without a bias takes no zero in its place.
    names = {f"{target.place}.{part}": value for part, value in logit.items()}
    rest |= {k: v for k, v in names.items() if k in target.own or bool(v.any())}
    dropped = [k for k in found.dropped if not k.startswith(old)]
    return replace(found, tensors=rest, dropped=dropped, logit=logit, fake=fake)


def _head_weight(
    found: Foreign, beside: Mapping[str, Tensor], target: Target, path: Path
) -> tuple[str, Tensor]:
    """Return key and weight of the one head that sees as many features as the net's.

    It is looked for under the net's name for it, then in `beside`.
    """
    own = target.own[f"{target.place}.weight"]
    every = {k: v for k, v in found.tensors.items() if target.in_head(k)} or beside
    fitting = {
        key: value
        for key, value in every.items()
        if key.endswith("weight") and value.dim() > 1 and value.shape[1:] == own.shape[1:]
        and (target.in_head(key) or value.shape[0] <= 2)
    }  # fmt: skip
    if len(fitting) != 1:
        what = f"several heads ({', '.join(fitting)})" if fitting else "no head"
        raise UserError(
            f"{path}: holds {what} of one or two outputs on this net's {own.shape[1]} "
            f"features{f' ({found.note})' if found.note else ''}; train one: train_folds.py "
            f"--weights {path}"
        )
    key, weight = next(iter(fitting.items()))
    if len(weight) > 2:
        raise UserError(
            f"{path}: its head has {len(weight)} classes, and one logit tells two; train "
            f"one: train_folds.py --weights {path}"
        )
    return key, weight


def _refuse_more(found: Foreign, target: Target, stem: str, path: Path) -> None:
    """Raise for tensors that have no place in the net and may have a say in the file's answers."""
    unused = {k for k in found.tensors if k not in target.own} | set(found.dropped) - found.idle
    mute = (stem, *LOSSES)
    more = sorted(k for k in unused if not k.startswith(mute) and not k.endswith(SILENT))
    if more:
        raise UserError(
            f"{path}: holds {len(more)} tensors that this model has no place for, the first are "
            f"{more[:3]}: if its detector computes with them, its answers would be others; if not, "
            "save the tower and the head alone"
        )
