"""Frozen dataclasses of a model: what `configs/models/<name>.yaml` may hold."""

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic.dataclasses import dataclass as checked_dataclass

from src.distillation import DISTIL, LEAST_ITEMS, asked_of, distil_keys
from src.losses import OF_PAIRS, TERMS, all_settings, asked_terms
from src.metrics import DEFAULT, Metric, metric_named, tuned_name
from src.strict_yaml import (
    STRICT,
    Chance,
    Count,
    EachOnce,
    Float,
    Int,
    Keys,
    NotNegative,
    Positive,
    Word,
    make_keys,
)

MOST_MARGIN = 4.0  # side of a face's square over that of its box
MOST_FRAMES = 1024  # of a clip; views are named with two digits or more
Frames = Annotated[Int, Field(ge=1, le=MOST_FRAMES)]
Inside = Annotated[Float, Field(gt=0, lt=1)]
Share = Annotated[Float, Field(ge=0, lt=1)]
NotNegativeInt = Annotated[Int, Field(ge=0)]
UpToOne = Annotated[Float, Field(gt=0, le=1)]
Triple = tuple[Float, Float, Float]
STANDARD = "standard"  # the preset of a config that names none
AUTO: Literal["auto"] = "auto"
TOKEN_POOLS = ("registers+patches", "layers", "attention")  # heads that see several tokens
OTHER_NAMES = {"peft_lora": "lora"}  # what others call a strategy
OTHER_LOSSES = {"clip_ce": "ce"}  # and a loss: FLIP's, a softmax of two cosines
# Which frames of a clip are read, and how they become RGB; what other numbers kept is made again.
READING = 3


@checked_dataclass(frozen=True, config=STRICT)
class BackboneConfig(Keys):
    """The net and where it starts from."""

    name: str  # a registered backbone, or any timm name
    # `hub` downloads through timm, `package` takes what an installed package carries, `file` wants
    # `--weights FILE`, `none` is random
    pretrained: Literal["hub", "package", "file", "none"] = "hub"
    drop_rate: Share = 0.0  # dropout before the head
    drop_path_rate: Share | None = None  # stochastic depth; None leaves the backbone's default
    # pixels from one step of a convolutional net's first convolution to the next: 1 keeps the
    # finest traces, at four times the work of the usual 2; None leaves the backbone's own
    stem_stride: Literal[1, 2] | None = None
    # trade time for memory: activations are computed again on the way back
    grad_checkpointing: bool = False
    kwargs: dict[str, Any] = field(default_factory=dict)  # passed on to the constructor


@checked_dataclass(frozen=True, config=STRICT)
class InputConfig(Keys):
    """From pixels to the net's input."""

    # side in pixels; None takes what the backbone's weights were trained at
    image_size: Annotated[Int, Field(ge=8)] | None = None
    crop_pct: UpToOne = 1.0  # share of the resized side that the central crop keeps, (0, 1]
    # `squash` ignores the aspect ratio, `short_side` cuts the middle square, `native` cuts it out
    # of the pixels as they are, never resampled
    geometry: Literal["squash", "short_side", "native"] = "squash"
    # used when enlarging; shrinking always averages
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bicubic"
    mean: Triple | None = None  # per RGB channel on a 0..1 scale; None takes the backbone's
    std: tuple[Positive, Positive, Positive] | None = None  # likewise
    # quality (1..100) of a JPEG that every picture passes through once it has its size, training
    # and test alike; None leaves the pixels alone
    reencode: Annotated[Int, Field(ge=1, le=100)] | None = None
    # `full` sees the whole picture, `face` the face in it (`FaceConfig`); `native` is refused with
    # the hint that `geometry: native` is what is meant
    crop: Literal["full", "face", "native"] = "full"


