"""Stages of a run: entering one, what is in training mode in it, and what it leaves behind."""

import logging
from collections.abc import Iterable
from dataclasses import replace

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from src import paths
from src.config import ModelConfig
from src.data.batches.samplers import EpochSampler
from src.models import checkpoint
from src.models.anatomy import Names, Probe
from src.seeds import derive_seed
from src.training.job import Job
from src.training.optim import build_optimizer, optimizer_mode
from src.training.run import Run
from src.training.schedules import make_schedule
from src.training.swa import WeightMean, freeze_modes, settle_statistics

LOG = logging.getLogger("rvf")
EMA_WARMUP_POWER = 0.75  # decay grows as 1 - (1 + step)^-0.75, so that short runs average too
SETTLING_BATCHES = 50  # that BatchNorm is estimated from after an epoch of schedule_free


def enter_stage(run: Run, job: Job, number: int, steps_per_epoch: int) -> None:
    """Make the optimizer, the schedule and the mean of weights of a stage.

    Args:
        run: changed in place; its weights stay.
        job: the run's config.
        number: of the stage.
        steps_per_epoch: batches of an epoch.
    """
    run.stage, run.stage_epoch, run.best = number, 0, {}
    stage, net = run.current, run.model.net
    _train_only(net, stage.train)
    run.optimizer = build_optimizer(net, stage.optim)
    run.schedule = make_schedule(stage.optim, stage.optim.epochs * steps_per_epoch, steps_per_epoch)
    run.active = run.model
    run.ema = run.swa = None
    if stage.cached:  # a mean of the whole net's weights would cost more than training its head
        run.active = Probe(net, run.head, job.config.backbone.drop_rate)
    elif stage.optim.ema_decay is not None:
        run.ema = ModelEmaV3(
            run.model,
            decay=stage.optim.ema_decay,
            use_warmup=True,
            warmup_power=EMA_WARMUP_POWER,
        )
    elif stage.optim.swa_epochs is not None:
        first = job.stage_epochs(run.stages, number) - stage.optim.swa_epochs
        run.swa = WeightMean(run.model, first)
    if len(run.stages) > 1 or len(stage.train) < len(list(net.parameters())):
        _log_share(run, number)


def begin_epoch(run: Run, job: Job) -> None:
    """Set what is trained in the coming epoch, and what is in training mode."""
    stage, net = run.current, run.model.net
    names = stage.trained_in(run.stage_epoch, job.config.transfer.unfreeze_every)
    _train_only(net, names)
    run.model.train()
    run.active.train()
    freeze_modes(net)


def prepare_scoring(
    run: Run,
    job: Job,
    sampler: EpochSampler,
    batches: Iterable[dict[str, Tensor]],
    chip: torch.device,
) -> None:
    """Put the weights in place that an optimizer wants used, with BatchNorm statistics of theirs.

    Nothing happens unless it trains others than those.
    """
    if optimizer_mode(run.optimizer, train=False) and not run.current.cached:
        torch.manual_seed(derive_seed(job.config.seed, job.fold, "settle", run.epoch))
        sampler.first = max(0, len(sampler) - SETTLING_BATCHES)
        settle_statistics(run.model, batches, chip, run.precision)


def take_mean(
    run: Run,
    job: Job,
    sampler: EpochSampler,
    batches: Iterable[dict[str, Tensor]],
    chip: torch.device,
) -> None:
    """Put the mean of the last epochs' weights into the model, with `swa_epochs`."""
    if run.swa is None:
        return
    torch.manual_seed(derive_seed(job.config.seed, job.fold, "settle", run.epoch))
    sampler.epoch, sampler.first = run.epoch, 0
    settle_statistics(run.swa.model, batches, chip, run.precision)
    run.model.net.load_state_dict(run.swa.model.net.state_dict())
    LOG.info("the mean of the weights of the last %d epochs is kept", run.current.optim.swa_epochs)


def leave_stage(run: Run, job: Job) -> None:
    """Take over the weights that the stage keeps, and save them unless it is the last one.

    The stage's entry in `kept` says which of its epochs they are of.
    """
    net, kept = run.model.net, run.averaged.net
    if run.best:
        kept.load_state_dict(run.best["net"])
    if kept is not net:
        net.load_state_dict(kept.state_dict())
    epoch = run.best.get("stage_epoch", run.stage_epoch)
    scores = {k: v for k, v in _entry(run).items() if k in ("macro_f1", "auc")}
    trained = trained_count(run.model.net, run.current.train)
    entry = {"name": run.current.name, "epochs": epoch, "trainable": trained}
    run.kept.append(entry | scores)
    if run.stage + 1 < len(run.stages):
        path = paths.stage_checkpoint(*job.names, run.stage)
        checkpoint.save_checkpoint(path, run.model, job.config.as_dict(), ["full"])
        LOG.info("stage %r: weights of its epoch %d -> %s", run.current.name, epoch, path)


def is_over(run: Run, job: Job) -> bool:
    """Tell whether the stage has no epoch left, or no patience."""
    stage = run.current
    if run.stage_epoch >= job.stage_epochs(run.stages, run.stage):
        return True
    if stage.patience is None or not run.best:
        return False
    return run.epoch - run.best["epoch"] >= stage.patience


def epochs_in_all(run: Run, job: Job) -> int:
    """Return how many epochs all stages have, unless patience ends one."""
    return sum(job.stage_epochs(run.stages, number) for number in range(len(run.stages)))


def stage_config(run: Run, config: ModelConfig) -> ModelConfig:
    """Return the config with the optimisation of the stage that is under way."""
    return replace(config, optim=run.current.optim)


def trained_count(net: nn.Module, names: Names) -> int:
    """Return how many numbers the named weights hold."""
    return sum(weight.numel() for name, weight in net.named_parameters() if name in names)


def _entry(run: Run) -> dict[str, float]:
    """Return the history's entry of the epoch that is kept."""
    epoch = run.best.get("epoch", run.epoch)
    return next((entry for entry in run.history if entry["epoch"] == epoch), {})


def _train_only(net: nn.Module, names: Names) -> None:
    for name, weight in net.named_parameters():
        weight.requires_grad_(name in names)


def _log_share(run: Run, number: int) -> None:
    stage, net = run.current, run.model.net
    count = trained_count(net, stage.train)
    whole = sum(weight.numel() for weight in net.parameters())
    LOG.info(
        "stage %d of %d, %s: %d of %d weights are trained (%.2f %%), at most %d epochs%s",
        number + 1, len(run.stages), stage.name, count, whole, 100 * count / whole,
        stage.optim.epochs, ", on features computed once" if stage.cached else "",
    )  # fmt: skip
