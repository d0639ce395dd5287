"""Frozen dataclasses of a model, read strictly from YAML: `configs/models/<name>.yaml`."""

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from src import paths
from src.errors import UserError, unknown_name

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
Triple = tuple[float, float, float]


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
    drop_rate: float = 0.0
    drop_path_rate: float | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)


@checked_dataclass(frozen=True, config=_STRICT)
class InputConfig:
    """From pixels to the net's input.

    Attributes:
        image_size: side in pixels; None takes what the backbone's weights were trained at.
        crop_pct: share of the resized side that the central crop keeps, (0, 1].
        geometry: `squash` ignores the aspect ratio, `short_side` cuts the middle square.
        interpolation: used when enlarging; shrinking always averages.
        mean: per RGB channel on a 0..1 scale; None takes the backbone's.
        std: likewise.
    """

    image_size: int | None = None
    crop_pct: float = 1.0
    geometry: Literal["squash", "short_side"] = "squash"
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
    label_smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] | tuple[float, float] = "none"


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
    lr: float = 3e-4
    min_lr: float = 1e-6
    weight_decay: float = 0.05
    epochs: int = 10
    batch_size: int = 32
    accumulate: int = 1
    warmup_epochs: float = 1.0
    clip_grad: float | None = 1.0
    ema_decay: float | None = None


@checked_dataclass(frozen=True, config=_STRICT)
class ModelConfig:
    """One complete, named model: what `--model` takes.

    Attributes:
        backbone: the net.
        input: its preprocessing.
        strategy: how the weights are transferred (a registered strategy).
        augment: a registered preset for training items.
        sampler: `shuffle`, or `balanced` (each class drawn equally often).
        loss: what is minimised.
        optim: how.
        selection: `last` keeps the last epoch, `best` the epoch with the best held-out macro-F1
            (its OOF is then marked as selected-on).
        patience: with `best`: epochs without a gain before it stops; None never stops early.
        tta: `flip` adds the mirrored image as a second view.
        seed: of everything random.
        licence: terms of the pretrained weights.
        about: one line for `python -m src models`.
    """

    backbone: BackboneConfig
    input: InputConfig = field(default_factory=InputConfig)
    strategy: str = "fine_tuning"
    augment: str = "standard"
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    selection: Literal["last", "best"] = "last"
    patience: int | None = None
    tta: Literal["none", "flip"] = "none"
    seed: int = 42
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


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with two repairs: `1e-3` is a number, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping; raises a constructor error for a key that stands twice."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        UserError: missing, not YAML, not a mapping, a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable ({error})") from None
    try:
        content = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: want a mapping of keys to values, found {type(content).__name__}")
    return content


def model_names() -> list[str]:
    """Return the names of all model configs, sorted."""
    folders = [folder for folder in paths.config_dirs("models") if folder.is_dir()]
    return sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})


def model_path(name: str) -> Path:
    """Return the file of a model config; raises UserError for an unknown name."""
    for folder in paths.config_dirs("models"):
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    raise unknown_name(
        "model", name, model_names(), f"any timm backbone works as {paths.TIMM_PREFIX}NAME"
    )


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
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']} (found {e['input']!r})"
            for e in error.errors()
        ]
        raise UserError(f"{where}: " + "; ".join(lines)) from None
    _check_values(config, where)
    return config


def _check_values(config: ModelConfig, where: str) -> None:
    optim, size = config.optim, config.input.image_size
    checks = {
        "optim.lr must be > 0": optim.lr > 0,
        "optim.epochs must be >= 1": optim.epochs >= 1,
        "optim.batch_size must be >= 2 (BatchNorm)": optim.batch_size >= 2,
        "optim.accumulate must be >= 1": optim.accumulate >= 1,
        "optim.warmup_epochs must be >= 0": optim.warmup_epochs >= 0,
        "optim.ema_decay must be in (0, 1)": optim.ema_decay is None or 0 < optim.ema_decay < 1,
        "input.image_size must be >= 8": size is None or size >= 8,
        "input.crop_pct must be in (0, 1]": 0 < config.input.crop_pct <= 1,
        "loss.label_smoothing must be in [0, 1)": 0 <= config.loss.label_smoothing < 1,
        "backbone.drop_rate must be in [0, 1)": 0 <= config.backbone.drop_rate < 1,
        "patience wants selection: best": config.patience is None or config.selection == "best",
    }
    broken = [message for message, fine in checks.items() if not fine]
    if broken:
        raise UserError(f"{where}: " + "; ".join(broken))


def _read_with_parents(name: str, children: tuple[str, ...]) -> dict[str, Any]:
    if name in children:
        raise UserError(f"configs extend each other in a circle: {' -> '.join([*children, name])}")
    content = read_yaml(model_path(name))
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
    """Set a nested key (`["optim", "lr"]`) in place; raises UserError where a part has no keys."""
    for part in parts[:-1]:
        content = content.setdefault(part, {})
        if not isinstance(content, dict):
            raise UserError(f"--set {'.'.join(parts)}: {part} has no keys")
    content[parts[-1]] = value


def _refuse_unknown_keys(content: dict[str, Any], kind: type, where: str, prefix: str) -> None:
    sections = {"backbone": BackboneConfig, "input": InputConfig, "loss": LossConfig}
    sections["optim"] = OptimConfig
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
    try:
        return key.strip(), yaml.load(value, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise UserError(f"--set {text}: {error}") from None