@checked_dataclass(frozen=True, config=STRICT)
class FaceConfig(Keys):
    """How `input.crop: face` finds and cuts out faces; of no account otherwise."""

    detector: str = "blazeface"  # a registered face detector
    detector_file: str | None = None  # its weights, for a detector that wants a file (`yunet`)
    detector_sha256: str = ""  # of that file; "" takes any, and a checkpoint keeps what it was
    # side of the square over the longer side of the face's box
    margin: Annotated[Float, Field(ge=1, le=MOST_MARGIN)] = 1.3
    align: bool = False  # turn faces upright, by eyes, nose and mouth
    # `largest` sees one person of an item; `all` trains on the largest and evaluates every one,
    # each face a view
    which: Literal["largest", "all"] = "largest"


@checked_dataclass(frozen=True, config=STRICT)
class FramesConfig(Keys):
    """What is seen of a clip; of no account for images."""

    # frames evenly spaced over the clip, of which training draws one at each visit
    train: Frames = 16
    eval: Frames = 16  # frames evenly spaced over it that evaluation looks at, every one of them
    pool: str = "mean_prob"  # a registered pooling: from the logits of an item's frames to one
    decoder: str = "pyav"  # a registered video decoder


@checked_dataclass(frozen=True, config=STRICT)
class HeadConfig(Keys):
    """From a backbone's feature map to one logit."""

    # `native` is the backbone's own; `avg`, `max`, `gem` (generalised mean), `cls`, `cls_avg`
    # (class token and mean of the patches side by side); or with trained weights
    # `registers+patches` (registers and mean of the patches), `layers` (class tokens of all
    # blocks), `attention` (all tokens, by one learned query)
    pool: Literal[
        "native",
        "avg",
        "max",
        "gem",
        "cls",
        "cls_avg",
        "registers+patches",
        "layers",
        "attention",
    ] = "native"
    normalize: bool = False  # the linear layer sees features of length 1 (CLIP probes, GenD)
    # width of a linear layer without bias between pooling and classifier, which CLIP's files fill
    # (512 of ViT-B); None has none
    project: Count | None = None
    # of the three with trained weights: width of their hidden layer, and dropout in them
    hidden: Count = 512
    dropout: Share = 0.3
    # of `registers+patches`: how many of the registers, from the first; None takes all
    registers: Count | None = None


@checked_dataclass(frozen=True, config=STRICT)
class TransferConfig(Keys):
    """Settings of the strategies; each reads those that concern it."""

    # parts whose weights stay as they are: names (`blocks.1`, which is not `blocks.10`) or patterns
    freeze: tuple[str, ...] = ()
    # epochs after which one more block, from the head down, is trained; None trains all that the
    # strategy trains from the start
    unfreeze_every: Count | None = None
    head_epochs: Count = 15  # of the first stage, in which only the head is trained
    head_lr: Positive = 1e-3  # peak learning rate of that stage
    # epochs without a gain before that stage ends; None never ends it early
    head_patience: Count | None = None
    # while a part is frozen: on features that are computed once, for the head alone of items as
    # they are, for `frozen_prefix` of `views`; false computes them of every augmented batch
    cache_features: bool = True
    # how many of the backbone's last blocks `two_stage` trains in its second stage
    last_blocks: Count = 3
    # how many of its first blocks `frozen_prefix` leaves as they are, with all that precedes them
    prefix_blocks: Count = 3
    # augmented views of each item that these have seen and that are drawn from at a time
    views: Count = 4
    # epochs after which a new view takes the place of the oldest one
    renew_views: Count = 1
    full_epochs: NotNegativeInt = 0  # last epochs, in which `frozen_prefix` trains all weights
    full_lr: Positive = 2e-4  # peak learning rate of these
    lora_r: Count = 16  # rank of the low-rank updates
    lora_alpha: Positive = 32.0  # their scale is alpha / r
    lora_dropout: Share = 0.1  # before them
    # names of layers in the blocks, or paths of any; `auto` takes the blocks' linear layers
    # (attention, MLP) and 1 x 1 convolutions that are wider than the rank
    lora_targets: Literal["auto"] | Annotated[tuple[str, ...], Field(min_length=1)] = AUTO


