"""Strategies by name: how a backbone's weights are transferred, as stages of a run."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

from torch import nn

from src.config import ModelConfig, OptimConfig
from src.errors import UserError
from src.models.adapters import add_lora
from src.models.anatomy import Anatomy, Names, anatomy_of
from src.models.prefix import cut_of, prefix_state
from src.registry import Registry


@dataclass(frozen=True)
class Stage:
    """A part of a run, in which the same weights are trained in the same way."""

    name: str  # shown, and kept in the history
    train: Names  # names of the weights that are trained
    optim: OptimConfig  # how; its epochs are those of this stage alone
    patience: int | None = None  # epochs without a gain before it ends; None never ends it early
    # what is frozen is in evaluation mode, and only what lies behind it is run, on its features:
    # the head on those of items as they are, computed once (`cached`), or of each augmented batch;
    # or what lies behind `cut` on those of `views`, augmented and kept. None runs the whole net
    features: Literal["cached", "augmented", "views"] | None = None
    cut: str = ""  # with `views`: path of the first module that is trained
    # with gradual unfreezing: what is trained from the first epochs on, block by block; each lasts
    # `unfreeze_every` epochs, the last (which is `train`) to the end
    thaw: tuple[Names, ...] = ()

    # its head is written (from prompts), not trained: no step is made
    untrained: bool = False

    @property
    def trains_body(self) -> bool:
        """Whether more is trained than the head on what a frozen backbone gives."""
        return self.features is None or bool(self.cut)

    def trained_in(self, epoch: int, unfreeze_every: int | None) -> Names:
        """Return the names of the weights that are trained in an epoch, counted from 0."""
        if not self.thaw or unfreeze_every is None:
            return self.train
        return self.thaw[min(epoch // unfreeze_every, len(self.thaw) - 1)]


Strategy = Callable[[Anatomy, ModelConfig], list[Stage]]
STRATEGIES: Registry[Strategy] = Registry("strategy")


@STRATEGIES.register("fine_tuning")
def fine_tuning(parts: Anatomy, config: ModelConfig) -> list[Stage]:
    """Train every weight but those that `transfer.freeze` names.

    With `transfer.unfreeze_every` from the head down, a block at a time (Howard and Ruder, ACL
    2018, sec. 3.3).
    """
    return [_main("all", parts.everything, parts, config)]


@STRATEGIES.register("feature_extractor")
def feature_extractor(parts: Anatomy, config: ModelConfig) -> list[Stage]:
    """Train the head alone, on features of the frozen backbone."""
    _refuse_unread(config)
    return [Stage("head", parts.head, config.optim, config.patience, _features(config))]


@STRATEGIES.register("two_stage")
def two_stage(parts: Anatomy, config: ModelConfig) -> list[Stage]:
    """Train the head, then the last blocks with it, each with its own early stopping."""
    number = config.transfer.last_blocks
    if number > len(parts.blocks):
        raise UserError(
            f"transfer.last_blocks is {number}; {config.backbone.name} has {len(parts.blocks)} "
            "blocks (strategy fine_tuning trains them all)"
        )
    last = _main(f"last {number} blocks", parts.last(number), parts, config)
    return [_head_stage(parts, config), last]


@STRATEGIES.register("lp_ft")
def lp_ft(parts: Anatomy, config: ModelConfig) -> list[Stage]:
    """Train the head, then everything (Kumar et al., ICLR 2022, "Fine-tuning can distort...")."""
    return [_head_stage(parts, config), _main("all", parts.everything, parts, config)]


@STRATEGIES.register("frozen_prefix")
def frozen_prefix(parts: Anatomy, config: ModelConfig) -> list[Stage]:
    """Train what lies behind the first blocks, on views that these have seen; then, perhaps, all.

    The first blocks work at the highest resolution: of a convolutional net they take more than half
    of a step's time. Of layers frozen early: Brock et al. 2017, "FreezeOut".
    """
    wanted, optim, name = config.transfer, config.optim, config.backbone.name
    if wanted.unfreeze_every is not None:
        raise UserError(
            "strategy 'frozen_prefix' has no use for transfer.unfreeze_every; leave it out (null), "
            "or take fine_tuning"
        )
    cut = cut_of(parts, wanted.prefix_blocks, name)
    behind = parts.everything - prefix_state(parts.net, cut).keys()
    first = _main(f"behind {wanted.prefix_blocks} blocks", behind, parts, config)
    if wanted.cache_features:
        first = replace(first, features="views", cut=cut)
    if not wanted.full_epochs:
        return [first]
    last = replace(config, optim=replace(optim, epochs=wanted.full_epochs, lr=wanted.full_lr))
    return [first, _main("all", parts.everything, parts, last)]


@STRATEGIES.register("layernorm_only")
def layernorm_only(parts: Anatomy, config: ModelConfig) -> list[Stage]:
    """Train the normalisation layers and the head (GenD, WACV 2026)."""
    return [_main("norms", parts.norms | parts.head, parts, config)]


@STRATEGIES.register("bitfit")
def bitfit(parts: Anatomy, config: ModelConfig) -> list[Stage]:
    """Train the biases and the head (Ben Zaken et al., ACL 2022)."""
    return [_main("biases", parts.biases | parts.head, parts, config)]


@STRATEGIES.register("lora")
def lora(parts: Anatomy, config: ModelConfig) -> list[Stage]:
    """Train low-rank updates of some layers, and the head (Hu et al., ICLR 2022, eq. 3).

    They are added up into plain weights before the run predicts and saves.
    """
    _refuse_unread(config)
    if hasattr(parts.net, "tower"):
        raise UserError(
            f"strategy lora leaves all but the head as it is, and much of {config.backbone.name} "
            "starts at random: take strategy: fine_tuning with transfer: {freeze: [tower]}"
        )
    added = add_lora(parts, config.transfer, _image_size(parts.net, config))
    return [Stage("lora", added | parts.head, config.optim, config.patience)]


@STRATEGIES.register("zero_shot")
def zero_shot(parts: Anatomy, config: ModelConfig) -> list[Stage]:
    """Train nothing: the head is what the prompts of `language` say (Radford et al. 2021)."""
    _refuse_unread(config)
    return [Stage("zero_shot", parts.head, config.optim, untrained=True)]


def make_stages(net: nn.Module, head: tuple[str, ...], config: ModelConfig) -> list[Stage]:
    """Return the stages of a run; a strategy with adapters puts them into the net.

    Raises:
        UserError: the strategy does not fit the net, or finds nothing to train.
    """
    stages = STRATEGIES.get(config.strategy)(anatomy_of(net, head), config)
    have = {name for name, _ in net.named_parameters()}
    for stage in stages:
        lost = sorted(stage.train - have)
        if lost:
            raise ValueError(f"{config.strategy}: {lost[:3]} are no weights of the net")
        if not stage.train:
            raise UserError(
                f"strategy {config.strategy!r} finds nothing to train in {config.backbone.name} "
                f"(stage {stage.name!r}); choose another strategy"
            )
    return stages


def _head_stage(parts: Anatomy, config: ModelConfig) -> Stage:
    """Return the first stage of two, in which the head gets away from its random start."""
    wanted = config.transfer
    optim = replace(config.optim, epochs=wanted.head_epochs, lr=wanted.head_lr)
    optim = replace(optim, layer_decay=None, swa_epochs=None)  # matters of the backbone
    return Stage("head", parts.head, optim, wanted.head_patience, _features(config))


def _features(config: ModelConfig) -> Literal["cached", "augmented"]:
    return "cached" if config.transfer.cache_features else "augmented"


def _main(name: str, chosen: Names, parts: Anatomy, config: ModelConfig) -> Stage:
    """Return a stage that trains what is chosen and not frozen, perhaps block by block."""
    train = _without_frozen(chosen, config)
    thaw: tuple[Names, ...] = ()
    if config.transfer.unfreeze_every is not None:
        steps = [parts.last(number) & train for number in range(len(parts.blocks) + 1)]
        # Once every block is trained, so is what lies before the first.
        thaw = tuple(dict.fromkeys([*steps[:-1], steps[-1] | (parts.stem & train)]))
    return Stage(name, train, config.optim, config.patience, thaw=thaw)


def _image_size(net: nn.Module, config: ModelConfig) -> int:
    """Return the side in pixels that a net was built for, as far as it says so."""
    fixed = getattr(getattr(net, "patch_embed", None), "img_size", None)
    if fixed:
        return int(fixed[0])
    native = getattr(net, "default_cfg", {}).get("input_size", (3, 224, 224))[-1]
    return config.input.image_size or int(native)


def _refuse_unread(config: ModelConfig) -> None:
    """Raise for settings of fine-tuning that another strategy would pass over in silence."""
    transfer, optim = config.transfer, config.optim
    given = {
        "transfer.freeze": bool(transfer.freeze),
        "transfer.unfreeze_every": transfer.unfreeze_every is not None,
        "optim.swa_epochs": optim.swa_epochs is not None and config.strategy != "lora",
    }
    for key, there in given.items():
        if there:
            raise UserError(
                f"strategy {config.strategy!r} has no use for {key}; leave it out (null)"
            )


def _without_frozen(names: Names, config: ModelConfig) -> Names:
    """Leave out what `transfer.freeze` names, some but not all of what would be trained.

    A name is that of a weight, or of a part and then means all that lies in it.
    """
    kept = names
    for pattern in config.transfer.freeze:
        patterns = (pattern, f"{pattern}.*")
        frozen = {name for name in names if any(fnmatchcase(name, one) for one in patterns)}
        if not frozen:
            raise UserError(
                f"transfer.freeze: {pattern!r} matches no weight that strategy "
                f"{config.strategy!r} trains; they are called {_examples(names)}"
            )
        kept -= frozen
    if not kept:
        raise UserError(
            f"transfer.freeze: {', '.join(config.transfer.freeze)} leave nothing to train of "
            f"{_examples(names)}"
        )
    return kept


def _examples(names: Names) -> str:
    shown = sorted(names)
    middle = shown[len(shown) // 2]
    return ", ".join(dict.fromkeys([shown[0], middle, shown[-1]])) + f" ({len(shown)} in all)"
