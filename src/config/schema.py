"""Frozen dataclasses of a model: what `configs/models/<name>.yaml` may hold."""

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Strict
from pydantic.dataclasses import dataclass as checked_dataclass

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
Int = Annotated[int, Strict()]  # neither "3" nor true is a number
Float = Annotated[float, Strict()]
Triple = tuple[Float, Float, Float]
# Which frames of a clip are read, and how they become RGB; what other numbers kept is made again.
READING = 3


@checked_dataclass(frozen=True, config=_STRICT)
class BackboneConfig:
    """The net and where it starts from.

    Attributes:
        name: a registered backbone, or any timm name.
        pretrained: `hub` downloads through timm, `file` wants `--weights FILE`, `none` is random.
        drop_rate: dropout before the head.
        drop_path_rate: stochastic depth; None leaves the backbone's default.
        grad_checkpointing: trade time for memory: activations are computed again on the way back.
        kwargs: passed on to the constructor.
    """

    name: str
    pretrained: Literal["hub", "file", "none"] = "hub"
    drop_rate: Float = 0.0
    drop_path_rate: Float | None = None
    grad_checkpointing: bool = False
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
        reencode: quality (1..100) of a JPEG that every picture passes through once it has its
            size, training and test alike; None leaves the pixels alone.
        crop: `full` sees the whole picture, `face` the face in it (`FaceConfig`); `native` is
            refused with the hint that `geometry: native` is what is meant.
    """

    image_size: Int | None = None
    crop_pct: Float = 1.0
    geometry: Literal["squash", "short_side", "native"] = "squash"
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bicubic"
    mean: Triple | None = None
    std: Triple | None = None
    reencode: Int | None = None
    crop: Literal["full", "face", "native"] = "full"


@checked_dataclass(frozen=True, config=_STRICT)
class FaceConfig:
    """How `input.crop: face` finds and cuts out faces; of no account otherwise.

    Attributes:
        detector: a registered face detector.
        detector_file: its weights, for a detector that wants a file (`yunet`).
        detector_sha256: of that file; "" takes any, and a checkpoint keeps what it was.
        margin: side of the square over the longer side of the face's box.
        align: turn faces upright, by eyes, nose and mouth.
        which: `largest` sees one person of an item; `all` trains on the largest and evaluates
            every one, each face a view.
    """

    detector: str = "mtcnn"
    detector_file: str | None = None
    detector_sha256: str = ""
    margin: Float = 1.3
    align: bool = False
    which: Literal["largest", "all"] = "largest"


@checked_dataclass(frozen=True, config=_STRICT)
class FramesConfig:
    """What is seen of a clip; of no account for images.

    Attributes:
        train: frames evenly spaced over the clip, of which training draws one at each visit.
        eval: frames evenly spaced over it that evaluation looks at, every one of them.
        pool: a registered pooling: from the logits of an item's frames to one.
        decoder: a registered video decoder.
    """

    train: Int = 16
    eval: Int = 16
    pool: str = "mean_prob"
    decoder: str = "pyav"


@checked_dataclass(frozen=True, config=_STRICT)
class HeadConfig:
    """From a backbone's feature map to one logit.

    Attributes:
        pool: `native` is the backbone's own; `avg`, `max`, `gem` (generalised mean), `cls`, or
            `cls_avg` (class token and mean of the patches side by side).
        normalize: the linear layer sees features of length 1 (CLIP probes, GenD).
    """

    pool: Literal["native", "avg", "max", "gem", "cls", "cls_avg"] = "native"
    normalize: bool = False


@checked_dataclass(frozen=True, config=_STRICT)
class TransferConfig:
    """Settings of the strategies; each reads those that concern it.

    Attributes:
        freeze: name patterns (`blocks.0.*`) of weights that stay as they are.
        unfreeze_every: epochs after which one more block, from the head down, is trained; None
            trains all that the strategy trains from the start.
        head_epochs: of the first stage, in which only the head is trained.
        head_lr: peak learning rate of that stage.
        head_patience: epochs without a gain before that stage ends; None never ends it early.
        last_blocks: how many of the backbone's last blocks `two_stage` trains in its second stage.
        lora_r: rank of the low-rank updates.
        lora_alpha: their scale is alpha / r.
        lora_dropout: before them.
        lora_targets: names of the layers that get them.
    """

    freeze: tuple[str, ...] = ()
    unfreeze_every: Int | None = None
    head_epochs: Int = 15
    head_lr: Float = 1e-3
    head_patience: Int | None = None
    last_blocks: Int = 3
    lora_r: Int = 16
    lora_alpha: Float = 32.0
    lora_dropout: Float = 0.1
    lora_targets: tuple[str, ...] = ("qkv",)


@checked_dataclass(frozen=True, config=_STRICT)
class LossConfig:
    """What is minimised.

    Attributes:
        name: a registered loss.
        label_smoothing: 0 and 1 become s/2 and 1 - s/2.
        class_weights: `balanced` weighs each class by n / (2 n_class) of the training rows; a
            pair is [weight of real, weight of fake].
        gamma: of `focal`; of `asymmetric`: for reals, whose easy ones count less.
        gamma_fake: of `asymmetric`: for fakes.
        supcon: weight of the supervised-contrastive term on features, 0 leaves it out.
        temperature: of that term.
        uniformity: weight of the uniformity term on features.
        alignment: weight of the alignment term on features.
    """

    name: str = "bce"
    label_smoothing: Float = 0.0
    class_weights: Literal["none", "balanced"] | tuple[Float, Float] = "none"
    gamma: Float = 2.0
    gamma_fake: Float = 0.0
    supcon: Float = 0.0
    temperature: Float = 0.1
    uniformity: Float = 0.0
    alignment: Float = 0.0


@checked_dataclass(frozen=True, config=_STRICT)
class OptimConfig:
    """How it is minimised.

    Attributes:
        name: a registered optimizer.
        lr: peak learning rate.
        schedule: a registered schedule of the learning rate after the warmup: `cosine`, `step`,
            `plateau`, `one_cycle`, `constant`.
        min_lr: learning rate at the last step; the least that `plateau` and `step` go down to.
        decay_epochs: of `step`: epochs between two cuts; of `plateau`: epochs without a gain that
            are borne before a cut (torch's patience).
        decay_rate: of `step` and `plateau`: what a cut multiplies by.
        weight_decay: not applied to biases and norms.
        epochs: passes over the training rows.
        batch_size: items a step (before accumulation).
        accumulate: batches added up before a step.
        warmup_epochs: linear warmup, may be a fraction.
        clip_grad: largest gradient norm; None clips nothing.
        ema_decay: moving average of the weights, used for OOF and saved; None has none.
        swa_epochs: the plain mean of the weights after each of the last N epochs is what is used
            for OOF and saved, BatchNorm estimated anew; None has none.
        layer_decay: learning rate of a layer over that of the next one; None treats all alike.
        sam_rho: radius of sharpness-aware minimisation around the optimizer; None has none.
    """

    name: str = "adamw"
    lr: Float = 3e-4
    schedule: str = "cosine"
    min_lr: Float = 1e-6
    decay_epochs: Int = 3
    decay_rate: Float = 0.1
    weight_decay: Float = 0.05
    epochs: Int = 10
    batch_size: Int = 32
    accumulate: Int = 1
    warmup_epochs: Float = 1.0
    clip_grad: Float | None = 1.0
    ema_decay: Float | None = None
    swa_epochs: Int | None = None
    layer_decay: Float | None = None
    sam_rho: Float | None = None


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
        frames: what is seen of a clip.
        face: how faces are found, with `input.crop: face`.
        head: from its features to a logit.
        strategy: how the weights are transferred (a registered strategy).
        transfer: settings of the strategy.
        augment: a registered preset for training items.
        erase: share of training images of which a random rectangle is blanked.
        mixup: alpha of mixup's Beta distribution; 0 has none.
        cutmix: alpha of cutmix's Beta distribution; 0 has none. With both, each batch takes one.
        sampler: a registered sampler: `shuffle`; `balanced` draws each class equally often;
            `oversample` repeats items of a class up to `per_class`; `paired` puts a real and a
            fake of one group side by side.
        per_class: of `oversample`: items a class and epoch, at least.
        loss: what is minimised.
        optim: how.
        selection: `last` keeps the last epoch, `best` the epoch with the best held-out macro-F1
            (its OOF is then marked as selected-on).
        patience: with `best`: epochs without a gain before it stops; None never stops early.
        tta: `flip` adds the mirrored image as a second view.
        pseudo: pseudo-labelled test items to train on as well; None has none.
        seed: of everything random.
        init_seed: of the weights that start at random (the head, or a whole net) in place of
            `seed`; members that are to be merged share it.
        licence: terms of the pretrained weights.
        about: one line for `python -m src models`.
    """

    backbone: BackboneConfig
    input: InputConfig = field(default_factory=InputConfig)
    frames: FramesConfig = field(default_factory=FramesConfig)
    face: FaceConfig = field(default_factory=FaceConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    strategy: str = "fine_tuning"
    transfer: TransferConfig = field(default_factory=TransferConfig)
    augment: str = "standard"
    erase: Float = 0.0
    mixup: Float = 0.0
    cutmix: Float = 0.0
    sampler: str = "shuffle"
    per_class: Int = 250
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    selection: Literal["last", "best"] = "last"
    patience: Int | None = None
    tta: Literal["none", "flip"] = "none"
    pseudo: PseudoConfig | None = None
    seed: Int = 42
    init_seed: Int | None = None
    licence: str = ""
    about: str = ""

    @property
    def start_seed(self) -> int:
        """The seed of the weights that start at random."""
        return self.seed if self.init_seed is None else self.init_seed

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
        reencode: see `InputConfig`.
        frames: see `FramesConfig`.
        face: how the face is cut out; None sees the whole picture.
        reading: the `READING` by which clips were seen; 0 where nothing says.
    """

    image_size: int
    canvas: int
    geometry: str
    interpolation: str
    mean: Triple
    std: Triple
    reencode: int | None = None
    frames: FramesConfig = field(default_factory=FramesConfig)
    face: FaceConfig | None = None
    reading: int = 0