@checked_dataclass(frozen=True, config=STRICT)
class LossKeys(Keys):
    """What is minimised, whichever loss it is."""

    # a registered loss
    name: Annotated[str, AfterValidator(lambda name: OTHER_LOSSES.get(name, name))] = "bce"
    label_smoothing: Share = 0.0  # 0 and 1 become s/2 and 1 - s/2
    # `balanced` weighs each class by n / (2 n_class) of the training rows; a pair is [weight of
    # real, weight of fake]
    class_weights: Literal["none", "balanced"] | tuple[Positive, Positive] = "none"


if TYPE_CHECKING:
    LossConfig = LossKeys
else:  # with a key for each setting of a loss and each weight of a term (`src/losses.py`)
    LossConfig = make_keys("LossConfig", all_settings(), LossKeys, "What is minimised.")


@checked_dataclass(frozen=True, config=STRICT)
class DistilKeys(Keys):
    """Who teaches a student, whatever it is taught."""

    # a model (its run of the same fold), a recipe (its members' runs of it), a file of weights, or
    # a list of models and files, each of which teaches
    teacher: str | tuple[str, ...]
    # the model as which a file of weights from elsewhere is read (its net and its input)
    read_as: str | None = None
    # class of that file's head that means fake, where its format does not say
    fake_index: Annotated[Int, Field(ge=0, le=1)] | None = None
    labels: NotNegative = 1.0  # weight of the loss on labels; 0 learns from the teacher alone

    @property
    def teachers(self) -> tuple[str, ...]:
        """The teachers, one or more."""
        return (self.teacher,) if isinstance(self.teacher, str) else self.teacher


if TYPE_CHECKING:
    DistilConfig = DistilKeys
else:  # with a key for each term (`src/distillation.py`): its settings, or None
    DistilConfig = make_keys("DistilConfig", distil_keys(), DistilKeys, "What a teacher teaches.")


Texts = Annotated[tuple[Word, ...], Field(min_length=1), EachOnce]


@checked_dataclass(frozen=True, config=STRICT)
class PromptsConfig(Keys):
    """What is said of pictures of a class, a sentence each."""

    real: Texts
    fake: Texts


# FLIP's (Srivatsan et al., ICCV 2023), of faces.
FLIP_PROMPTS = PromptsConfig(
    real=(
        *("This is an example of a real face", "This is a bonafide face"),
        *("This is a real face", "This is how a real face looks like"),
        *("a photo of a real face", "This is not a spoof face"),
    ),
    fake=(
        *("This is an example of a spoof face", "This is an example of an attack face"),
        *("This is not a real face", "This is how a spoof face looks like"),
        *("a photo of a spoof face", "a printout shown to be a spoof face"),
    ),
)


@checked_dataclass(frozen=True, config=STRICT)
class LanguageConfig(Keys):
    """Prompts take the place of the classifier; CLIP's text tower reads them."""

    prompts: PromptsConfig = FLIP_PROMPTS  # both classes
    text_mse: NotNegative = 0.0  # weight of two views' agreement on two halves of the prompts
    train_text: bool = True  # the text tower and the scale are trained along
    # the CLIP that the text tower is taken from; None for the file that the model starts from
    file: str | None = None
    # the text tower's activation; None takes the image tower's, of `file` what its makers used
    quick_gelu: bool | None = None


@checked_dataclass(frozen=True, config=STRICT)
class SimclrConfig(Keys):
    """Two views of an image are to be alike (Chen et al. 2020), beside the loss on labels."""

    weight: Positive = 1.0  # of this loss
    temperature: Positive = 0.1  # that cosines are divided by
    hidden: Count = 4096  # width of the projector's two inner layers
    width: Count = 256  # of what it projects to


Hull = Literal["face", "lower", "inner", "wide", "eyes", "nose", "mouth"]


@checked_dataclass(frozen=True, config=STRICT)
class BlendConfig(Keys):
    """Pseudo-fakes: real faces blended with changed copies of themselves, new ones every epoch."""

    # hulls of landmarks that are replaced, each drawn as often as it stands here: the face up to
    # its hairline, without the forehead, eyes to mouth, or 1.1 times as wide; or one part of it
    hulls: Annotated[tuple[Hull, ...], Field(min_length=1)] = ("face", "lower", "inner", "wide")
    poisson: Chance = 0.0  # chance that gradients are blended in place of pixels
    # chance that a pair carries text, shapes or patches, which say nothing of being fake
    distractors: Chance = 0.0
    fakes: bool = False  # train on the data set's own fakes too


