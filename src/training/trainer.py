"""Train one model on one fold: `fit_fold` -> `train_one_epoch`; resumable after any epoch."""

import logging
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from src import paths
from src.artifacts.files import file_lock
from src.config import ModelConfig
from src.data.augment import PRESETS
from src.data.dataset import EpochSampler, TrainBatches, derive_seed, make_loader
from src.data.pixels import Canvas, PixelSource
from src.errors import UserError
from src.metrics import classification_report
from src.models.backbones import check_backbone
from src.models.classifier import Classifier, build_classifier, count_parameters
from src.models.losses import LOSSES
from src.models.strategies import STRATEGIES
from src.models.weights import Start, start_weights
from src.progress import track
from src.training import checkpoint, device, finish, resume
from src.training.job import Job
from src.training.optim import OPTIMIZERS, build_optimizer, lr_at
from src.training.predict import Compute, default_workers, predict_views
from src.training.run import Run

LOG = logging.getLogger("rvf")
EMA_WARMUP_POWER = 0.75  # decay grows as 1 - (1 + step)^-0.75, so that short runs average too


def fit_fold(job: Job) -> bool:
    """Train one model on one fold and write its checkpoint, predictions and record.

    Returns:
        False where the run was finished already.

    Raises:
        UserError: a run of other settings lies there, the weights do not fit, the loss is not
            finite, or another process is at work on this fold (`LockedError`).
    """
    what = f"{job.dataset}/{job.scheme}/{job.model} fold {job.fold}"
    check_backbone(job.config.backbone.name)
    _check_names(job.config)
    with file_lock(paths.run_lock(*job.names), what):
        wanted = resume.wanted_start(job)
        if resume.is_finished(job, wanted):
            return False
        chip = device.choose_device(job.options.device)
        device.set_deterministic(chip)
        state = resume.read_state(job, wanted)
        torch.manual_seed(derive_seed(job.config.seed, "init", job.fold))
        model, start = _build(job, state)
        precision = state["precision"] if state else _precision(job, model, chip)
        source = PixelSource(job.root, job.table["path"].tolist(), [Canvas.of(model.spec)])
        in_ram = source.preload()
        if job.options.overwrite:
            resume.discard(job)  # not before all that may still be refused
        _log_start(what, start, model, chip)
        run = _make_run(job, model, chip, precision)
        if state is not None:
            run.restore(state)
            LOG.info("resumed after epoch %d of %d", run.epoch, job.config.optim.epochs)
        workers = job.options.workers
        if workers is None:
            workers = 0 if in_ram and chip.type == "cpu" else default_workers()
        compute = Compute(chip, run.precision, workers, 2 * job.config.optim.batch_size)
        _train_epochs(job, run, source, compute, start)
        final = Compute(chip, device.inference_precision(chip, "auto"), workers)
        finish.finish_run(job, run, source, final, start)
    return True


def _build(job: Job, state: dict[str, Any] | None) -> tuple[Classifier, Start]:
    model, native = build_classifier(job.config)
    if state is not None:  # it holds all weights; where they came from need not be in reach
        return model, Start(**state["start"])
    options = job.options
    start = start_weights(
        model.net, job.config, native.head, options.weights, options.no_pretrained
    )
    return model, start


def _precision(job: Job, model: Classifier, chip: torch.device) -> str:
    backbone, batch_size = job.config.backbone, job.config.optim.batch_size
    return device.training_precision(job.options.precision, chip, model, backbone, batch_size)


def _check_names(config: ModelConfig) -> None:
    """Raise for a name that no registry knows, before anything is computed."""
    PRESETS.get(config.augment)
    LOSSES.get(config.loss.name)
    STRATEGIES.get(config.strategy)
    OPTIMIZERS.get(config.optim.name)


def _log_start(what: str, start: Start, model: Classifier, chip: torch.device) -> None:
    millions = count_parameters(model) / 1e6
    LOG.info("%s: %.2f M weights on %s", what, millions, device.device_name(chip))
    if start.source == "random":
        LOG.info("start: random weights")
    else:
        LOG.info(
            "start: %s %s (new: %s; left out: %s)",
            start.source,
            start.name,
            ", ".join(start.missing) or "none",
            ", ".join(start.unexpected) or "none",
        )


