"""A model's config: what `configs/models/<name>.yaml` may hold, and what does not go together."""

from dataclasses import asdict, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, model_validator
from pydantic.dataclasses import dataclass as checked_dataclass

from src.config.parts import (
    TOKEN_POOLS,
    BackboneConfig,
    BlendConfig,
    DistilConfig,
    FaceConfig,
    FramesConfig,
    HeadConfig,
    InputConfig,
    LanguageConfig,
    LocaliseConfig,
    LossConfig,
    OptimConfig,
    PseudoConfig,
    SimclrConfig,
    TransferConfig,
)
from src.distillation import DISTIL, LEAST_ITEMS, asked_of
from src.losses import OF_PAIRS, TERMS, asked_terms
from src.metrics import DEFAULT, Metric, metric_named, tuned_name
from src.strict_yaml import STRICT, Count, Int, Keys, NotNegative

STANDARD = "standard"  # the preset of a config that names none
OTHER_NAMES = {"peft_lora": "lora"}  # what others call a strategy


def _shortest(augment: str | dict[str, Any]) -> str | dict[str, Any]:
    """Return a preset without settings as its name alone, so that it is written in one way."""
    if isinstance(augment, str):
        return augment
    name = augment.get("name", STANDARD)
    if not isinstance(name, str):
        raise ValueError(f"name must be text (found {name!r})")
    return {"name": name} | augment if set(augment) - {"name"} else name


def _shortest_if_any(augment: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
    """Return a treatment of reals likewise; it has no default."""
    if isinstance(augment, dict) and "name" not in augment:
        raise ValueError("name what is done to reals, such as {name: retouch, share: 0.3}")
    return None if augment is None else _shortest(augment)


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
    # how some reals are treated first and stay real, so that retouched photos are not called fake:
    # `retouch`, or `{name: smooth, share: 0.3}`; None treats none
    augment_real: Annotated[str | dict[str, Any] | None, AfterValidator(_shortest_if_any)] = None
    # fakes made of the real faces in training; None makes none
    blend: BlendConfig | None = None
    mixup: NotNegative = 0.0  # alpha of mixup's Beta distribution; 0 has none
    # alpha of cutmix's Beta distribution; 0 has none. With both, each batch takes one.
    cutmix: NotNegative = 0.0
    # a registered sampler: `shuffle`; `balanced` draws each class equally often; `oversample`
    # repeats items of a class up to `per_class`; `paired` puts a real and a fake of one group side
    # by side; `shards` reads a data set of shards nearly from start to end
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
        "strategy: feature_extractor trains on features of items that stay as they are: leave "
        "augment_real out, or take transfer.cache_features: false": not (
            cached and config.augment_real is not None
        ),
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