@checked_dataclass(frozen=True, config=STRICT)
class LocaliseConfig(Keys):
    """Where a picture was manipulated is learned beside its label, from masks.

    Weights of the losses; defaults are those of ForensicsAdapter (Cui et al., CVPR 2025).
    """

    labels: NotNegative = 10.0  # of the loss on labels
    boundary: NotNegative = 200.0  # of the squared error of the boundary map
    # of manipulated patches unlike those that were left alone, in the net's own blocks
    intra: NotNegative = 20.0
    clip: NotNegative = 10.0  # likewise in its CLIP tower, and of real pictures unlike fakes


@checked_dataclass(frozen=True, config=STRICT)
class OptimConfig(Keys):
    """How it is minimised."""

    name: str = "adamw"  # a registered optimizer
    lr: Positive = 3e-4  # peak learning rate
    # a registered schedule of the learning rate after the warmup: `cosine`, `step`, `plateau`,
    # `one_cycle`, `constant`
    schedule: str = "cosine"
    # learning rate at the last step; the least that `plateau` and `step` go down to
    min_lr: NotNegative = 1e-6
    # of `step`: epochs between two cuts; of `plateau`: epochs without a gain that are borne before
    # a cut (torch's patience)
    decay_epochs: Count = 3
    decay_rate: Inside = 0.1  # of `step` and `plateau`: what a cut multiplies by
    weight_decay: NotNegative = 0.05  # not applied to biases and norms
    epochs: Count = 10  # passes over the training rows
    batch_size: Annotated[Int, Field(ge=2)] = 32  # items a step (before accumulation; BatchNorm)
    accumulate: Count = 1  # batches added up before a step
    warmup_epochs: NotNegative = 1.0  # linear warmup, may be a fraction
    clip_grad: Positive | None = 1.0  # largest gradient norm; None clips nothing
    # moving average of the weights, used for OOF and saved; None has none
    ema_decay: Inside | None = None
    # the plain mean of the weights after each of the last N epochs is what is used for OOF and
    # saved, BatchNorm estimated anew; None has none
    swa_epochs: Count | None = None
    # learning rate of a layer over that of the next one; None treats all alike
    layer_decay: UpToOne | None = None
    # radius of sharpness-aware minimisation around the optimizer; None has none
    sam_rho: Positive | None = None


def _shortest(augment: str | dict[str, Any]) -> str | dict[str, Any]:
    """Return a preset without settings as its name alone, so that it is written in one way."""
    if isinstance(augment, str):
        return augment
    name = augment.get("name", STANDARD)
    if not isinstance(name, str):
        raise ValueError(f"name must be text (found {name!r})")
    return {"name": name} | augment if set(augment) - {"name"} else name


@checked_dataclass(frozen=True, config=STRICT)
class PseudoConfig(Keys):
    """Test items that a recipe is sure of join the training rows (Lee 2013), fold-clean."""

    recipe: str  # its members label the test items; for fold k only those that never saw fold k
    # least P(fake) of a new fake, and 1 minus the largest of a new real item, on a scale where the
    # recipe's threshold lies at 0.5
    confidence: Annotated[Float, Field(gt=0.5, le=1)] = 0.95
    # leave the less sure of one class out until the share of fakes is that of the training rows
    balance: bool = False


