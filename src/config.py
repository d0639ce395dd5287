"""Frozen dataclasses of a model, read strictly from YAML: `configs/models/<name>.yaml`."""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Strict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from src import paths
from src.errors import UserError, unknown_name
from src.strict_yaml import parse_yaml, read_mapping

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
Int = Annotated[int, Strict()]  # neither "3" nor true is a number
Float = Annotated[float, Strict()]
Triple = tuple[Float, Float, Float]


@checked_dataclass(frozen=True, config=_STRICT)
class BackboneConfig:
    """The net and where it starts from.

    Attributes:
        name: a registered backbone, or any timm name.
        pretrained: `hub` downloads through timm, `file` wants `--weights FILE`, `none` is random.
        drop_rate: dropout before the head.
        drop_path_rate: stochastic depth; None leaves the backbone's default.
        kwargs: passed on to the constructor.
    """

    name: str
    pretrained: Literal["hub", "file", "none"] = "hub"
    drop_rate: Float = 0.0
    drop_path_rate: Float | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)


@checked_dataclass(frozen=True, config=_STRICT)
class InputConfig:
    """From pixels to the net's input.

    Attributes:
        image_size: side in pixels; None takes what the backbone's weights were trained at.
        crop_pct: share of the resized side that the central crop keeps, (0, 1].
        geometry: `squash` ignores the aspect ratio, `short_side` cuts the middle square,
            `native` cuts it out of the pixels as they are, never resampled.
        interpolation: used when enlarging; shrinking always averages.
        mean: per RGB channel on a 0..1 scale; None takes the backbone's.
        std: likewise.
    """

    image_size: Int | None = None
    crop_pct: Float = 1.0
    geometry: Literal["squash", "short_side", "native"] = "squash"
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bicubic"
    mean: Triple | None = None
    std: Triple | None = None


@checked_dataclass(frozen=True, config=_STRICT)
class LossConfig:
    """What is minimised.

    Attributes:
        name: a registered loss.
        label_smoothing: 0 and 1 become s/2 and 1 - s/2.
        class_weights: `balanced` weighs each class by n / (2 n_class) of the training rows; a
            pair is [weight of real, weight of fake].
    """

    name: str = "bce"
    label_smoothing: Float = 0.0
    class_weights: Literal["none", "balanced"] | tuple[Float, Float] = "none"


@checked_dataclass(frozen=True, config=_STRICT)
class OptimConfig:
    """How it is minimised: warmup, then cosine, per step.

    Attributes:
        name: a registered optimizer.
        lr: peak learning rate.
        min_lr: learning rate at the last step.
        weight_decay: not applied to biases and norms.
        epochs: passes over the training rows.
        batch_size: items a step (before accumulation).
        accumulate: batches added up before a step.
        warmup_epochs: linear warmup, may be a fraction.
        clip_grad: largest gradient norm; None clips nothing.
        ema_decay: moving average of the weights, used for OOF and saved; None has none.
    """

    name: str = "adamw"
    lr: Float = 3e-4
    min_lr: Float = 1e-6
    weight_decay: Float = 0.05
    epochs: Int = 10
    batch_size: Int = 32
    accumulate: Int = 1
    warmup_epochs: Float = 1.0
    clip_grad: Float | None = 1.0
    ema_decay: Float | None = None


@checked_dataclass(frozen=True, config=_STRICT)
class PseudoConfig:
    """Test items that a recipe is sure of join the training rows (Lee 2013), fold-clean.

    Attributes:
        recipe: its members label the test items; for fold k only those that never saw fold k.
        confidence: least P(fake) of a new fake, and 1 minus the largest of a new real item, on a
            scale where the recipe's threshold lies at 0.5.
        balance: leave the less sure of one class out until the share of fakes is that of the
            training rows.
    """

    recipe: str
    confidence: Float = 0.95
    balance: bool = False


