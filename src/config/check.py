"""Values of a model config that lie outside their range, or do not go together."""

from functools import reduce

from src.config.schema import LossConfig, ModelConfig, OptimConfig
from src.errors import UserError

MOST_MARGIN = 4.0  # side of a face's square over that of its box
MOST_FRAMES = 1024  # of a clip; views are named with two digits or more

Checks = dict[str, bool]  # "key must be ..." -> whether it is


def check_values(config: ModelConfig, where: str) -> None:
    """Check the values of a config whose keys and kinds are right.

    Raises:
        UserError: names every value that is wrong, what was found and what would fit.
    """
    checks = _of_net(config) | _of_optim(config.optim) | _of_loss(config.loss)
    checks |= _of_transfer(config) | _of_data(config)
    ranges = [
        f"{text} (found {_found(config, text.split()[0])})"
        for text, fine in checks.items()
        if not fine
    ]
    broken = ranges + [text for text, fine in _together(config).items() if not fine]
    if broken:
        raise UserError(f"{where}: " + "; ".join(broken))


def _found(config: ModelConfig, key: str) -> object:
    return reduce(getattr, key.split("."), config)


def _of_net(config: ModelConfig) -> Checks:
    size, drop_path = config.input.image_size, config.backbone.drop_path_rate
    quality = config.input.reencode
    return {
        "input.image_size must be >= 8": size is None or size >= 8,
        "input.crop_pct must be in (0, 1]": 0 < config.input.crop_pct <= 1,
        "input.std must be > 0": all(value > 0 for value in config.input.std or ()),
        "input.reencode must be in 1..100": quality is None or 1 <= quality <= 100,
        "backbone.drop_rate must be in [0, 1)": 0 <= config.backbone.drop_rate < 1,
        "backbone.drop_path_rate must be in [0, 1)": drop_path is None or 0 <= drop_path < 1,
    }


def _of_optim(optim: OptimConfig) -> Checks:
    decay, swa = optim.layer_decay, optim.swa_epochs
    return {
        "optim.lr must be > 0": optim.lr > 0,
        "optim.min_lr must be >= 0": optim.min_lr >= 0,
        "optim.decay_epochs must be >= 1": optim.decay_epochs >= 1,
        "optim.decay_rate must be in (0, 1)": 0 < optim.decay_rate < 1,
        "optim.weight_decay must be >= 0": optim.weight_decay >= 0,
        "optim.clip_grad must be > 0": optim.clip_grad is None or optim.clip_grad > 0,
        "optim.epochs must be >= 1": optim.epochs >= 1,
        "optim.batch_size must be >= 2 (BatchNorm)": optim.batch_size >= 2,
        "optim.accumulate must be >= 1": optim.accumulate >= 1,
        "optim.warmup_epochs must be >= 0": optim.warmup_epochs >= 0,
        "optim.ema_decay must be in (0, 1)": optim.ema_decay is None or 0 < optim.ema_decay < 1,
        f"optim.swa_epochs must be in 1..{optim.epochs} (optim.epochs)": swa is None
        or 1 <= swa <= optim.epochs,
        "optim.layer_decay must be in (0, 1]": decay is None or 0 < decay <= 1,
        "optim.sam_rho must be > 0": optim.sam_rho is None or optim.sam_rho > 0,
    }


def _of_loss(loss: LossConfig) -> Checks:
    weights = loss.class_weights
    return {
        "loss.class_weights must be > 0": isinstance(weights, str) or min(weights) > 0,
        "loss.label_smoothing must be in [0, 1)": 0 <= loss.label_smoothing < 1,
        "loss.gamma must be >= 0": loss.gamma >= 0,
        "loss.gamma_fake must be >= 0": loss.gamma_fake >= 0,
        "loss.supcon must be >= 0": loss.supcon >= 0,
        "loss.temperature must be > 0": loss.temperature > 0,
        "loss.uniformity must be >= 0": loss.uniformity >= 0,
        "loss.alignment must be >= 0": loss.alignment >= 0,
    }


def _of_transfer(config: ModelConfig) -> Checks:
    transfer = config.transfer
    every, patience = transfer.unfreeze_every, transfer.head_patience
    return {
        "transfer.unfreeze_every must be >= 1": every is None or every >= 1,
        "transfer.head_epochs must be >= 1": transfer.head_epochs >= 1,
        "transfer.head_lr must be > 0": transfer.head_lr > 0,
        "transfer.head_patience must be >= 1": patience is None or patience >= 1,
        "transfer.last_blocks must be >= 1": transfer.last_blocks >= 1,
        "transfer.lora_r must be >= 1": transfer.lora_r >= 1,
        "transfer.lora_alpha must be > 0": transfer.lora_alpha > 0,
        "transfer.lora_dropout must be in [0, 1)": 0 <= transfer.lora_dropout < 1,
    }


def _of_data(config: ModelConfig) -> Checks:
    pseudo, frames = config.pseudo, config.frames
    return {
        f"face.margin must be in [1, {MOST_MARGIN:g}]": 1 <= config.face.margin <= MOST_MARGIN,
        f"frames.train must be in 1..{MOST_FRAMES}": 1 <= frames.train <= MOST_FRAMES,
        f"frames.eval must be in 1..{MOST_FRAMES}": 1 <= frames.eval <= MOST_FRAMES,
        "pseudo.confidence must be in (0.5, 1]": pseudo is None or 0.5 < pseudo.confidence <= 1,
        "erase must be in [0, 1]": 0 <= config.erase <= 1,
        "mixup must be >= 0": config.mixup >= 0,
        "cutmix must be >= 0": config.cutmix >= 0,
        "per_class must be >= 1": config.per_class >= 1,
        "patience must be >= 1": config.patience is None or config.patience >= 1,
    }


def _together(config: ModelConfig) -> Checks:
    optim, loss = config.optim, config.loss
    mixes = config.mixup > 0 or config.cutmix > 0
    free, averages = optim.name == "schedule_free", optim.swa_epochs is not None
    frozen = config.strategy == "feature_extractor"
    pairs = max(loss.supcon, loss.alignment) > 0
    means = optim.ema_decay is not None or averages
    return {
        "input.crop: native is written input.geometry: native; it goes with crop: full and with "
        "crop: face": config.input.crop != "native",
        "patience wants selection: best": config.patience is None or config.selection == "best",
        "transfer.head_patience wants selection: best": config.transfer.head_patience is None
        or config.selection == "best",
        "optim.swa_epochs and optim.ema_decay are two means of the weights: leave one of them out "
        "(null)": not (averages and optim.ema_decay is not None),
        "optim.swa_epochs keeps the mean of the last epochs, selection: best the best one: take "
        "selection: last": not (averages and config.selection == "best"),
        "optim.name: schedule_free keeps a mean of the weights itself: leave optim.ema_decay and "
        "optim.swa_epochs out (null)": not (free and means),
        "optim.name: schedule_free wants optim.schedule: constant": not free
        or optim.schedule == "constant",
        "loss.supcon and loss.alignment want labels of 0 or 1: leave mixup and cutmix out": not (
            mixes and pairs
        ),
        "strategy: feature_extractor trains on features of items that stay as they are: leave "
        "mixup, cutmix, loss.supcon, loss.uniformity and loss.alignment out": not (
            frozen and (mixes or pairs or loss.uniformity > 0)
        ),
    }
