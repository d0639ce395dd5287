"""Frozen dataclasses of a model: what `configs/models/<name>.yaml` may hold."""

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Strict
from pydantic.dataclasses import dataclass as checked_dataclass

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