@checked_dataclass(frozen=True, config=STRICT)
class ModelConfig(Keys):
    """One complete, named model: what `--model` takes."""

    backbone: BackboneConfig  # the net
    input: InputConfig = field(default_factory=InputConfig)  # its preprocessing
    frames: FramesConfig = field(default_factory=FramesConfig)  # what is seen of a clip
    # how faces are found, with `input.crop: face`
    face: FaceConfig = field(default_factory=FaceConfig)
    head: HeadConfig = field(default_factory=HeadConfig)  # from its features to a logit
    # how the weights are transferred (a registered strategy)
    strategy: Annotated[str, AfterValidator(lambda name: OTHER_NAMES.get(name, name))] = (
        "fine_tuning"
    )
    transfer: TransferConfig = field(default_factory=TransferConfig)  # settings of the strategy
    # a registered preset for training items; `{name: standard, hue: 0.05}` changes what it does
    augment: Annotated[str | dict[str, Any], AfterValidator(_shortest)] = STANDARD
    # fakes made of the real faces in training; None makes none
    blend: BlendConfig | None = None
    mixup: NotNegative = 0.0  # alpha of mixup's Beta distribution; 0 has none
    # alpha of cutmix's Beta distribution; 0 has none. With both, each batch takes one.
    cutmix: NotNegative = 0.0
    # a registered sampler: `shuffle`; `balanced` draws each class equally often; `oversample`
    # repeats items of a class up to `per_class`; `paired` puts a real and a fake of one group side
    # by side
    sampler: str = "shuffle"
    per_class: Count = 250  # of `oversample`: items a class and epoch, at least
    loss: LossConfig = field(default_factory=LossConfig)  # what is minimised
    # what is learned from a teacher beside the labels; None has none
    distil: DistilConfig | None = None
    # prompts in place of a classifier; None has a plain one
    language: LanguageConfig | None = None
    simclr: SimclrConfig | None = None  # two views of an image alike; None asks for none
    # where a picture was manipulated, beside its label; None learns labels alone
    localise: LocaliseConfig | None = None
    # a registered preset, of the two views that `simclr` and `language.text_mse` look at
    view_augment: Annotated[str | dict[str, Any], AfterValidator(_shortest)] = "simclr"
    optim: OptimConfig = field(default_factory=OptimConfig)  # how
    # `last` keeps the last epoch, `best` the one that `monitor` finds best
    selection: Literal["last", "best"] = "last"
    # epochs without a gain of `monitor` before it stops; None never stops early
    patience: Count | None = None
    # metric of the held-out items that steers a run with `selection: best` or a patience, its
    # `plateau` too: any that a data set may be scored by, decisions at 0.5; `loss` is their log
    # loss. The run's OOF is then marked as selected-on
    monitor: Annotated[str, AfterValidator(tuned_name)] = DEFAULT
    tta: Literal["none", "flip"] = "none"  # `flip` adds the mirrored image as a second view
    # pseudo-labelled test items to train on as well; None has none
    pseudo: PseudoConfig | None = None
    seed: Int = 42  # of everything random
    # of the weights that start at random (the head, or a whole net) in place of `seed`; members
    # that are to be merged share it
    init_seed: Int | None = None
    licence: str = ""  # terms of the pretrained weights
    about: str = ""  # one line for `python -m src models`

    @model_validator(mode="after")
    def _fits(self) -> "ModelConfig":
        wanted = _together(self) | _distilling(self) | _guided(self)
        wanted |= _blending(self) | _localising(self)
        broken = [text for text, fine in wanted.items() if not fine]
        if broken:
            raise ValueError("; ".join(broken))
        return self

    @property
    def is_steered(self) -> bool:
        """Whether held-out items have a say in what is kept, or in when a stage ends."""
        patient = self.patience is not None or self.transfer.head_patience is not None
        return self.selection == "best" or patient

    @property
    def wants_views(self) -> bool:
        """Whether a loss looks at two more views of each item."""
        guided = self.language is not None and self.language.text_mse > 0
        return guided or self.simclr is not None

    @property
    def wants_masks(self) -> bool:
        """Whether a loss looks at which pixels were manipulated."""
        return self.localise is not None

    @property
    def monitored(self) -> Metric:
        """The metric that `monitor` names."""
        return metric_named(self.monitor)

    @property
    def start_seed(self) -> int:
        """The seed of the weights that start at random."""
        return self.seed if self.init_seed is None else self.init_seed

    def as_dict(self) -> dict[str, Any]:
        """Return plain nested dicts, as a run record stores them."""
        return asdict(self)