@checked_dataclass(frozen=True, config=_STRICT)
class ModelConfig:
    """One complete, named model: what `--model` takes.

    Attributes:
        backbone: the net.
        input: its preprocessing.
        strategy: how the weights are transferred (a registered strategy).
        augment: a registered preset for training items.
        erase: share of training images of which a random rectangle is blanked.
        sampler: `shuffle`, or `balanced` (each class drawn equally often).
        loss: what is minimised.
        optim: how.
        selection: `last` keeps the last epoch, `best` the epoch with the best held-out macro-F1
            (its OOF is then marked as selected-on).
        patience: with `best`: epochs without a gain before it stops; None never stops early.
        tta: `flip` adds the mirrored image as a second view.
        pseudo: pseudo-labelled test items to train on as well; None has none.
        seed: of everything random.
        licence: terms of the pretrained weights.
        about: one line for `python -m src models`.
    """

    backbone: BackboneConfig
    input: InputConfig = field(default_factory=InputConfig)
    strategy: str = "fine_tuning"
    augment: str = "standard"
    erase: Float = 0.0
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    selection: Literal["last", "best"] = "last"
    patience: Int | None = None
    tta: Literal["none", "flip"] = "none"
    pseudo: PseudoConfig | None = None
    seed: Int = 42
    licence: str = ""
    about: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain nested dicts, as a run record stores them."""
        return asdict(self)


@dataclass(frozen=True)
class InputSpec:
    """Preprocessing as it travels with the weights; nothing left open.

    Attributes:
        image_size: side of the net's input.
        canvas: side of the square that an image is resized to before the central crop.
        geometry, interpolation: see `InputConfig`.
        mean, std: per RGB channel on a 0..1 scale.
    """

    image_size: int
    canvas: int
    geometry: str
    interpolation: str
    mean: Triple
    std: Triple


def model_names() -> list[str]:
    """Return the names of all model configs, sorted."""
    folders = [folder for folder in paths.config_dirs("models") if folder.is_dir()]
    return sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})


def model_path(name: str) -> Path:
    """Return the file of a model config; raises UserError for an unknown name."""
    names = model_names()
    if name not in names:  # nor is it a path, which would lead out of the folder
        raise unknown_name(
            "model", name, names, f"any timm backbone works as {paths.TIMM_PREFIX}NAME"
        )
    files = [folder / f"{name}.yaml" for folder in paths.config_dirs("models")]
    return next(file for file in files if file.exists())


def read_model(name: str, changes: dict[str, Any] | None = None) -> ModelConfig:
    """Read a model config by name; `timm:NAME` is that backbone with the default settings.

    Args:
        name: of a file in `configs/models/`, or `timm:NAME`.
        changes: dotted keys to other values (`{"optim.lr": 1e-4}`), on top of the file.

    Raises:
        UserError: unknown name or key (with the nearest known one), or a value of a wrong kind.
    """
    if name.startswith(paths.TIMM_PREFIX):
        where = name
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name.removeprefix(paths.TIMM_PREFIX)):
            raise UserError(f"model {name!r}: want a plain timm name after {paths.TIMM_PREFIX}")
        content: dict[str, Any] = {"backbone": {"name": name.removeprefix(paths.TIMM_PREFIX)}}
    else:
        where = str(model_path(name))
        content = _read_with_parents(name, ())
    for key, value in (changes or {}).items():
        set_dotted(content, key.split("."), value)
    return parse_model(content, where)


def parse_model(content: dict[str, Any], where: str) -> ModelConfig:
    """Turn nested dicts into a checked `ModelConfig`.

    Raises:
        UserError: one line for each key that is unknown or has a wrong value, naming `where`.
    """
    _refuse_unknown_keys(content, ModelConfig, where, "")
    try:
        config = TypeAdapter(ModelConfig).validate_python(content)
        json.dumps(config.as_dict(), allow_nan=False)  # as the run record will
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']} (found {e['input']!r})"
            for e in error.errors()
        ]
        raise UserError(f"{where}: " + "; ".join(lines)) from None
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise UserError(f"{where}: {type(error).__name__}: {error}") from error
    _check_values(config, where)
    return config


def _check_values(config: ModelConfig, where: str) -> None:
    optim, size, weights = config.optim, config.input.image_size, config.loss.class_weights
    drop_path, pseudo = config.backbone.drop_path_rate, config.pseudo
    checks = {
        "optim.lr must be > 0": optim.lr > 0,
        "optim.min_lr must be >= 0": optim.min_lr >= 0,
        "optim.weight_decay must be >= 0": optim.weight_decay >= 0,
        "optim.clip_grad must be > 0": optim.clip_grad is None or optim.clip_grad > 0,
        "optim.epochs must be >= 1": optim.epochs >= 1,
        "optim.batch_size must be >= 2 (BatchNorm)": optim.batch_size >= 2,
        "optim.accumulate must be >= 1": optim.accumulate >= 1,
        "optim.warmup_epochs must be >= 0": optim.warmup_epochs >= 0,
        "optim.ema_decay must be in (0, 1)": optim.ema_decay is None or 0 < optim.ema_decay < 1,
        "input.image_size must be >= 8": size is None or size >= 8,
        "input.crop_pct must be in (0, 1]": 0 < config.input.crop_pct <= 1,
        "input.std must be > 0": all(value > 0 for value in config.input.std or ()),
        "loss.class_weights must be > 0": isinstance(weights, str) or min(weights) > 0,
        "loss.label_smoothing must be in [0, 1)": 0 <= config.loss.label_smoothing < 1,
        "backbone.drop_rate must be in [0, 1)": 0 <= config.backbone.drop_rate < 1,
        "backbone.drop_path_rate must be in [0, 1)": drop_path is None or 0 <= drop_path < 1,
        "pseudo.confidence must be in (0.5, 1]": pseudo is None or 0.5 < pseudo.confidence <= 1,
        "erase must be in [0, 1]": 0 <= config.erase <= 1,
        "patience must be >= 1": config.patience is None or config.patience >= 1,
        "patience wants selection: best": config.patience is None or config.selection == "best",
    }
    broken = [message for message, fine in checks.items() if not fine]
    if broken:
        raise UserError(f"{where}: " + "; ".join(broken))


def _read_with_parents(name: str, children: tuple[str, ...]) -> dict[str, Any]:
    if name in children:
        raise UserError(f"configs extend each other in a circle: {' -> '.join([*children, name])}")
    content = read_mapping(model_path(name))
    parent = content.pop("extends", None)
    if parent is None:
        return content
    return _merged(_read_with_parents(str(parent), (*children, name)), content)


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if both else value
    return result


def set_dotted(content: dict[str, Any], parts: list[str], value: Any) -> None:  # noqa: ANN401
    """Set a nested key (`["optim", "lr"]`) in place; a mapping is merged, as `extends` does it.

    Raises:
        UserError: a part on the way has no keys.
    """
    for part in parts[:-1]:
        content = content.setdefault(part, {})
        if not isinstance(content, dict):
            raise UserError(f"--set {'.'.join(parts)}: {part} has no keys")
    content.update(_merged(content, {parts[-1]: value}))


def _refuse_unknown_keys(content: dict[str, Any], kind: type, where: str, prefix: str) -> None:
    sections = {"backbone": BackboneConfig, "input": InputConfig, "loss": LossConfig}
    sections |= {"optim": OptimConfig, "pseudo": PseudoConfig}
    known = list(kind.__dataclass_fields__)
    for key, value in content.items():
        if key not in known:
            raise unknown_name(f"key in {where}:", f"{prefix}{key}", [prefix + k for k in known])
        if not prefix and key in sections and isinstance(value, dict):
            _refuse_unknown_keys(value, sections[key], where, f"{key}.")


def parse_change(text: str) -> tuple[str, Any]:
    """Split `optim.lr=1e-4` into its key and its value, read as YAML.

    Raises:
        UserError: no `=`, or a value that is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"--set {text}: want KEY=VALUE, such as optim.lr=1e-4")
    return key.strip(), parse_yaml(value, f"--set {text}")
