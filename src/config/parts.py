"""The parts of a model's config, a frozen dataclass each; `schema` puts them together."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass as checked_dataclass

from src.distillation import distil_keys
from src.losses import all_settings
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
AUTO: Literal["auto"] = "auto"
TOKEN_POOLS = ("registers+patches", "layers", "attention")  # heads that see several tokens
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


@checked_dataclass(frozen=True, config=STRICT)
class PseudoConfig(Keys):
    """Test items that a recipe is sure of join the training rows (Lee 2013), fold-clean."""

    recipe: str  # its members label the test items; for fold k only those that never saw fold k
    # least P(fake) of a new fake, and 1 minus the largest of a new real item, on a scale where the
    # recipe's threshold lies at 0.5
    confidence: Annotated[Float, Field(gt=0.5, le=1)] = 0.95
    # leave the less sure of one class out until the share of fakes is that of the training rows
    balance: bool = False


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