def _make_run(job: Job, model: Classifier, chip: torch.device, precision: str) -> Run:
    config = job.config
    STRATEGIES.get(config.strategy)(model.net)
    model.to(device=chip, memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = None
    if config.optim.ema_decay is not None:
        ema = ModelEmaV3(
            model,
            decay=config.optim.ema_decay,
            use_warmup=True,
            warmup_power=EMA_WARMUP_POWER,
        )
    scaler = GradScaler(chip.type, enabled=precision == "fp16")
    return Run(model, build_optimizer(model.net, config.optim), scaler, ema, precision)


def _train_epochs(job: Job, run: Run, source: PixelSource, compute: Compute, start: Start) -> None:
    config, chip = job.config, compute.device
    rows, labels = job.train_rows, job.labels
    sampler = EpochSampler(
        rows,
        labels[rows],
        config.optim.batch_size,
        balanced=config.sampler == "balanced",
        seed=derive_seed(config.seed, job.fold),
    )
    batches = TrainBatches(
        source,
        labels,
        config.augment,
        run.model.spec.image_size,
        derive_seed(config.seed, job.fold),
    )
    loader = make_loader(batches, sampler, compute.workers, pin=chip.type == "cuda")
    weights = torch.tensor(class_weights(config, labels[rows]), device=chip)
    log = finish.EpochLog(job)
    while run.epoch < config.optim.epochs and not _out_of_patience(run, config):
        began = time.monotonic()
        sampler.epoch = run.epoch
        # Everything random in an epoch follows from (seed, fold, epoch): resuming needs no more.
        torch.manual_seed(derive_seed(config.seed, job.fold, "epoch", run.epoch))
        loss = train_one_epoch(run, loader, config, weights, len(sampler), job)
        logits, readable = predict_views(
            [run.averaged], [("full",)], source, job.held_rows, compute
        )
        finish.check_logits(job, logits[0], readable)
        report = classification_report(labels[job.held_rows], logits[0][:, 0], 0.5)
        taken = time.monotonic() - began
        run.epoch += 1
        run.seconds += taken
        rate = len(sampler) * sampler.batch_size / taken
        run.history.append({"epoch": run.epoch, "loss": loss, "items_per_second": rate, **report})
        if config.selection == "best" and report["macro_f1"] > run.best.get("macro_f1", -1.0):
            weights_now = {k: v.clone() for k, v in run.averaged.net.state_dict().items()}
            run.best = {"macro_f1": report["macro_f1"], "epoch": run.epoch, "net": weights_now}
        checkpoint.save_state(paths.run_state(*job.names), run.state(job, start))
        log.write(run.history[-1], config.optim.epochs, taken)
    log.close()


def _out_of_patience(run: Run, config: ModelConfig) -> bool:
    if config.patience is None or not run.best:
        return False
    return run.epoch - run.best["epoch"] >= config.patience


def class_weights(config: ModelConfig, labels: np.ndarray) -> tuple[float, float]:
    """Return the loss weight of real and of fake.

    Args:
        config: `loss.class_weights`.
        labels: 0/1 of the training rows.
    """
    wanted = config.loss.class_weights
    if wanted == "none":
        return 1.0, 1.0
    if wanted == "balanced":
        real, fake = np.bincount(labels, minlength=2)
        return len(labels) / (2 * real), len(labels) / (2 * fake)
    return float(wanted[0]), float(wanted[1])


def train_one_epoch(
    run: Run,
    loader: Iterable[dict[str, Tensor]],
    config: ModelConfig,
    weights: Tensor,
    steps_per_epoch: int,
    job: Job,
) -> float:
    """Take one pass over the training items.

    Returns:
        The mean loss.

    Raises:
        UserError: the loss or the gradient is not finite; names the batch's items; no step was
            made with it.
    """
    chip = weights.device
    run.model.train()
    loss_of = LOSSES.get(config.loss.name)
    steps, accumulate = steps_per_epoch * config.optim.epochs, config.optim.accumulate
    total = torch.zeros((), device=chip)
    seen = 0
    run.optimizer.zero_grad(set_to_none=True)
    title = f"epoch {run.epoch + 1}/{config.optim.epochs}"
    for number, batch in enumerate(track(loader, title, total=steps_per_epoch, unit="batch")):
        step = run.epoch * steps_per_epoch + number
        for group in run.optimizer.param_groups:
            group["lr"] = lr_at(step, steps, steps_per_epoch, config.optim)
        batch = {key: tensor.to(chip, non_blocking=True) for key, tensor in batch.items()}
        with device.autocast(chip, run.precision):
            outputs = run.model(batch)
        loss = loss_of(batch, outputs, config.loss, weights)
        if not torch.isfinite(loss):
            _stop_on_loss("loss", loss.item(), batch, run, job)
        share = min(accumulate, steps_per_epoch - number // accumulate * accumulate)
        run.scaler.scale(loss / share).backward()
        full = (number + 1) % accumulate == 0 or number + 1 == steps_per_epoch
        if full and not _step(run, config, step // accumulate):
            _stop_on_loss("gradient", float("nan"), batch, run, job)
        total += loss.detach()
        seen += 1
    return float(total) / seen


def _step(run: Run, config: ModelConfig, step: int) -> bool:
    """Make an optimizer step; False, and none made, where the gradient is not finite."""
    run.scaler.unscale_(run.optimizer)
    limit = config.optim.clip_grad if config.optim.clip_grad is not None else float("inf")
    norm = nn.utils.clip_grad_norm_(run.model.parameters(), limit)
    if not run.scaler.is_enabled() and not torch.isfinite(norm):
        return False  # with fp16 the scaler skips such a step and lowers its scale
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    if run.ema is not None:
        run.ema.update(run.model, step)
    return True


def _stop_on_loss(what: str, value: float, batch: dict[str, Tensor], run: Run, job: Job) -> None:
    ids = job.table["item_id"].iloc[batch["item"].tolist()].tolist()
    raise UserError(
        f"epoch {run.epoch + 1}: the {what} is {value}; stopped before the step. Items of the "
        f"batch: {', '.join(ids)}. Start again with --overwrite --precision fp32, or train a "
        "calmer variant under its own name: --set optim.lr=... --as NAME"
    )