def _together(config: ModelConfig) -> dict[str, bool]:
    """Return what must hold between the values of a config -> whether it does."""
    optim, loss = config.optim, config.loss
    mixes = config.mixup > 0 or config.cutmix > 0
    free, averages = optim.name == "schedule_free", optim.swa_epochs is not None
    frozen = config.strategy == "feature_extractor"
    cached = frozen and config.transfer.cache_features
    viewed = config.strategy == "frozen_prefix" and config.transfer.cache_features
    terms = asked_terms(loss)
    pairs = any(name in OF_PAIRS for name in terms)
    every, of_pairs = ([f"loss.{name}" for name in names] for names in (TERMS, OF_PAIRS))
    means = optim.ema_decay is not None or averages
    head, plain = config.head, HeadConfig()
    tokens = head.pool in TOKEN_POOLS
    settings = (head.hidden, head.dropout) == (plain.hidden, plain.dropout)
    return {
        f"head.hidden and head.dropout are of head.pool {', '.join(TOKEN_POOLS)}: leave them out": (
            tokens or settings
        ),
        "head.registers is of head.pool registers+patches: leave it out (null)": (
            head.registers is None or head.pool == TOKEN_POOLS[0]
        ),
        f"head.project wants one vector, and head.pool {head.pool} gives several tokens: leave it "
        "out (null)": head.project is None or not tokens,
        f"optim.swa_epochs must be in 1..{optim.epochs} (optim.epochs)": not averages
        or (optim.swa_epochs or 0) <= optim.epochs,
        "input.crop: native is written input.geometry: native; it goes with crop: full and with "
        "crop: face": config.input.crop != "native",
        f"monitor: {config.monitor} steers nothing here: give selection: best, patience or "
        "transfer.head_patience; without them no held-out item has a say in a run": (
            config.is_steered or config.monitor == DEFAULT
        ),
        "optim.swa_epochs wants all epochs, patience may end them before: leave one of them out "
        "(null)": not (averages and config.patience is not None),
        "optim.swa_epochs and optim.ema_decay are two means of the weights: leave one of them out "
        "(null)": not (averages and optim.ema_decay is not None),
        "optim.swa_epochs keeps the mean of the last epochs, selection: best the best one: take "
        "selection: last": not (averages and config.selection == "best"),
        "optim.name: schedule_free keeps a mean of the weights itself: leave optim.ema_decay and "
        "optim.swa_epochs out (null)": not (free and means),
        "optim.name: schedule_free wants optim.schedule: constant": not free
        or optim.schedule == "constant",
        f"{' and '.join(of_pairs)} want labels of 0 or 1: leave mixup and cutmix out": not (
            mixes and pairs
        ),
        "strategy: feature_extractor trains on features of items that stay as they are: leave "
        "mixup and cutmix out, or take transfer.cache_features: false": not (cached and mixes),
        "strategy: frozen_prefix trains on views that are augmented beforehand: leave mixup and "
        "cutmix out, or take transfer.cache_features: false": not (viewed and mixes),
        "strategy: feature_extractor moves no feature: leave "
        f"{', '.join(every[:-1])} and {every[-1]} out": not (frozen and terms) or tokens,
    }


def _distilling(config: ModelConfig) -> dict[str, bool]:
    """Return what `distil` asks of the rest of a config -> whether it holds."""
    distil = config.distil
    if distil is None:
        return {}
    names, asked = distil.teachers, asked_of(distil)
    relation, unread = asked.get("relation"), config.strategy in ("feature_extractor", "zero_shot")
    viewed = config.strategy == "frozen_prefix" and config.transfer.cache_features
    layered = "attention" in asked or "channel_attention" in asked
    return {
        f"distil: teaches nothing: give one or more of {', '.join(DISTIL)}": bool(asked),
        "distil.teacher names no teacher, or one twice": all(names)
        and len(set(names)) == len(names) > 0,
        "distil.relation: distance and angle are both 0, so it teaches nothing": relation is None
        or relation.distance + relation.angle > 0,
        f"distil.relation wants batches of 3 items or more, and optim.batch_size is "
        f"{config.optim.batch_size}": relation is None or config.optim.batch_size >= LEAST_ITEMS,
        f"strategy: {config.strategy} trains no feature of the net, so there is nothing to distil "
        "into it: take fine_tuning": not unread,
        "strategy: frozen_prefix shows views of items that no teacher sees: leave distil out, or "
        "take transfer.cache_features: false": not viewed,
        "distil: attention and channel_attention look into blocks, whose activations "
        "backbone.grad_checkpointing does not keep: leave one of them out": not layered
        or not config.backbone.grad_checkpointing,
    }


def _guided(config: ModelConfig) -> dict[str, bool]:
    """Return what `language` and `simclr` ask of the rest of a config -> whether it holds."""
    language, strategy = config.language, config.strategy
    frozen = strategy in ("feature_extractor", "two_stage", "lp_ft", "frozen_prefix")
    inside = ("language", "simclr", "localise")
    asked = [name for name in inside if getattr(config, name) is not None]
    found = {
        f"{' and '.join(asked)}: strategy {strategy} has a stage on features of what is frozen, "
        "that sees no picture: take fine_tuning, layernorm_only, bitfit or lora": not (
            asked and frozen
        ),
        "strategy: zero_shot asks prompts, and there are none: give language": (
            strategy != "zero_shot" or language is not None
        ),
        "strategy: zero_shot trains nothing: leave simclr and language.text_mse out": (
            strategy != "zero_shot" or not config.wants_views
        ),
    }
    if language is None:
        return found
    halves = min(len(language.prompts.real), len(language.prompts.fake)) > 1
    both = set(language.prompts.real) & set(language.prompts.fake)
    return found | {
        "language wants head: {project: 512, normalize: true} (512 is the width of ViT-B)": (
            config.head.project is not None and config.head.normalize
        ),
        f"language.prompts: {', '.join(map(repr, sorted(both)))} is said of both classes": not both,
        "language.text_mse splits the prompts of a class in two: give two or more of each": (
            not language.text_mse or halves
        ),
        "language.text_mse wants labels of 0 or 1: leave mixup and cutmix out": not (
            language.text_mse and max(config.mixup, config.cutmix) > 0
        ),
    }


def _blending(config: ModelConfig) -> dict[str, bool]:
    """Return what `blend` asks of the rest of a config -> whether it holds."""
    if config.blend is None:
        return {}
    staged = config.strategy in ("feature_extractor", "two_stage", "lp_ft", "frozen_prefix")
    return {
        f"blend makes other fakes in every epoch, and strategy {config.strategy} keeps features or "
        "views of items: take transfer.cache_features: false": not (
            staged and config.transfer.cache_features
        ),
        "blend and mixup or cutmix both mix pictures: leave one of them out": not (
            config.mixup > 0 or config.cutmix > 0
        ),
        "blend trains on blends of reals in place of the data set's fakes, of which pseudo adds "
        "more: take blend: {fakes: true}, or leave pseudo out": config.pseudo is None
        or config.blend.fakes,
    }


def _localising(config: ModelConfig) -> dict[str, bool]:
    """Return what `localise` asks of the rest of a config -> whether it holds."""
    asked = config.localise
    if asked is None:
        return {}
    mixes = config.mixup > 0 or config.cutmix > 0
    return {
        "localise: boundary, intra and clip are 0, so it teaches nothing: leave it out (null)": (
            asked.boundary + asked.intra + asked.clip > 0
        ),
        "localise wants pictures of one mask and labels of 0 or 1: leave mixup and cutmix out": (
            not mixes
        ),
        "localise: strategy zero_shot trains nothing: take fine_tuning": (
            config.strategy != "zero_shot"
        ),
    }


@dataclass(frozen=True)
class InputSpec:
    """Preprocessing as it travels with the weights; what `InputConfig` has, and nothing open."""

    image_size: int  # side of the net's input
    canvas: int  # side of the square that an image is resized to before the central crop
    geometry: str
    interpolation: str
    mean: Triple  # per RGB channel on a 0..1 scale
    std: Triple
    reencode: int | None = None
    frames: FramesConfig = field(default_factory=FramesConfig)
    face: FaceConfig | None = None  # how the face is cut out; None sees the whole picture
    reading: int = 0  # the `READING` by which clips were seen; 0 where nothing says
